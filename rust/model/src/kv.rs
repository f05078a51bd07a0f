//! Keys and values of a conversation, in pages of `PAGE_TOKENS` tokens × all layers. Pages are counted by reference:
//! a fork shares them, and whoever writes into a shared page gets an own copy first.

use std::sync::{Arc, Mutex, PoisonError};

use llamacpu_kernels::attention::{KvLayout, KvType, PAGE_TOKENS};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::AlignedBytes;
use llamacpu_kernels::memory;

use crate::config::LayerConfig;
use crate::error::zeroed;
use crate::page::{PURPOSE, Page, Spare};
use crate::{Config, Error};

/// Number of the arrangement of keys and values in a page. Pages leave the process in saved sessions: another
/// arrangement takes the next number, so that old files are refused and not misread.
pub const PAGE_LAYOUT: u32 = 1;

/// Where each layer's keys and values lie in a page.
#[derive(Debug)]
pub(crate) struct PageLayout {
    /// Per layer: its layout and its first byte in the page.
    layers: Vec<(KvLayout, usize)>,
    page_bytes: usize,
    spare: Arc<Spare>,
}

impl PageLayout {
    /// `spare` is where pages that are dropped may wait.
    pub(crate) fn new(config: &Config, kv_type: KvType, spare: &Arc<Spare>) -> Result<Self, Error> {
        let mut layers = Vec::with_capacity(config.layers);
        let mut page_bytes = 0usize;
        for index in 0..config.layers {
            let LayerConfig { kv_heads, key_size, value_size, latent_size, .. } = config.layer(index);
            let layout = match latent_size {
                0 => KvLayout { kv_type, kv_heads, key_size, value_size, latent: false },
                value_size => {
                    KvLayout { kv_type, kv_heads, key_size: value_size + config.rope.size, value_size, latent: true }
                }
            };
            layers.push((layout, page_bytes));
            let next =
                layout.layer_bytes().checked_next_multiple_of(64).and_then(|bytes| page_bytes.checked_add(bytes));
            page_bytes = next.ok_or(Error::Memory { bytes: usize::MAX, purpose: PURPOSE })?;
        }
        Ok(Self { layers, page_bytes, spare: Arc::clone(spare) })
    }

    pub(crate) fn layer(&self, layer: usize) -> &KvLayout {
        &self.layers[layer].0
    }

    /// How numbers are stored; every model has a layer.
    pub(crate) fn kv_type(&self) -> KvType {
        self.layers.first().map_or(KvType::F16, |(layout, _)| layout.kv_type)
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn range(&self, layer: usize) -> std::ops::Range<usize> {
        let (layout, start) = &self.layers[layer];
        *start..start + layout.layer_bytes()
    }
}

/// The pages of one session.
#[derive(Debug)]
pub(crate) struct Pages {
    layout: Arc<PageLayout>,
    pages: Vec<Arc<Page>>,
}

impl Pages {
    pub(crate) fn new(layout: Arc<PageLayout>) -> Self {
        Self { layout, pages: Vec::new() }
    }

    pub(crate) fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// The same pages, which are copied where one of the two writes.
    pub(crate) fn fork(&self) -> Result<Self, Error> {
        let mut pages = memory::room(self.pages.len(), PURPOSE)?;
        pages.extend_from_slice(&self.pages);
        Ok(Self { layout: Arc::clone(&self.layout), pages })
    }

    /// Bytes of all pages, those that other sessions share too.
    pub(crate) fn nbytes(&self) -> usize {
        self.pages.len() * self.layout.page_bytes
    }

    /// Makes the slots of the tokens `first..end` writable: copies a shared page, allocates missing ones.
    pub(crate) fn reserve(&mut self, first: usize, end: usize) -> Result<(), Error> {
        let pages = end.div_ceil(PAGE_TOKENS);
        for index in first / PAGE_TOKENS..pages.min(self.pages.len()) {
            if Arc::get_mut(&mut self.pages[index]).is_none() {
                self.pages[index] = Arc::new(Page::copy_of(&self.pages[index], &self.layout.spare)?);
            }
        }
        let missing = pages.saturating_sub(self.pages.len());
        memory::reserve(&mut self.pages, missing, PURPOSE)?;
        while self.pages.len() < pages {
            self.pages.push(Arc::new(Page::zeroed(self.layout.page_bytes, &self.layout.spare)?));
        }
        Ok(())
    }

