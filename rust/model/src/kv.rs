//! Keys and values of a conversation, in pages of `PAGE_TOKENS` tokens × the layers that see the same tokens. Pages are
//! reference-counted: forks share them, and writing to a shared page copies it first. Pages that a windowed layer can
//! no longer see are dropped; if a session is rewound further than that, they are recomputed.

mod layout;
mod states;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use llamacpu_kernels::attention::PAGE_TOKENS;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::AlignedBytes;
use llamacpu_kernels::memory;

pub(crate) use layout::{Kept, PageLayout};
pub(crate) use states::{LayerInputs, LayerState, input_numbers};

use crate::Error;
use crate::error::zeroed;
use crate::page::{PURPOSE, Page};
use states::States;

/// Version of the layout of keys and values in a page. Saved sessions carry pages out of the process, so a changed
/// layout must take the next number: old files are then refused rather than misread.
pub const PAGE_LAYOUT: u32 = 1;

/// The pages of one session.
#[derive(Debug)]
pub(crate) struct Pages {
    layout: Arc<PageLayout>,
    /// For each group of layers, a page per block of tokens; pages that are not needed are absent.
    groups: Vec<Vec<Option<Arc<Page>>>>,
    /// Of recurrent layers.
    states: States,
    /// Whether there are pages whose keys and values are still being recomputed.
    unfinished: bool,
    /// Keys and values of the pictures that cross-attention sees.
    pub(crate) crossing: Option<Box<Crossing>>,
}

impl Pages {
    pub(crate) fn new(layout: Arc<PageLayout>) -> Self {
        let groups = layout.groups.iter().map(|_| Vec::new()).collect();
        Self { layout, groups, states: States::default(), unfinished: false, crossing: None }
    }

