//! Sizes, weights and inputs of gated delta networks, and where intermediate results are.

use crate::math::LANES;

/// Sizes of a gated delta network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaNet {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, a multiple of the key heads.
    pub value_heads: usize,
    /// Elements of a query or key head.
    pub key_size: usize,
    /// Elements of a value head.
    pub value_size: usize,
    /// Tokens that the convolution sees, at least 1.
    pub taps: usize,
    /// Whether consecutive value heads share a key head; otherwise value head `h` uses key head `h mod key_heads`.
    pub grouped: bool,
}

/// The weights of a gated delta network besides its matrices.
#[derive(Debug, Clone, Copy)]
pub struct DeltaWeights<'a> {
    /// taps × channels; the first row meets the oldest token.
    pub convolution: &'a [f32],
    /// The decay of a value head per unit of time: negative.
    pub decay: &'a [f32],
    /// Added to the time that passes, by value head.
    pub time: &'a [f32],
    /// The weight of the norm of a value head.
    pub norm: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Consecutive tokens of one sequence.
pub struct DeltaItem<'a> {
    /// tokens × channels: queries, keys and values of all heads before the convolution.
    pub channels: &'a [f32],
    /// tokens × value heads: how much of a new value is written, before the logistic function.
    pub write: &'a [f32],
    /// tokens × value heads: the time that passes, before `softplus`.
    pub time: &'a [f32],
    /// tokens × value heads × value size: the gate of the output; `None` if only the state is wanted.
    pub gate: Option<&'a [f32]>,
    /// The state before the tokens; `None` at the start of a sequence.
    pub before: Option<&'a [f32]>,
    /// Becomes the state after the tokens.
    pub state: &'a mut [f32],
    /// tokens × value heads × value size; unspecified without a gate.
    pub output: &'a mut [f32],
}

impl DeltaNet {
    /// Queries, keys and values of a token.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_size + self.value_heads * self.value_size
    }

    /// Elements of all value heads.
    pub fn value_width(&self) -> usize {
        self.value_heads * self.value_size
    }

    /// Numbers in the state of a sequence: the last inputs of the convolution, oldest first, and then for each value head
    /// its matrix, divided into blocks of 16 columns of `key_size` rows; columns beyond the last are zero.
    pub fn state_numbers(&self) -> Option<usize> {
        let tail = (self.taps - 1).checked_mul(self.channels())?;
        self.head_numbers().checked_mul(self.value_heads)?.checked_add(tail)
    }

    /// Numbers of scratch memory per token.
    pub fn scratch(&self) -> usize {
        self.channels() + 2 * self.value_heads + self.key_heads
    }

    pub(super) fn tail(&self) -> usize {
        (self.taps - 1) * self.channels()
    }

    pub(super) fn head_numbers(&self) -> usize {
        self.key_size * self.value_size.next_multiple_of(LANES)
    }

    pub(super) fn key_head(&self, value_head: usize) -> usize {
        if self.grouped { value_head / (self.value_heads / self.key_heads) } else { value_head % self.key_heads }
    }
}

/// Where the intermediate results of an item are: by head, then by token.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) tokens: usize,
    /// Convolved queries of all heads, then keys, then values.
    pub(super) mixed: usize,
    /// The decays of all value heads, then their writes.
    pub(super) gates: usize,
    /// The products of queries and keys of all key heads.
    pub(super) products: usize,
}

impl Place {
    pub(super) fn query(&self, net: &DeltaNet, head: usize) -> usize {
        self.mixed + head * self.tokens * net.key_size
    }

    pub(super) fn key(&self, net: &DeltaNet, head: usize) -> usize {
        self.mixed + (net.key_heads + head) * self.tokens * net.key_size
    }

    pub(super) fn value(&self, net: &DeltaNet, head: usize) -> usize {
        self.mixed + (2 * net.key_heads * net.key_size + head * net.value_size) * self.tokens
    }

    pub(super) fn decay(&self, head: usize) -> usize {
        self.gates + head * self.tokens
    }

    pub(super) fn write(&self, net: &DeltaNet, head: usize) -> usize {
        self.gates + (net.value_heads + head) * self.tokens
    }

    pub(super) fn product(&self, head: usize) -> usize {
        self.products + head * self.tokens
    }
}
