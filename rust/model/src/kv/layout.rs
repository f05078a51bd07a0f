//! Layout of keys and values in pages. Layers that see the same tokens share pages, so that the pages of windowed
//! layers can be dropped while the others stay.

use std::ops::Range;
use std::sync::Arc;

use llamacpu_kernels::attention::{KvLayout, KvType, PAGE_TOKENS};

use super::state_layout::StateLayout;
use crate::config::{LayerConfig, Sight};
use crate::page::{PURPOSE, Spare};
use crate::{Config, Error};

/// Number of tokens by which a session can always be rewound without recomputing anything.
pub(crate) const REWOUND_TOKENS: usize = 128;

/// The location of each layer's keys and values in a page.
#[derive(Debug)]
pub(crate) struct PageLayout {
    /// `None` for layers without keys and values; the same place for layers that share them.
    layers: Vec<Option<LayerLayout>>,
    /// The keys of layers that choose keys, in the same pages, or in those of their compressed entries.
    indexers: Vec<Option<LayerLayout>>,
    /// What the compressed entries of a layer are made from.
    sources: Vec<Option<LayerLayout>>,
    /// Compressed entries.
    entries: Vec<Option<LayerLayout>>,
    pub(super) groups: Vec<Group>,
    /// How keys and values are stored; those of indexers are exact.
    pub(super) kv_type: KvType,
    pub(super) spare: Arc<Spare>,
    /// Where states of recurrent layers are.
    pub(super) states: StateLayout,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LayerLayout {
    pub(super) layout: KvLayout,
    /// The layer's group, and the offset of its first byte in a page of that group.
    pub(super) group: usize,
    start: usize,
}

/// What a layer stores for each token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept {
    /// The keys and values of a layer.
    Layer(usize),
    /// The keys by which a layer chooses those that it sees.
    Indexer(usize),
    /// Numbers of the last tokens, which compressed entries are made from.
    Source(usize),
    /// The compressed entries of a layer, counted in place of tokens.
    Entry(usize),
}

/// Layers that see the same tokens.
#[derive(Debug)]
pub(super) struct Group {
    sight: Sight,
    /// Tokens per place in a page: 1, except for compressed entries.
    per_place: usize,
    pub(super) page_bytes: usize,
}

impl PageLayout {
    /// Lays out the pages of a model; dropped pages may wait in `spare` for reuse.
    pub(crate) fn new(config: &Config, kv_type: KvType, spare: &Arc<Spare>) -> Result<Self, Error> {
        let mut layers: Vec<Option<LayerLayout>> = Vec::with_capacity(config.layers);
        let mut indexers = Vec::with_capacity(config.layers);
        let mut sources = Vec::with_capacity(config.layers);
        let mut entries = Vec::with_capacity(config.layers);
        let mut groups: Vec<Group> = Vec::new();
        for index in 0..config.layers {
            let sizes = config.layer(index);
            let LayerConfig { kv_heads, key_size, value_size, latent_size, sight, kv_source, .. } = sizes;
            indexers.push(None);
            sources.push(None);
            entries.push(None);
            if kv_heads == 0 {
                layers.push(None);
                continue;
            }
            if let Some(source) = layers.get(kv_source).copied() {
                layers.push(source);
                continue;
            }
            let layout = match latent_size {
                0 => KvLayout { kv_type, kv_heads, key_size, value_size, latent: config.shared_rows },
                value_size => {
                    KvLayout { kv_type, kv_heads, key_size: value_size + config.rope.size, value_size, latent: true }
                }
            };
            layers.push(Some(add(&mut groups, (sight, 1), layout)?));
            // Rounded keys would have other scores, and other keys would be chosen.
            let exact =
                |size| KvLayout { kv_type: KvType::F32, kv_heads: 1, key_size: size, value_size: size, latent: true };
            let entry = (Sight::Everything, sizes.compression);
            if sizes.compression > 0 {
                let width = config.compressed_widths(&sizes).iter().sum();
                let seen = Sight::Window(sizes.compressed_tokens());
                sources[index] = Some(add(&mut groups, (seen, 1), exact(width))?);
                entries[index] = Some(add(&mut groups, entry, layout)?);
            }
            if sizes.indexer {
                let place = if sizes.compression > 0 { entry } else { (sight, 1) };
                indexers[index] = Some(add(&mut groups, place, exact(config.indexer_size))?);
            }
        }
        let all = groups.iter().try_fold(0usize, |sum, group| sum.checked_add(group.page_bytes));
        all.ok_or(Error::Memory { bytes: usize::MAX, purpose: PURPOSE })?;
        let states = StateLayout::new(config)?;
        Ok(Self { layers, indexers, sources, entries, groups, kv_type, spare: Arc::clone(spare), states })
    }

