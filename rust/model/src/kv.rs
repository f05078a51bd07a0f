//! Keys and values of a conversation, in pages of `PAGE_TOKENS` tokens × the layers that see the same tokens. Pages are
//! reference-counted: forks share them, and writing to a shared page copies it first. Pages that a windowed layer can
//! no longer see are dropped; if a session is rewound further than that, they are recomputed.

mod copies;
mod crossing;
mod layout;
mod state_layout;
mod states;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use llamacpu_kernels::attention::PAGE_TOKENS;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::memory;

pub(crate) use layout::{Kept, PageLayout};
pub(crate) use state_layout::input_numbers;
pub(crate) use states::{LayerInputs, LayerState};

use crate::Error;
use crate::page::{PURPOSE, Page};
use crossing::CrossedPictures;
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

    /// Whether the state after `tokens` tokens is present, or none is needed.
    pub(crate) fn has_state(&self, tokens: usize) -> bool {
        tokens == 0 || self.layout.state_bytes() == 0 || self.states.position() == tokens
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
        for (pages, group) in self.groups.iter_mut().zip(&self.layout.groups) {
            let count = group.pages(end);
            memory::reserve(pages, count.saturating_sub(pages.len()), PURPOSE)?;
            pages.resize(pages.len().max(count), None);
            for slot in &mut pages[(group.places(first) / PAGE_TOKENS).min(count)..count] {
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

    /// Number of pages, including absent ones; that of `tokens` tokens if no layer has keys and values.
    pub(crate) fn count(&self, tokens: usize) -> usize {
        self.groups.first().map_or(tokens.div_ceil(PAGE_TOKENS), Vec::len)
    }

    /// Drops the pages after the first `tokens` tokens, or all pages if any that these tokens need is absent.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        if self.crossing.as_mut().is_some_and(|crossing| !crossing.truncate(tokens)) {
            self.crossing = None;
        }
        for (pages, group) in self.groups.iter_mut().zip(&self.layout.groups) {
            pages.truncate(group.pages(tokens));
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

    /// Reads the numbers of a layer's tokens from position `first` on, one row after the other: exact ones, as of
    /// [`Kept::Source`].
    pub(crate) fn read(&self, kept: Kept, first: usize, rows: &mut [f32]) -> Result<(), Error> {
        let place = self.layout.place(kept)?;
        for (position, row) in (first..).zip(rows.chunks_exact_mut(place.layout.key_size)) {
            let page = self.groups[place.group].get(position / PAGE_TOKENS).and_then(Option::as_ref);
            let page = page.ok_or_else(|| Error::Argument(format!("the numbers of token {position} are missing")))?;
            place.layout.read_key(&page[place.range()], (0, position % PAGE_TOKENS), row)?;
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
    pub(crate) pictures: CrossedPictures,
}

impl Crossing {
    pub(crate) fn new(layout: PageLayout) -> Self {
        Self { pages: Pages::new(Arc::new(layout)), pictures: CrossedPictures::default() }
    }

    /// The same, with shared pages.
    fn fork(&self) -> Result<Self, Error> {
        Ok(Self { pages: self.pages.fork()?, pictures: self.pictures.clone() })
    }

    /// Forgets the pictures from position `tokens` on; returns whether any are left.
    pub(crate) fn truncate(&mut self, tokens: usize) -> bool {
        self.pictures.truncate(tokens);
        self.pages.truncate(self.pictures.states());
        !self.pictures.is_empty()
    }
}
