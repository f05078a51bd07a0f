//! Element-wise work.

use super::pieces::for_pieces;
use crate::Error;
use crate::context::Context;
use crate::shared::Pieces;

/// Elements of a piece of work, at least.
pub(super) const PIECE: usize = 16 * 1024;

/// Adds the bias to every row of `x`.
///
/// # Errors
/// `Error::Shape` if `x` is not whole rows; `Error::Cancelled` if the context was interrupted.
pub fn add_bias(context: &Context, x: &mut [f32], bias: &[f32]) -> Result<(), Error> {
    if bias.is_empty() || !x.len().is_multiple_of(bias.len()) {
        let (count, size) = (x.len(), bias.len());
        return Err(Error::Shape(format!("{count} numbers and a bias of {size}; expected whole rows")));
    }
    let pieces = Pieces::new(x, PIECE.div_ceil(bias.len()) * bias.len());
    for_pieces(context, pieces.count(), &|piece, _| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        for row in unsafe { pieces.get(piece) }.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
        Ok(())
    })
}