    /// The layout of what a layer stores.
    pub(crate) fn layout(&self, kept: Kept) -> Result<&KvLayout, Error> {
        Ok(&self.place(kept)?.layout)
    }

    pub(super) fn place(&self, kept: Kept) -> Result<&LayerLayout, Error> {
        let (places, layer) = match kept {
            Kept::Layer(layer) => (&self.layers, layer),
            Kept::Indexer(layer) => (&self.indexers, layer),
            Kept::Source(layer) => (&self.sources, layer),
            Kept::Entry(layer) => (&self.entries, layer),
        };
        let place = places.get(layer).and_then(Option::as_ref);
        place.ok_or_else(|| Error::Argument(format!("layer {layer} keeps no keys and values")))
    }

    /// The layers of a group.
    pub(super) fn layers_of(&self, group: usize) -> impl Iterator<Item = &LayerLayout> {
        let layers = self.layers.iter().chain(&self.indexers).chain(&self.sources).chain(&self.entries);
        layers.flatten().filter(move |layer| layer.group == group)
    }

    /// How keys and values are stored.
    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Where dropped pages wait for reuse.
    pub(crate) fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// Size in bytes of the pages for the same tokens across all layers.
    pub(crate) fn page_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.page_bytes).sum()
    }

    /// Size in bytes of the keys and values of a session of `tokens` tokens, with the most that its states may take.
    pub(crate) fn bytes_for(&self, tokens: usize) -> usize {
        let bytes = |group: &Group| group.kept(tokens).len().saturating_mul(group.page_bytes);
        self.groups.iter().map(bytes).fold(self.states.bytes_for(tokens), usize::saturating_add)
    }

    /// Size in bytes of the states of all recurrent layers after a token; 0 if there are none.
    pub(crate) fn state_bytes(&self) -> usize {
        self.states.nbytes()
    }
}

/// Makes room in the pages of a group, which is added if there is none for these tokens yet.
fn add(groups: &mut Vec<Group>, (sight, per_place): (Sight, usize), layout: KvLayout) -> Result<LayerLayout, Error> {
    let same = |group: &Group| group.sight == sight && group.per_place == per_place;
    let group = groups.iter().position(same).unwrap_or(groups.len());
    if group == groups.len() {
        groups.push(Group { sight, per_place, page_bytes: 0 });
    }
    groups[group].add(layout, group)
}

impl LayerLayout {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.layout.layer_bytes()
    }
}

impl Group {
    /// Makes room in a page.
    fn add(&mut self, layout: KvLayout, group: usize) -> Result<LayerLayout, Error> {
        let start = self.page_bytes;
        let next = layout.layer_bytes().checked_next_multiple_of(64).and_then(|bytes| start.checked_add(bytes));
        self.page_bytes = next.ok_or(Error::Memory { bytes: usize::MAX, purpose: PURPOSE })?;
        Ok(LayerLayout { layout, group, start })
    }

    /// The pages that the next token of a session of `tokens` tokens needs.
    pub(super) fn needed(&self, tokens: usize) -> Range<usize> {
        let end = self.pages(tokens);
        (self.sight.first(tokens) / PAGE_TOKENS).min(end)..end
    }

    /// The places that such a session fills.
    pub(super) fn places(&self, tokens: usize) -> usize {
        tokens / self.per_place
    }

    /// The pages that hold them.
    pub(super) fn pages(&self, tokens: usize) -> usize {
        self.places(tokens).div_ceil(PAGE_TOKENS)
    }

    /// The pages that such a session keeps, which includes those needed after rewinding by a few tokens.
    pub(super) fn kept(&self, tokens: usize) -> Range<usize> {
        let first = self.needed(tokens.saturating_sub(REWOUND_TOKENS)).start;
        first..self.pages(tokens)
    }
}
