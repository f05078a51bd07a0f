//! Adapters of a model, and what a session goes through.

use std::fmt;
use std::sync::Arc;

use llamacpu_kernels::low_rank::UpMatrix;
use llamacpu_kernels::matmul::Matrix;

use super::steering::Steering;
use crate::error::Error;
use crate::weights::token_type;

/// The low-rank changes of one file, checked against the model that they belong to.
pub struct Adapter {
    /// Identifies the model.
    model: Arc<()>,
    /// By slot of the model; see [`crate::tensors::Slot`].
    pairs: Vec<Option<Pair>>,
    /// For the lookup of tokens.
    embedding: Option<Pair>,
    /// Added to the embedding of each type of token, factor included; empty if nothing is.
    token_types: Vec<Vec<f32>>,
    nbytes: usize,
}

/// `factor * up * down` is added to a matrix.
pub(crate) struct Pair {
    /// rank × columns; for the embedding, vocabulary × rank: the numbers of a token are looked up.
    pub(crate) down: Arc<Matrix>,
    /// rows × rank
    pub(crate) up: UpMatrix,
    pub(crate) factor: f32,
}

impl Adapter {
    pub(crate) fn new(
        model: Arc<()>,
        pairs: Vec<Option<Pair>>,
        (embedding, token_types): (Option<Pair>, Vec<Vec<f32>>),
    ) -> Self {
        let matrices: usize =
            pairs.iter().flatten().chain(&embedding).map(|pair| pair.down.nbytes() + pair.up.nbytes()).sum();
        let nbytes = matrices + token_types.iter().map(|row| size_of_val(row.as_slice())).sum::<usize>();
        Self { model, pairs, embedding, token_types, nbytes }
    }

    /// Size in memory in bytes.
    pub fn nbytes(&self) -> usize {
        self.nbytes
    }

    /// What changes the matrix with this slot.
    pub(crate) fn pair(&self, slot: usize) -> Option<&Pair> {
        self.pairs.get(slot).and_then(Option::as_ref)
    }

    /// What changes the embeddings of tokens.
    pub(crate) fn embedding(&self) -> Option<&Pair> {
        self.embedding.as_ref()
    }

    /// What is added to the embedding of a token's type, depending on whether it belongs to the second of two texts.
    pub(crate) fn token_type(&self, second: bool) -> Option<&[f32]> {
        token_type(&self.token_types, second)
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Adapter of {} bytes", self.nbytes)
    }
}

/// An adapter as a session uses it.
#[derive(Debug, Clone)]
pub struct AdapterUse {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// Multiplies what it adds.
    pub scale: f32,
    /// Position of the first token that goes through it: 0 for all.
    pub from: usize,
}

impl AdapterUse {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.adapter, &other.adapter) && self.scale.to_bits() == other.scale.to_bits()
    }
}

/// Everything that a session goes through in addition to the model.
#[derive(Debug, Clone, Default)]
pub struct Adapters {
    /// In the order in which their changes are added.
    pub low_rank: Vec<AdapterUse>,
    /// What is added to the stream after the layers.
    pub steering: Option<Arc<Steering>>,
}

impl Adapters {
    /// How many tokens at the beginning of a text go through the same with both.
    pub(crate) fn common(&self, other: &Self) -> usize {
        let same_vectors = match (&self.steering, &other.steering) {
            (None, None) => true,
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            _ => false,
        };
        if !same_vectors {
            return 0;
        }
        let mut starts: Vec<usize> = self.low_rank.iter().chain(&other.low_rank).map(|item| item.from).collect();
        starts.sort_unstable();
        let differs = |&start: &usize| {
            let (own, others) = (self.active(start), other.active(start));
            own.len() != others.len() || !own.iter().zip(&others).all(|(own, others)| own.is_same(others))
        };
        starts.into_iter().find(differs).unwrap_or(usize::MAX)
    }

    /// The adapters of the token at a position.
    fn active(&self, position: usize) -> Vec<&AdapterUse> {
        self.low_rank.iter().filter(|item| item.from <= position && item.scale != 0.0).collect()
    }

    /// # Errors
    /// `Error::Argument` if a part was made for another model, or a scale is not a number.
    pub(crate) fn check(&self, model: &Arc<()>) -> Result<(), Error> {
        let own = self.low_rank.iter().map(|item| &item.adapter.model);
        if own.chain(self.steering.iter().map(|steering| steering.model())).any(|other| !Arc::ptr_eq(model, other)) {
            return Err(Error::Argument("the adapter was opened for another model; open it for this one".to_owned()));
        }
        match self.low_rank.iter().find(|item| !item.scale.is_finite()) {
            Some(item) => Err(Error::Argument(format!("the scale of an adapter is {}; expected a number", item.scale))),
            None => Ok(()),
        }
    }
}
