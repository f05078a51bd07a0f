//! The sizes and switches of one layer.

use super::{Config, QueryKeyNorm, Rotation};

/// What the forward pass needs to know of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerConfig {
    /// Query heads; 0: no attention.
    pub(crate) heads: usize,
    /// Key and value heads; 0: a matrix in the place of attention.
    pub(crate) kv_heads: usize,
    /// Elements of one query or key head.
    pub(crate) key_size: usize,
    /// Elements of one value head.
    pub(crate) value_size: usize,
    /// Size of the latent vector of keys and values; 0 for none.
    pub(crate) latent_size: usize,
    /// Width of the feed-forward network; 0: none.
    pub(crate) feed_forward: usize,
    /// How queries and keys are normalized.
    pub(crate) query_key_norm: QueryKeyNorm,
    /// By which rotation they are turned.
    pub(crate) rotation: Rotation,
    /// What a token sees.
    pub(crate) sight: Sight,
    /// How much the scores grow with the position.
    pub(crate) temperature: f64,
}

/// Which of the tokens before it a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All.
    Everything,
    /// The last ones, this many with itself; where tokens look ahead, half as many on each side.
    Window(usize),
    /// Those of its chunk, whose size this is.
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
}

impl LayerConfig {
    /// Elements of all queries of a token.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.key_size
    }

    /// Elements of all keys of a token.
    pub(crate) fn key_width(&self) -> usize {
        self.kv_heads * self.key_size
    }

    /// Elements of all values of a token.
    pub(crate) fn value_width(&self) -> usize {
        self.kv_heads * self.value_size
    }

    /// Elements of what attention gives for a token.
    pub(crate) fn attended_width(&self) -> usize {
        self.heads * self.value_size
    }
}

impl Config {
    /// Rows of the embedding.
    pub(crate) fn embedding_rows(&self) -> usize {
        self.vocab_size + self.extra_embeddings
    }

    /// The most tokens that have a place, whatever the context of a session.
    pub(crate) fn most_tokens(&self) -> usize {
        if self.learned_positions || self.relative_positions > 0 { self.context_length } else { usize::MAX }
    }

    /// Rows of the table of distances in each direction.
    pub(crate) fn relative_span(&self) -> usize {
        if self.relative_buckets > 0 { self.relative_buckets } else { self.relative_positions }
    }

    /// Factor of the attention scores.
    pub(crate) fn score_scale(&self) -> f32 {
        if self.attention_scale > 0.0 { self.attention_scale } else { 1.0 / (self.key_size as f32).sqrt() }
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
            key_size: self.key_size,
            value_size: self.value_size,
            latent_size: self.latent_size,
            feed_forward: self.feed_forward[index],
            query_key_norm: self.query_key_norm.get(index).copied().unwrap_or(QueryKeyNorm::None),
            rotation: self.rotation.get(index).copied().unwrap_or(Rotation::Global),
            sight,
            temperature: self.temperature.get(index).copied().unwrap_or(0.0),
        }
    }

    /// Width of one expert of a layer.
    pub(crate) fn expert_width(&self, index: usize) -> usize {
        if self.expert_feed_forward > 0 { self.expert_feed_forward } else { self.feed_forward[index] }
    }

    /// The widest query or attention, key, value and feed-forward rows of any layer, in this order.
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
