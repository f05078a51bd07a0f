//! Cross-entropy of logits and targets, with its gradient.

use super::pieces::for_pieces;
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch, exp, ln};
use crate::shared::{Pieces, SharedSlice};

/// Sets `losses` to `ln(sum(exp(logits))) - logits[target]` for every row, and if `gradient`, replaces the logits by the
/// gradient of the sum of losses, `softmax(logits) - [target]`. A row is as long as the vocabulary.
///
/// # Errors
/// `Error::Shape` if there are not as many rows as targets and losses, or a target is beyond the row; `Error::Cancelled`
/// if the context was interrupted.
pub fn cross_entropy(
    context: &Context,
    logits: &mut [f32],
    targets: &[u32],
    losses: &mut [f64],
    gradient: bool,
) -> Result<(), Error> {
    if targets.is_empty() && logits.is_empty() && losses.is_empty() {
        return Ok(());
    }
    let size = logits.len().checked_div(targets.len()).unwrap_or(0);
    let fits = size * targets.len() == logits.len() && losses.len() == targets.len();
    if !fits || targets.iter().any(|target| *target as usize >= size) {
        return Err(Error::Shape(format!(
            "{} logits, {} targets and room for {} losses; expected equal rows of logits, and targets inside them",
            logits.len(),
            targets.len(),
            losses.len()
        )));
    }
    let (rows, losses) = (Pieces::new(logits, size), SharedSlice::new(losses));
    for_pieces(context, targets.len(), &|row, _| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds this row.
        let (logits, loss) = unsafe { (rows.get(row), losses.part(row, 1)) };
        loss[0] = dispatch(context.isa, Row { logits, target: targets[row] as usize, gradient });
        Ok(())
    })
}

struct Row<'a> {
    logits: &'a mut [f32],
    target: usize,
    gradient: bool,
}

impl Kernel for Row<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> f64 {
        let Self { logits, target, gradient } = self;
        let chosen = logits[target];
        let mut most = L::splat(set, chosen);
        let mut chunks = logits.chunks_exact(LANES);
        for x in &mut chunks {
            most = L::load_part(set, x).max(most);
        }
        let mut largest = most.largest();
        for x in chunks.remainder() {
            largest = if *x > largest { *x } else { largest };
        }
        let shift = L::splat(set, largest);
        // A vocabulary is long: sums of 1024 are added in f64.
        let mut sum = 0.0;
        for part in logits.chunks_mut(64 * LANES) {
            let mut sums = L::zero(set);
            for x in part.chunks_mut(LANES) {
                let e = exp(L::load_part(set, x).sub(shift));
                e.store_part(x);
                // Read back, so that the lanes beyond the end count as 0.
                sums = sums.add(L::load_part(set, x));
            }
            sum += f64::from(sums.sum());
        }
        if gradient {
            let factor = L::splat(set, (1.0 / sum) as f32);
            for x in logits.chunks_mut(LANES) {
                L::load_part(set, x).mul(factor).store_part(x);
            }
            logits[target] -= 1.0;
        }
        ln(sum) + f64::from(largest) - f64::from(chosen)
    }
}
