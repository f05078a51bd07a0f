//! Which matrices have an adapter, and where its parameters are.

use std::ops::Range;

use super::shape::TrainerShape;
use crate::weights::{Attention, FeedForward, Layer, Linear};
use crate::{Error, Model};

/// A matrix: its name, rows and columns.
pub type Trainable = (String, usize, usize);

/// The linear maps of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Part {
    pub(crate) const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    fn name(self) -> &'static str {
        match self {
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::Output => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    /// Whether it belongs to attention.
    pub(crate) fn of_attention(self) -> bool {
        matches!(self, Self::Query | Self::Key | Self::Value | Self::Output)
    }

    /// The map of a layer, if it has one.
    pub(crate) fn of(self, layer: &Layer) -> Option<&Linear> {
        let heads = match &layer.attention {
            Some(Attention::Heads(heads)) => Some(heads),
            _ => None,
        };
        let network = match &layer.feed_forward {
            Some(FeedForward::Dense(network)) => Some(network),
            _ => None,
        };
        match self {
            Self::Query => heads.map(|heads| &heads.query),
            Self::Key => heads.and_then(|heads| heads.key.as_ref()),
            Self::Value => heads.and_then(|heads| heads.value.as_ref()),
            Self::Output => heads.map(|heads| &heads.output),
            Self::Gate => network.and_then(|network| network.gate.as_ref()),
            Self::Up => network.map(|network| &network.up),
            Self::Down => network.map(|network| &network.down),
        }
    }
}

/// Where a matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    Layer(usize, Part),
    Embedding,
    Output,
}

impl Spot {
    fn name(self) -> String {
        match self {
            Self::Layer(layer, part) => format!("blk.{layer}.{}", part.name()),
            Self::Embedding => "token_embd".to_owned(),
            Self::Output => "output".to_owned(),
        }
    }
}

/// The adapter of one matrix.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    spot: Spot,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Index of its first parameter: A (rank × columns), then B (rows × rank).
    start: usize,
}

/// All adapters.
pub(crate) struct Adapters {
    pub(crate) rank: usize,
    /// Factor of the adapters' products.
    pub(crate) scale: f32,
    targets: Vec<Target>,
    /// For every layer and part, the index of its adapter.
    places: Vec<[Option<usize>; Part::ALL.len()]>,
    /// The indices of the adapters of the embeddings and of the output matrix.
    embedding: Option<usize>,
    output: Option<usize>,
    /// Number of parameters.
    pub(crate) len: usize,
}

/// All matrices that can have an adapter.
pub(super) fn listed(model: &Model) -> Vec<Trainable> {
    all(model).into_iter().map(|(spot, rows, columns)| (spot.name(), rows, columns)).collect()
}

fn all(model: &Model) -> Vec<(Spot, usize, usize)> {
    let (_, config, weights) = model.parts(None);
    let mut found = Vec::new();
    for (index, layer) in weights.layers.iter().enumerate() {
        let parts = Part::ALL.into_iter().filter_map(|part| part.of(layer).map(|linear| (part, linear)));
        found.extend(parts.map(|(part, linear)| (Spot::Layer(index, part), linear.rows(), linear.matrix.columns())));
    }
    // The gradient of a norm between the embeddings and the first layer is not implemented.
    if let (None, Some(tokens)) = (&weights.embedding.norm, &weights.embedding.tokens) {
        found.push((Spot::Embedding, config.embedding_length, tokens.rows()));
    }
    if let Some(output) = &weights.output {
        found.push((Spot::Output, output.matrix.rows(), output.matrix.columns()));
    }
    found
}

/// Bytes of that many parameters with their gradients and moments.
pub(super) fn nbytes(parameters: usize) -> usize {
    parameters.saturating_mul(4 * size_of::<f32>())
}

impl Adapters {
    /// The adapters of the named matrices, in the order of the model.
    pub(crate) fn new(model: &Model, shape: &TrainerShape, alpha: f32) -> Result<Self, Error> {
        let mut places = vec![[None; Part::ALL.len()]; model.config().layers];
        let (mut embedding, mut output) = (None, None);
        let (mut targets, mut len) = (Vec::new(), 0_usize);
        for (spot, rows, columns) in all(model) {
            if !shape.targets.contains(&spot.name()) {
                continue;
            }
            let place = match spot {
                Spot::Layer(layer, part) => &mut places[layer][part as usize],
                Spot::Embedding => &mut embedding,
                Spot::Output => &mut output,
            };
            *place = Some(targets.len());
            targets.push(Target { spot, rows, columns, start: len });
            len = (rows + columns)
                .checked_mul(shape.rank)
                .and_then(|more| more.checked_add(len))
                .ok_or_else(|| Error::Argument(format!("a rank of {} is too large for this machine", shape.rank)))?;
        }
        let scale = alpha / shape.rank as f32;
        Ok(Self { rank: shape.rank, scale, targets, places, embedding, output, len })
    }

    /// The adapter of a matrix.
    pub(crate) fn of(&self, layer: usize, part: Part) -> Option<&Target> {
        self.places[layer][part as usize].map(|index| &self.targets[index])
    }

    /// The adapter of the embeddings, whose columns are tokens.
    pub(crate) fn of_embedding(&self) -> Option<&Target> {
        self.embedding.map(|index| &self.targets[index])
    }

    /// The adapter of the output matrix.
    pub(crate) fn of_output(&self) -> Option<&Target> {
        self.output.map(|index| &self.targets[index])
    }

    /// Whether any of these parts of a layer has an adapter.
    pub(crate) fn any(&self, layer: usize, wanted: impl Fn(Part) -> bool) -> bool {
        Part::ALL.into_iter().any(|part| wanted(part) && self.of(layer, part).is_some())
    }

    /// The first layer with something to learn in it or before it.
    pub(crate) fn first_layer(&self) -> usize {
        if self.embedding.is_some() {
            return 0;
        }
        (0..self.places.len()).find(|layer| self.any(*layer, |_| true)).unwrap_or(self.places.len())
    }

    /// Whether there is nothing to learn before a layer, so that the gradient with respect to its input is not needed.
    pub(crate) fn is_first(&self, layer: usize) -> bool {
        self.embedding.is_none() && layer == self.first_layer()
    }

    /// Where the parameters A and B of an adapter are.
    pub(crate) fn ranges(&self, target: &Target) -> (Range<usize>, Range<usize>) {
        let middle = target.start + self.rank * target.columns;
        (target.start..middle, middle..middle + target.rows * self.rank)
    }

    /// The parameters in order.
    pub(crate) fn names(&self) -> Vec<Trainable> {
        let of = |target: &Target| {
            [
                (format!("{}.lora_a", target.spot.name()), self.rank, target.columns),
                (format!("{}.lora_b", target.spot.name()), target.rows, self.rank),
            ]
        };
        self.targets.iter().flat_map(of).collect()
    }

    /// Draws every A.
    pub(crate) fn initialize(&self, parameters: &mut [f32], seed: u64) {
        let mut state = seed;
        for target in &self.targets {
            // A token is an input with a single 1, so all products `A x` begin at about the same size.
            let inputs = if target.spot == Spot::Embedding { 1 } else { target.columns };
            let bound = 1.0 / (inputs as f64).sqrt();
            for value in &mut parameters[self.ranges(target).0] {
                // 53 bits, as a number from 0 to 1.
                let share = (random(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
                *value = ((2.0 * share - 1.0) * bound) as f32;
            }
        }
    }
}

/// The next number of SplitMix64 (G. Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
