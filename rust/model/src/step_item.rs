//! The input and output of a step.

use crate::Session;
use crate::picture::Picture;

/// The tokens of an item for which a step returns logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// No token: they only become part of the context.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
}

/// What one session contributes to a step.
#[derive(Debug, Clone, Copy)]
pub struct StepItem<'a> {
    /// The conversation that the tokens continue.
    pub session: &'a Session,
    /// At least one token.
    pub tokens: &'a [u32],
    /// Where the tokens stand for pictures, in the order of their places.
    pub pictures: &'a [Picture],
    /// Which rows of logits are returned.
    pub wanted: Wanted,
}

/// What a step returns.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// The logits of the wanted rows: rows × vocabulary, items in order.
    pub logits: Vec<f32>,
    /// The hidden states of every token: places × tokens × embedding, items in order.
    pub hidden: Vec<f32>,
}
