//! A summand of a low-rank change.

use super::up::UpMatrix;

/// One summand: a matrix and the numbers that it is multiplied by.
#[derive(Debug, Clone, Copy)]
pub struct LowRankTerm<'a> {
    /// rows × rank.
    pub up: &'a UpMatrix,
    /// `rank` numbers per token, `stride` apart from one token to the next.
    pub low: &'a [f32],
    /// At least the rank.
    pub stride: usize,
}
