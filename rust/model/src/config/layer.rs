//! The sizes and switches of one layer.

use std::ops::Range;

use llamacpu_kernels::recurrent::DeltaNet;

use super::{Config, HeadOrder, QueryKeyNorm, Rotation};

/// What the forward pass needs to know about a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerConfig {
    /// Query heads; 0 for no attention.
    pub(crate) heads: usize,
    /// Key and value heads; 0 if a matrix takes the place of attention.
    pub(crate) kv_heads: usize,
    /// Elements of one query or key head.
    pub(crate) key_size: usize,
    /// Elements of one value head.
    pub(crate) value_size: usize,
    /// The layer whose keys and values it reads: itself, or an earlier one.
    pub(crate) kv_source: usize,
    /// How many of the last rows a row sees, itself included, in models that take rows; 0 for all.
    pub(crate) row_window: usize,
    /// The layer of another model whose keys and values it reads instead.
    pub(crate) lent: Option<usize>,
    /// Whether the projected keys are the values, too.
    pub(crate) keys_as_values: bool,
    /// Size of the latent vector of keys and values; 0 for none.
    pub(crate) latent_size: usize,
    /// Tokens per compressed entry; 0 for none.
    pub(crate) compression: usize,
    /// Whether it chooses the keys that its tokens see.
    pub(crate) indexer: bool,
    /// Width of the feed-forward network; 0 for none.
    pub(crate) feed_forward: usize,
    /// How queries and keys are normalized.
    pub(crate) query_key_norm: QueryKeyNorm,
    /// Which rotation is applied to them.
    pub(crate) rotation: Rotation,
    /// What a token sees.
    pub(crate) sight: Sight,
    /// How much the scores grow with the position.
    pub(crate) temperature: f64,
    /// The gated delta network in place of attention.
    pub(crate) delta_net: Option<DeltaNet>,
}

/// Which of the tokens before it a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All.
    Everything,
    /// This many of the last tokens, itself included; where tokens look ahead, half as many on each side.
    Window(usize),
    /// Those of its chunk, which has this size.
    Chunk(usize),
}

impl Sight {
    /// The first position that the token at `position` sees.
    pub(crate) fn first(self, position: usize) -> usize {
        match self {
            Self::Everything => 0,
            Self::Window(tokens) => (position + 1).saturating_sub(tokens),
            Self::Chunk(tokens) => position / tokens * tokens,
        }
    }

    /// The positions that a query behind `tokens` tokens sees of them, if another model lends them. A window counts from the
    /// last of them, which is seen besides its own size.
    pub(crate) fn behind(self, tokens: usize) -> Range<usize> {
        match self {
            Self::Everything | Self::Chunk(_) => 0..tokens,
            Self::Window(size) => tokens.saturating_sub(size.saturating_add(1))..tokens,
        }
    }
}

impl LayerConfig {
    /// Total elements of a token's queries.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.key_size
    }

    /// Total elements of a token's keys.
    pub(crate) fn key_width(&self) -> usize {
        self.kv_heads * self.key_size
    }

    /// Total elements of a token's values.
    pub(crate) fn value_width(&self) -> usize {
        self.kv_heads * self.value_size
    }

    /// Tokens that a compressed entry is made of: those that it stands for, and as many before them if entries overlap.
    pub(crate) fn compressed_tokens(&self) -> usize {
        if self.indexer { 2 * self.compression } else { self.compression }
    }

    /// Elements of the attention output for a token.
    pub(crate) fn attended_width(&self) -> usize {
        self.heads * self.value_size
    }
}

impl Config {
    /// Rows of the embedding.
    pub(crate) fn embedding_rows(&self) -> usize {
        self.vocab_size + self.extra_embeddings
    }

    /// Elements of a row of a picture.
    pub fn picture_row_length(&self) -> usize {
        self.embedding_length * (1 + self.picture_layers)
    }

    /// The maximum number of tokens that the model can place, whatever the context of a session.
    pub(crate) fn most_tokens(&self) -> usize {
        if self.learned_positions || self.relative_positions > 0 { self.context_length } else { usize::MAX }
    }

    /// Rows of the distance table in each direction.
    pub(crate) fn relative_span(&self) -> usize {
        if self.relative_buckets > 0 { self.relative_buckets } else { self.relative_positions }
    }

    /// Scale of the attention scores in a layer.
    pub(crate) fn score_scale(&self, layer: &LayerConfig) -> f32 {
        if self.attention_scale > 0.0 { self.attention_scale } else { 1.0 / (layer.key_size as f32).sqrt() }
    }