    pub(crate) fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// The same pages, shared and copied on write.
    pub(crate) fn fork(&self) -> Result<Self, Error> {
        let mut groups = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let mut pages = memory::room(group.len(), PURPOSE)?;
            pages.extend_from_slice(group);
            groups.push(pages);
        }
        let crossing = self.crossing.as_ref().map(|crossing| crossing.fork().map(Box::new)).transpose()?;
        let (states, unfinished) = (self.states.fork(), self.unfinished);
        Ok(Self { layout: Arc::clone(&self.layout), groups, states, unfinished, crossing })
    }

    /// Size of all pages and states in bytes, including those shared with other sessions.
    pub(crate) fn nbytes(&self) -> usize {
        let bytes =
            |(pages, group): (&Vec<Option<_>>, &layout::Group)| pages.iter().flatten().count() * group.page_bytes;
        let crossing = self.crossing.as_ref().map_or(0, |crossing| crossing.pages.nbytes());
        let pages = self.groups.iter().zip(&self.layout.groups).map(bytes).sum::<usize>();
        pages + self.states.nbytes() + crossing
    }

    /// Whether everything is present that the next token of a session of `tokens` tokens needs.
    pub(crate) fn hold(&self, tokens: usize) -> bool {
        self.hold_pages(tokens) && (self.layout.state_bytes() == 0 || self.states.position() == tokens)
    }

    /// The same for keys and values alone.
    pub(crate) fn hold_pages(&self, tokens: usize) -> bool {
        let present = self.groups.iter().zip(&self.layout.groups).all(|(pages, group)| {
            let needed = pages.get(group.needed(tokens));
            needed.is_some_and(|pages| pages.iter().all(Option::is_some))
        });
        present && !self.unfinished
    }

    /// The largest position, up to `tokens`, from which the session can go on without running tokens through the model.
    pub(crate) fn resume_point(&self, tokens: usize) -> usize {
        let point = if self.layout.state_bytes() > 0 { self.states.nearest(tokens) } else { tokens };
        if self.hold_pages(point) { point } else { 0 }
    }

    /// Starts recomputing what the next token of a session of `tokens` tokens needs, after `truncate`: from the returned
    /// position on, which has a state and the pages that it needs, or else from the beginning. In the latter case, what is
    /// present does not count until `finish`.
    pub(crate) fn begin_again(&mut self, tokens: usize) -> usize {
        if self.hold_pages(tokens) {
            while self.states.position() > 0 && !self.hold_pages(self.states.position()) {
                self.states.truncate(self.states.position() - 1);
            }
            if self.states.position() > 0 {
                return self.states.position();
            }
        }
        self.begin_anew()
    }

    /// The same, from the beginning.
    pub(crate) fn begin_anew(&mut self) -> usize {
        self.clear();
        self.unfinished = true;
        0
    }

    fn clear(&mut self) {
        self.groups.iter_mut().for_each(Vec::clear);
        self.states.truncate(0);
    }

    /// Marks the recomputation as complete.
    pub(crate) fn finish(&mut self) {
        self.unfinished = false;
    }

    /// Makes the slots of tokens `first..end` writable, in a step that began at position `step`: copies shared pages and
    /// allocates missing ones, and the next state.
    pub(crate) fn reserve(&mut self, first: usize, end: usize, step: usize) -> Result<(), Error> {
        self.states.begin(&self.layout.states, (first, end), step)?;
        let count = end.div_ceil(PAGE_TOKENS);
        for (pages, group) in self.groups.iter_mut().zip(&self.layout.groups) {
            memory::reserve(pages, count.saturating_sub(pages.len()), PURPOSE)?;
            pages.resize(pages.len().max(count), None);
            for slot in &mut pages[first / PAGE_TOKENS..count] {
                let Some(page) = slot else {
                    *slot = Some(Arc::new(Page::zeroed(group.page_bytes, &self.layout.spare)?));
                    continue;
                };
                if Arc::get_mut(page).is_none() {
                    *page = Arc::new(Page::copy_of(page, &self.layout.spare)?);
                }
            }
        }
        Ok(())
    }

    /// Drops the pages that a session of `tokens` tokens does not keep, except those that a session of `also` tokens needs.
    pub(crate) fn release(&mut self, tokens: usize, also: Option<usize>) {
        for (pages, group) in self.groups.iter_mut().zip(&self.layout.groups) {
            let other = also.map_or(0..0, |also| group.needed(also));
            let end = group.kept(tokens).start.min(pages.len());
            for (index, slot) in pages[..end].iter_mut().enumerate() {
                if !other.contains(&index) {
                    *slot = None;
                }
            }
        }
    }

    /// A copy of page `index` of a conversation of `tokens` tokens, one group after the other. Whatever is no longer
    /// needed and all slots after the last token are filled with zeros, so that neither forgotten tokens nor leftover
    /// memory leave the process. Models with recurrent layers have one more: their state.
    pub(crate) fn copy_page(&self, index: usize, tokens: usize) -> Result<AlignedBytes, Error> {
        let pages = tokens.div_ceil(PAGE_TOKENS);
        let state = self.layout.state_bytes() > 0 && index == pages && tokens > 0;
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
        let filled = (tokens - index * PAGE_TOKENS).min(PAGE_TOKENS);
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

    /// Number of pages, including absent ones; that of `tokens` tokens if no layer has keys and values.
    pub(crate) fn count(&self, tokens: usize) -> usize {
        self.groups.first().map_or(tokens.div_ceil(PAGE_TOKENS), Vec::len)
    }

    /// Drops the pages after the first `tokens` tokens, or all pages if any that these tokens need is absent.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        let count = tokens.div_ceil(PAGE_TOKENS);
        if self.crossing.as_mut().is_some_and(|crossing| !crossing.truncate(tokens)) {
            self.crossing = None;
        }
        for pages in &mut self.groups {
            pages.truncate(count);
        }
        self.states.truncate(tokens);
        if !self.hold_pages(tokens) {
            self.clear();
            self.unfinished = false;
        }
    }

    /// Notes that the tokens that there was room for have gone through all layers.
    pub(crate) fn commit(&mut self) {
        self.states.commit();
    }

    /// What a recurrent layer reads and writes.
    pub(crate) fn state(&mut self, layer: usize) -> Result<LayerState<'_>, Error> {
        self.states.layer(&self.layout.states, layer)
    }

    /// The inputs of recurrent layers since the last state; see `States::logged`.
    pub(crate) fn logged(&self, tokens: usize) -> Result<Option<LayerInputs>, Error> {
        if self.hold_pages(tokens) { self.states.logged(&self.layout.states, tokens) } else { Ok(None) }
    }

    /// Begins to run these through the recurrence again.
    pub(crate) fn begin_replay(&mut self, tokens: usize) -> Result<(), Error> {
        self.states.begin_replay(&self.layout.states, tokens)
    }

    /// Ends that.
    pub(crate) fn commit_replay(&mut self) {
        self.states.commit_replay();
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

    /// Whether the state after `tokens` tokens is present, or none is needed.
    pub(crate) fn has_state(&self, tokens: usize) -> bool {
        tokens == 0 || self.layout.state_bytes() == 0 || self.states.position() == tokens
    }

    /// Writes the keys (`n × kv_heads × key_size`) and values (`n × kv_heads × value_size`) of the tokens from position
    /// `first` on; `reserve` must have made room for them.
    pub(crate) fn write(
        &mut self,
        context: &Context,
        kept: Kept,
        first: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), Error> {
        let place = *self.layout.place(kept)?;
        let layout = place.layout;
        let (key_row, value_row) = (layout.kv_heads * layout.key_size, layout.kv_heads * layout.stored_value_size());
        let tokens = keys.len() / key_row;
        let first_page = first / PAGE_TOKENS;
        let last_page = (first + tokens).div_ceil(PAGE_TOKENS);
        let mut pieces = memory::room(last_page - first_page, PURPOSE)?;
        for page in &mut self.groups[place.group][first_page..last_page] {
            let bytes = page.as_mut().and_then(Arc::get_mut);
            let bytes = bytes.ok_or_else(|| Error::Busy("a page is shared while it is written".to_owned()))?;
            pieces.push(Mutex::new((&mut bytes[place.range()], Ok(()))));
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

    /// One layer's part of every page that holds any of the first `tokens` tokens, in order; empty for absent pages.
    pub(crate) fn layer_slices(&self, kept: Kept, tokens: usize) -> Result<Vec<&[u8]>, Error> {
        let place = self.layout.place(kept)?;
        let range: Range<usize> = place.range();
        let pages = &self.groups[place.group][..tokens.div_ceil(PAGE_TOKENS)];
        let mut slices = memory::room(pages.len(), PURPOSE)?;
        slices.extend(pages.iter().map(|page| page.as_ref().map_or(&[][..], |page| &page[range.clone()])));
        Ok(slices)
    }
}

/// The pictures of a session that cross-attention sees.
#[derive(Debug)]
pub(crate) struct Crossing {
    /// Keys and values of all states, one picture after the other.
    pub(crate) pages: Pages,
    pictures: Vec<Crossed>,
}

/// The states of one picture.
#[derive(Debug, Clone)]
struct Crossed {
    /// Position of the placeholder.
    position: usize,
    states: Range<usize>,
}

impl Crossing {
    pub(crate) fn new(layout: PageLayout) -> Self {
        Self { pages: Pages::new(Arc::new(layout)), pictures: Vec::new() }
    }

    /// Adds a picture with its placeholder at `position`, whose keys and values have been written.
    pub(crate) fn record(&mut self, position: usize, states: usize) {
        let first = self.states();
        self.pictures.push(Crossed { position, states: first..first + states });
    }

    /// The same, with shared pages.
    fn fork(&self) -> Result<Self, Error> {
        Ok(Self { pages: self.pages.fork()?, pictures: self.pictures.clone() })
    }

    /// Forgets the pictures from position `tokens` on; returns whether any are left.
    pub(crate) fn truncate(&mut self, tokens: usize) -> bool {
        self.pictures.retain(|picture| picture.position < tokens);
        self.pages.truncate(self.states());
        !self.pictures.is_empty()
    }

    /// Number of states of all pictures.
    pub(crate) fn states(&self) -> usize {
        self.pictures.last().map_or(0, |picture| picture.states.end)
    }

    /// The states that the token at a position sees: those of the last picture before it, and of others whose placeholders
    /// stand directly before that of the last one.
    pub(crate) fn seen_from(&self, position: usize) -> Option<Range<usize>> {
        let mut before = self.pictures.iter().rev().skip_while(|picture| picture.position > position);
        let last = before.next()?;
        let (mut start, mut next) = (last.states.start, last.position);
        for picture in before.take_while(|picture| {
            let adjacent = picture.position + 1 == next;
            next = picture.position;
            adjacent
        }) {
            start = picture.states.start;
        }
        Some(start..last.states.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use llamacpu_kernels::attention::KvType;
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
