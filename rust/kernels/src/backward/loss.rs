//! Cross-entropy of logits and targets, with its gradient.

use super::byte_operand::{BytePanel, PackedBytes};
use super::byte_tile::BLOCK;
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
    let size = row_size(logits, targets, losses)?;
    let (rows, losses) = (Pieces::new(logits, size), SharedSlice::new(losses));
    for_pieces(context, targets.len(), &|row, _| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds this row.
        let (logits, loss) = unsafe { (rows.get(row), losses.part(row, 1)) };
        loss[0] = dispatch(context.isa, Row { logits, target: targets[row] as usize, gradient });
        Ok(())
    })
}

/// As [`cross_entropy`] with a gradient, which is rounded at once, as the rows of `gradient` from row `first` on, instead of
/// replacing the logits: they are read once from memory, and nothing is written there but bytes.
///
/// # Errors
/// As for `cross_entropy`; `Error::Shape` also if there are no such rows.
pub fn cross_entropy_in_bytes(
    context: &Context,
    logits: &[f32],
    targets: &[u32],
    losses: &mut [f64],
    (gradient, first): (&mut PackedBytes, usize),
) -> Result<(), Error> {
    if targets.is_empty() && logits.is_empty() && losses.is_empty() {
        return Ok(());
    }
    let size = row_size(logits, targets, losses)?;
    let losses = SharedSlice::new(losses);
    gradient.for_panels(context, (first, targets.len(), size), &|panel| {
        let rows = panel.rows.start - first..panel.rows.end - first;
        // SAFETY: every row is in one panel, which one piece has.
        let losses = unsafe { losses.part(rows.start, rows.len()) };
        let logits = &logits[rows.start * size..rows.end * size];
        dispatch(context.isa, InBytes { logits, targets: &targets[rows], losses, panel });
    })
}

/// The length of a row, if there are as many rows, targets and losses, and all targets are inside their rows.
fn row_size(logits: &[f32], targets: &[u32], losses: &[f64]) -> Result<usize, Error> {
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
    Ok(size)
}

/// The largest logit, if that of the target is one of them.
#[inline(always)]
fn largest<L: Lanes>(set: L::Set, logits: &[f32], chosen: f32) -> f32 {
    let mut most = L::splat(set, chosen);
    let mut chunks = logits.chunks_exact(LANES);
    for x in &mut chunks {
        most = L::load_part(set, x).max(most);
    }
    let mut largest = most.largest();
    for x in chunks.remainder() {
        largest = if *x > largest { *x } else { largest };
    }
    largest
}

/// A vocabulary is long: sums of that many exponents are added in f64.
const PART: usize = 64 * LANES;

/// The logarithm of the sum of exponents less the target's logit, both of them less the largest logit.
fn loss(sum: f64, largest: f32, chosen: f32) -> f64 {
    ln(sum) + f64::from(largest) - f64::from(chosen)
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
        let largest = largest::<L>(set, logits, chosen);
        let shift = L::splat(set, largest);
        let mut sum = 0.0;
        for part in logits.chunks_mut(PART) {
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
        loss(sum, largest, chosen)
    }
}

/// Rows whose gradients are in one panel of bytes.
struct InBytes<'a> {
    logits: &'a [f32],
    targets: &'a [u32],
    losses: &'a mut [f64],
    panel: BytePanel<'a>,
}

impl Kernel for InBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { logits, targets, losses, mut panel } = self;
        let (size, rows) = (logits.len() / targets.len(), panel.rows.clone());
        for (((row, logits), target), result) in rows.zip(logits.chunks_exact(size)).zip(targets).zip(losses) {
            let target = *target as usize;
            let chosen = logits[target];
            let largest = largest::<L>(set, logits, chosen);
            let shift = L::splat(set, largest);
            let (mut sum, mut exponents, mut of_target) = (0.0, [0.0; BLOCK], [0.0; BLOCK]);
            for (part, logits) in logits.chunks(PART).enumerate() {
                let mut sums = L::zero(set);
                for (block, logits) in logits.chunks(BLOCK).enumerate() {
                    exponents.fill(0.0);
                    for (x, e) in logits.chunks(LANES).zip(exponents.chunks_mut(LANES)) {
                        let e = &mut e[..x.len()];
                        exp(L::load_part(set, x).sub(shift)).store_part(e);
                        // Read back, so that the lanes beyond the end count as 0.
                        sums = sums.add(L::load_part(set, e));
                    }
                    let block = part * (PART / BLOCK) + block;
                    // The factor that all exponents have in common follows when it is known.
                    panel.set::<L>(set, (row, block), &exponents);
                    if block == target / BLOCK {
                        of_target = exponents;
                    }
                }
                sum += f64::from(sums.sum());
            }
            let factor = (1.0 / sum) as f32;
            panel.multiply(row, factor);
            for value in &mut of_target {
                *value *= factor;
            }
            of_target[target % BLOCK] -= 1.0;
            panel.set::<L>(set, (row, target / BLOCK), &of_target);
            *result = loss(sum, largest, chosen);
        }
    }
}