    /// Elements that a layer rotates in each head.
    pub(crate) fn rotated(&self, layer: &LayerConfig) -> usize {
        match layer.rotation {
            Rotation::None => 0,
            Rotation::Local if self.rope.local_size > 0 => self.rope.local_size,
            Rotation::Global | Rotation::Local => self.rope.size,
        }
    }

    /// The sizes and switches of a layer.
    pub(crate) fn layer(&self, index: usize) -> LayerConfig {
        let entry = |values: &[usize]| values.get(index).copied().unwrap_or(0);
        let sight = match (entry(&self.window), entry(&self.chunk)) {
            (0, 0) => Sight::Everything,
            (0, chunk) => Sight::Chunk(chunk),
            (window, _) => Sight::Window(window),
        };
        LayerConfig {
            heads: self.heads[index],
            kv_heads: self.kv_heads[index],
            key_size: self.key_sizes.get(index).copied().unwrap_or(self.key_size),
            value_size: self.value_sizes.get(index).copied().unwrap_or(self.value_size),
            kv_source: self.kv_source.get(index).copied().unwrap_or(index),
            row_window: entry(&self.row_window),
            lent: self.lent_layers.get(index).copied(),
            keys_as_values: self.keys_as_values.get(index).copied().unwrap_or(false),
            latent_size: self.latent_size,
            compression: entry(&self.compression),
            indexer: self.indexer.get(index).copied().unwrap_or(false),
            feed_forward: self.feed_forward[index],
            query_key_norm: self.query_key_norm.get(index).copied().unwrap_or(QueryKeyNorm::None),
            rotation: self.rotation.get(index).copied().unwrap_or(Rotation::Global),
            sight,
            temperature: self.temperature.get(index).copied().unwrap_or(0.0),
            delta_net: self.delta_net(entry(&self.recurrent_heads)),
        }
    }

    /// The sizes of the layers that attend to pictures, for the layout of their keys and values.
    pub(crate) fn crossed(&self) -> Self {
        let layers = self.cross_layers.len();
        let key_size = self.key_size;
        Self {
            layers,
            heads: vec![self.cross_heads; layers],
            kv_heads: vec![self.cross_kv_heads; layers],
            feed_forward: vec![self.cross_feed_forward; layers],
            key_size,
            value_size: key_size,
            ..Self::default()
        }
    }

    /// A gated delta network with this many value heads.
    fn delta_net(&self, value_heads: usize) -> Option<DeltaNet> {
        (value_heads > 0).then_some(DeltaNet {
            key_heads: self.recurrent_key_heads,
            value_heads,
            key_size: self.recurrent_key_size,
            value_size: self.recurrent_value_size,
            taps: self.convolution_size,
            grouped: self.recurrent_head_order == HeadOrder::Grouped,
        })
    }

    /// Numbers per token that the compressed entries of a layer are made from: keys and gates of each series, and those of
    /// the entries by which it chooses.
    pub(crate) fn compressed_widths(&self, layer: &LayerConfig) -> [usize; 4] {
        let series = if layer.indexer { 2 } else { 1 };
        let chosen = if layer.indexer { self.indexer_size } else { 0 };
        [series * layer.key_size, series * layer.key_size, series * chosen, series * chosen]
    }

    /// Width of all residual streams together.
    pub(crate) fn stream_width(&self) -> usize {
        self.embedding_length * self.streams.max(1)
    }

    /// Whether a session has states besides keys and values.
    pub(crate) fn is_recurrent(&self) -> bool {
        self.recurrent_heads.iter().any(|&heads| heads > 0)
    }

    /// The most numbers that a recurrent layer computes for a token.
    pub(crate) fn recurrent_width(&self) -> usize {
        let width = |net: DeltaNet| net.channels() + 2 * net.value_width() + 4 * net.value_heads + net.scratch();
        (0..self.layers).filter_map(|index| self.layer(index).delta_net).map(width).max().unwrap_or(0)
    }

    /// Width of one expert in a layer.
    pub(crate) fn expert_width(&self, index: usize) -> usize {
        if self.expert_feed_forward > 0 { self.expert_feed_forward } else { self.feed_forward[index] }
    }

    /// The maximum widths of query or attention, key, value and feed-forward rows over all layers, in this order.
    pub(crate) fn widths(&self) -> [usize; 4] {
        let most = |width: fn(&LayerConfig) -> usize| {
            (0..self.layers).map(|index| width(&self.layer(index))).max().unwrap_or(0)
        };
        let inner = most(|layer| layer.feed_forward);
        [
            most(|layer| layer.query_width().max(layer.attended_width())),
            most(LayerConfig::key_width),
            most(LayerConfig::value_width),
            inner.max(self.expert_feed_forward).max(self.shared_feed_forward),
        ]
    }
}
