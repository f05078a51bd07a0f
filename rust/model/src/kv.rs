//! Keys and values of a conversation, in pages of `PAGE_TOKENS` tokens × all layers. Pages are counted by reference:
//! a fork shares them, and whoever writes into a shared page gets an own copy first.

use std::sync::{Arc, Mutex, PoisonError};

use llamacpu_kernels::attention::{KvLayout, KvType, PAGE_TOKENS};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::mapping::AlignedBytes;

use crate::{Config, Error};

/// Where each layer's keys and values lie in a page.
#[derive(Debug)]
pub(crate) struct PageLayout {
    /// Per layer: its layout and its first byte in the page.
    layers: Vec<(KvLayout, usize)>,
    page_bytes: usize,
}

impl PageLayout {
    pub(crate) fn new(config: &Config, kv_type: KvType) -> Result<Self, Error> {
        let mut layers = Vec::with_capacity(config.layers);
        let mut page_bytes = 0usize;
        for &kv_heads in &config.kv_heads {
            let layout = KvLayout { kv_type, kv_heads, key_size: config.key_size, value_size: config.value_size };
            layers.push((layout, page_bytes));
            let next =
                layout.layer_bytes().checked_next_multiple_of(64).and_then(|bytes| page_bytes.checked_add(bytes));
            page_bytes = next.ok_or(Error::Memory { bytes: usize::MAX, purpose: "keys and values" })?;
        }
        Ok(Self { layers, page_bytes })
    }

    pub(crate) fn layer(&self, layer: usize) -> &KvLayout {
        &self.layers[layer].0
    }

    fn range(&self, layer: usize) -> std::ops::Range<usize> {
        let (layout, start) = &self.layers[layer];
        *start..start + layout.layer_bytes()
    }
}

/// The pages of one session.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    layout: Arc<PageLayout>,
    pages: Vec<Arc<AlignedBytes>>,
}

impl Pages {
    pub(crate) fn new(layout: Arc<PageLayout>) -> Self {
        Self { layout, pages: Vec::new() }
    }

    pub(crate) fn layout(&self) -> &PageLayout {
        &self.layout
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
                let mut copy = AlignedBytes::zeroed(self.layout.page_bytes)?;
                copy.copy_from_slice(&self.pages[index]);
                self.pages[index] = Arc::new(copy);
            }
        }
        while self.pages.len() < pages {
            self.pages.push(Arc::new(AlignedBytes::zeroed(self.layout.page_bytes)?));
        }
        Ok(())
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
        let (key_row, value_row) = (layout.kv_heads * layout.key_size, layout.kv_heads * layout.value_size);
        let tokens = keys.len() / key_row;
        let first_page = first / PAGE_TOKENS;
        let last_page = (first + tokens).div_ceil(PAGE_TOKENS);
        let mut pieces = Vec::with_capacity(last_page - first_page);
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
    pub(crate) fn layer_slices(&self, layer: usize, tokens: usize) -> Vec<&[u8]> {
        let range = self.layout.range(layer);
        self.pages[..tokens.div_ceil(PAGE_TOKENS)].iter().map(|page| &page[range.clone()]).collect()
    }
}
