//! Pages and states as bytes, for saved sessions.

use std::sync::Arc;

use llamacpu_kernels::attention::PAGE_TOKENS;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::AlignedBytes;
use llamacpu_kernels::memory;

use super::Pages;
use crate::Error;
use crate::error::zeroed;
use crate::page::{PURPOSE, Page};

impl Pages {
    /// A copy of page `index` of a conversation of `tokens` tokens, one group after the other. Whatever is no longer
    /// needed and all slots after the last token are filled with zeros, so that neither forgotten tokens nor leftover
    /// memory leave the process. Models with recurrent layers have one more: their state. The pages of pictures that
    /// cross-attention sees are the last ones.
    pub(crate) fn copy_page(&self, index: usize, tokens: usize) -> Result<AlignedBytes, Error> {
        let pages = tokens.div_ceil(PAGE_TOKENS);
        let state = self.layout.state_bytes() > 0 && index == pages && tokens > 0;
        let own = pages + usize::from(self.layout.state_bytes() > 0 && tokens > 0);
        if let Some(crossing) = self.crossing.as_ref().filter(|_| index >= own) {
            return crossing.pages.copy_page(index - own, crossing.pictures.states());
        }
        if index >= pages && !state {
            return Err(Error::Argument(format!("there is no page {index} in {pages} pages of keys and values")));
        }
        if !self.hold(tokens) {
            return Err(Error::Argument(
                "the session was rewound to where its keys and values are computed again by the next step; continue it first"
                    .to_owned(),
            ));
        }
        if state {
            return self.copy_state();
        }
        let mut copy = AlignedBytes::mapped(self.layout.page_bytes(), PURPOSE)?;
        let mut rest = &mut copy[..];
        for (number, (pages, group)) in self.groups.iter().zip(&self.layout.groups).enumerate() {
            let (own, others) = rest.split_at_mut(group.page_bytes);
            rest = others;
            let Some(page) =
                pages.get(index).and_then(Option::as_ref).filter(|_| group.needed(tokens).contains(&index))
            else {
                own.fill(0);
                continue;
            };
            own.copy_from_slice(page);
            let filled = (group.places(tokens) - index * PAGE_TOKENS).min(PAGE_TOKENS);
            for layer in self.layout.layers_of(number) {
                let layout = &layer.layout;
                let zeros = |size: usize| zeroed(Some((PAGE_TOKENS - filled) * layout.kv_heads * size), PURPOSE);
                let (keys, values) = (zeros(layout.key_size)?, zeros(layout.stored_value_size())?);
                layout.write(Isa::SCALAR, &mut own[layer.range()], filled, &keys, &values)?;
            }
        }
        Ok(copy)
    }

    /// Adds a page that `copy_page` made from a conversation of `tokens` tokens.
    pub(crate) fn push_page(&mut self, bytes: &[u8], tokens: usize) -> Result<(), Error> {
        if bytes.len() != self.layout.page_bytes() {
            return Err(Error::Argument(format!(
                "a page of {} bytes of keys and values; expected {}",
                bytes.len(),
                self.layout.page_bytes()
            )));
        }
        let mut rest = bytes;
        for (pages, group) in self.groups.iter_mut().zip(&self.layout.groups) {
            let (own, others) = rest.split_at(group.page_bytes);
            rest = others;
            memory::reserve(pages, 1, PURPOSE)?;
            let needed = group.needed(tokens).contains(&pages.len());
            let page = needed.then(|| Page::copy_of(own, &self.layout.spare)).transpose()?;
            pages.push(page.map(Arc::new));
        }
        Ok(())
    }

    /// A copy of the state after `tokens` tokens.
    fn copy_state(&self) -> Result<AlignedBytes, Error> {
        let mut copy = AlignedBytes::mapped(self.layout.state_bytes(), PURPOSE)?;
        for (to, bytes) in copy.as_chunks_mut::<4>().0.iter_mut().zip(self.states.bytes()) {
            *to = bytes;
        }
        Ok(copy)
    }

    /// Adds the state that `copy_page` gave behind the last page.
    pub(crate) fn push_state(&mut self, bytes: &[u8], tokens: usize) -> Result<(), Error> {
        self.states.push(&self.layout.states, bytes, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::kv::{Kept, PAGE_LAYOUT, PageLayout};
    use llamacpu_kernels::attention::KvType;
    use llamacpu_kernels::context::Context;
    use llamacpu_kernels::threads::Pool;

    fn pages(kv_type: KvType, tokens: usize) -> Pages {
        let pool = Pool::new(1).unwrap();
        let context = Context::new(Isa::SCALAR, &pool);
        let mut pages = Pages::new(Arc::new(PageLayout::new(&config(), kv_type, &Arc::default()).unwrap()));
        pages.reserve(0, tokens, 0).unwrap();
        for (layer, &heads) in config().kv_heads.iter().enumerate() {
            let numbers = |size: usize, factor: f32| -> Vec<f32> {
                (0..tokens * heads * size).map(|index| (index % 251) as f32 * factor - 1.0).collect()
            };
            let (keys, values) = (numbers(config().key_size, 0.25), numbers(config().value_size, -0.5));
            pages.write(&context, Kept::Layer(layer), 0, &keys, &values).unwrap();
        }
        pages
    }

    /// FNV-1a, 64 bits.
    fn hash(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn the_arrangement_of_a_page_is_the_numbered_one() {
        // Saved sessions hold these bytes. Whoever changes them gives PAGE_LAYOUT the next number.
        let hashes =
            [KvType::F32, KvType::F16, KvType::Q8_0].map(|kv_type| hash(&pages(kv_type, 70).copy_page(0, 70).unwrap()));
        assert_eq!((PAGE_LAYOUT, hashes), (1, [0x2db7_e8b6_380b_7839, 0xe97a_5174_1e88_f789, 0x36ff_c9c3_0951_524f]));
    }

    #[test]
    fn a_copied_page_tells_nothing_about_forgotten_tokens() {
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let (long, short) = (pages(kv_type, 128), pages(kv_type, 70));
            for index in 0..2 {
                assert_eq!(*long.copy_page(index, 70).unwrap(), *short.copy_page(index, 70).unwrap());
            }
            assert!(long.copy_page(2, 70).is_err());
            let mut restored = Pages::new(Arc::clone(&short.layout));
            restored.push_page(&short.copy_page(0, 70).unwrap(), 64).unwrap();
            assert_eq!(*restored.copy_page(0, 64).unwrap(), *short.copy_page(0, 64).unwrap());
            assert!(restored.push_page(&[0; 8], 64).is_err());
        }
    }
}