    /// A copy of page `index` of a conversation of `tokens` tokens. Places behind the last token are zeros, whatever was
    /// there before: neither forgotten tokens nor chance shall leave the process.
    pub(crate) fn copy_page(&self, index: usize, tokens: usize) -> Result<AlignedBytes, Error> {
        let pages = tokens.div_ceil(PAGE_TOKENS);
        let Some(page) = self.pages[..pages].get(index) else {
            return Err(Error::Argument(format!("there is no page {index} in {pages} pages of keys and values")));
        };
        let mut copy = AlignedBytes::mapped(self.layout.page_bytes, PURPOSE)?;
        copy.copy_from_slice(page);
        let filled = (tokens - index * PAGE_TOKENS).min(PAGE_TOKENS);
        for (layer, (layout, _)) in self.layout.layers.iter().enumerate() {
            let zeros = |size: usize| zeroed(Some((PAGE_TOKENS - filled) * layout.kv_heads * size), PURPOSE);
            let (keys, values) = (zeros(layout.key_size)?, zeros(layout.stored_value_size())?);
            layout.write(Isa::SCALAR, &mut copy[self.layout.range(layer)], filled, &keys, &values)?;
        }
        Ok(copy)
    }

    /// Adds a page that `copy_page` made.
    pub(crate) fn push_page(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() != self.layout.page_bytes {
            return Err(Error::Argument(format!(
                "a page of {} bytes of keys and values; expected {}",
                bytes.len(),
                self.layout.page_bytes
            )));
        }
        let page = Page::copy_of(bytes, &self.layout.spare)?;
        memory::reserve(&mut self.pages, 1, PURPOSE)?;
        self.pages.push(Arc::new(page));
        Ok(())
    }

    /// Number of pages.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Drops the pages behind the first `tokens` tokens.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.pages.truncate(tokens.div_ceil(PAGE_TOKENS));
    }

    /// Writes the keys (`n × kv_heads × key_size`) and values (`n × kv_heads × value_size`) of the tokens from
    /// position `first` on; `reserve` has made room for them.
    pub(crate) fn write(
        &mut self,
        context: &Context,
        layer: usize,
        first: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), Error> {
        let layout = self.layout.layers[layer].0;
        let range = self.layout.range(layer);
        let (key_row, value_row) = (layout.kv_heads * layout.key_size, layout.kv_heads * layout.stored_value_size());
        let tokens = keys.len() / key_row;
        let first_page = first / PAGE_TOKENS;
        let last_page = (first + tokens).div_ceil(PAGE_TOKENS);
        let mut pieces = memory::room(last_page - first_page, PURPOSE)?;
        for page in &mut self.pages[first_page..last_page] {
            let bytes =
                Arc::get_mut(page).ok_or_else(|| Error::Busy("a page is shared while it is written".to_owned()))?;
            pieces.push(Mutex::new((&mut bytes[range.clone()], Ok(()))));
        }
        context.for_each(pieces.len(), &|piece| {
            let mut guard = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner);
            let (bytes, outcome) = &mut *guard;
            let start = ((first_page + piece) * PAGE_TOKENS).max(first);
            let end = ((first_page + piece + 1) * PAGE_TOKENS).min(first + tokens);
            let keys = &keys[(start - first) * key_row..(end - first) * key_row];
            let values = &values[(start - first) * value_row..(end - first) * value_row];
            *outcome = layout.write(context.isa, bytes, start % PAGE_TOKENS, keys, values);
        })?;
        for piece in pieces {
            piece.into_inner().unwrap_or_else(PoisonError::into_inner).1?;
        }
        Ok(())
    }

    /// One layer's part of every page that holds one of the first `tokens` tokens, in order.
    pub(crate) fn layer_slices(&self, layer: usize, tokens: usize) -> Result<Vec<&[u8]>, Error> {
        let range = self.layout.range(layer);
        let pages = &self.pages[..tokens.div_ceil(PAGE_TOKENS)];
        let mut slices = memory::room(pages.len(), PURPOSE)?;
        slices.extend(pages.iter().map(|page| &page[range.clone()]));
        Ok(slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use llamacpu_kernels::threads::Pool;

    fn pages(kv_type: KvType, tokens: usize) -> Pages {
        let pool = Pool::new(1).unwrap();
        let context = Context::new(Isa::SCALAR, &pool);
        let mut pages = Pages::new(Arc::new(PageLayout::new(&config(), kv_type, &Arc::default()).unwrap()));
        pages.reserve(0, tokens).unwrap();
        for (layer, &heads) in config().kv_heads.iter().enumerate() {
            let numbers = |size: usize, factor: f32| -> Vec<f32> {
                (0..tokens * heads * size).map(|index| (index % 251) as f32 * factor - 1.0).collect()
            };
            let (keys, values) = (numbers(config().key_size, 0.25), numbers(config().value_size, -0.5));
            pages.write(&context, layer, 0, &keys, &values).unwrap();
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
            restored.push_page(&short.copy_page(0, 70).unwrap()).unwrap();
            assert_eq!(*restored.copy_page(0, 64).unwrap(), *short.copy_page(0, 64).unwrap());
            assert!(restored.push_page(&[0; 8]).is_err());
        }
    }
}
