//! Low-rank changes of linear maps (E. Hu et al., "LoRA", arXiv:2106.09685): `y += scale * B (A x)`. The products `A x` are
//! ordinary matrix products of few rows, scaled by the caller; here is what follows: adding `B` times their results to a
//! large output.
//!
//! An output gets `d = 0`, then `d = fma(low[k], B[row][k], d)` for every `k` of every term, in order, and finally
//! `y = y + d`. Outputs occupy lanes, so this order holds for any batch, number of threads and instruction set.

pub(crate) mod kernel;
mod term;
mod up;

use crate::Error;
use crate::context::Context;
use crate::math::{LANES, dispatch};
use crate::matmul::{Table, refuse_overlap};
use crate::memory::room;
use crate::shared::SharedSlice;
use kernel::AddPiece;
pub use term::LowRankTerm;
pub use up::{UpMatrix, down_matrix, gather};

/// Multiplications in a piece of work, approximately: enough to outweigh handing it to a thread.
const PIECE: usize = 1 << 15;
/// Tokens of a piece, at most: their outputs in one block of columns stay in the first-level cache.
const PIECE_TOKENS: usize = 64;

/// What is added to a rectangle of an output.
#[derive(Debug, Clone)]
pub struct LowRankJob<'a> {
    /// Their matrices have the same number of rows.
    pub terms: Vec<LowRankTerm<'a>>,
    /// Number of rows of the output.
    pub tokens: usize,
    /// Index of the output.
    pub output: usize,
    /// First row and first column in the output; as many columns as the matrices have rows are changed.
    pub place: (usize, usize),
}

/// Adds the terms of every job to its part of an output.
///
/// # Errors
/// `Error::Shape` if sizes do not match, parts of an output overlap or memory is short; `Error::Cancelled` if the context was
/// interrupted, with outputs undefined.
pub fn add_low_rank(context: &Context, outputs: &mut [Table<&mut [f32]>], jobs: &[LowRankJob]) -> Result<(), Error> {
    let mut works = room(jobs.len(), "adapters")?;
    let mut pieces = 0;
    for (job, rows) in check(outputs, jobs)? {
        let rank: usize = job.terms.iter().map(|term| term.up.rank()).sum();
        let tokens = job.tokens.min(PIECE_TOKENS);
        let blocks = (PIECE / (tokens * rank * LANES)).clamp(1, rows.div_ceil(LANES));
        let across = rows.div_ceil(LANES).div_ceil(blocks);
        works.push(Work { job, rows, blocks, across, first_piece: pieces });
        pieces += across * job.tokens.div_ceil(PIECE_TOKENS);
    }
    let widths: Vec<usize> = outputs.iter().map(|output| output.width).collect();
    let outputs: Vec<_> = outputs.iter_mut().map(|output| SharedSlice::new(&mut *output.numbers)).collect();
    context.for_each(pieces, &|piece| {
        let work = &works[works.partition_point(|work| work.first_piece <= piece) - 1];
        let (job, piece) = (work.job, piece - work.first_piece);
        let first_token = piece / work.across * PIECE_TOKENS;
        let first = piece % work.across * work.blocks * LANES;
        let columns = (work.blocks * LANES).min(work.rows - first);
        let width = widths[job.output];
        for token in (first_token..job.tokens.min(first_token + PIECE_TOKENS)).step_by(kernel::TILE) {
            let count = kernel::TILE.min(job.tokens - token);
            let mut rows: [&mut [f32]; kernel::TILE] = std::array::from_fn(|_| &mut [][..]);
            for (index, row) in rows[..count].iter_mut().enumerate() {
                let start = (job.place.0 + token + index) * width + job.place.1 + first;
                // SAFETY: `check` refused jobs that overlap, and every piece of a job has its own tokens and columns.
                *row = unsafe { outputs[job.output].part(start, columns) };
            }
            dispatch(context.isa, AddPiece { terms: &job.terms, token, first, rows: &mut rows[..count] });
        }
    })
}

/// A job and its division into pieces: `across` pieces of `blocks` blocks of columns for each group of tokens.
struct Work<'a> {
    job: &'a LowRankJob<'a>,
    rows: usize,
    blocks: usize,
    across: usize,
    first_piece: usize,
}

/// Checks all sizes; returns the jobs that have something to do, with the number of columns that they change.
fn check<'a>(
    outputs: &[Table<&mut [f32]>],
    jobs: &'a [LowRankJob<'a>],
) -> Result<Vec<(&'a LowRankJob<'a>, usize)>, Error> {
    let mut busy = room(jobs.len(), "adapters")?;
    let mut places = room(jobs.len(), "adapters")?;
    for job in jobs {
        let Some(first) = job.terms.first().filter(|_| job.tokens > 0) else { continue };
        let rows = first.up.rows();
        for term in &job.terms {
            let rank = term.up.rank();
            let needed = (job.tokens - 1).checked_mul(term.stride).and_then(|start| start.checked_add(rank));
            let fits = term.stride >= rank && needed.is_some_and(|needed| needed <= term.low.len());
            if term.up.rows() != rows || !fits {
                return Err(Error::Shape(format!(
                    "{} numbers in rows of {} given for {} tokens and a {} × {rank} matrix beside one of {rows} rows; \
                     expected tokens × rank, and equally many rows",
                    term.low.len(),
                    term.stride,
                    job.tokens,
                    term.up.rows()
                )));
            }
        }
        let output = outputs.get(job.output).map(|output| (output.numbers.len(), output.width));
        let inside = output.is_some_and(|(numbers, width)| {
            let lines = numbers.checked_div(width).unwrap_or(0);
            let fits =
                |first: usize, count: usize, most: usize| first.checked_add(count).is_some_and(|end| end <= most);
            lines * width == numbers && fits(job.place.0, job.tokens, lines) && fits(job.place.1, rows, width)
        });
        if !inside {
            return Err(Error::Shape(format!(
                "{} rows of {rows} numbers from row {}, column {} of output {} on; expected a rectangle inside of it",
                job.tokens, job.place.0, job.place.1, job.output
            )));
        }
        if rows > 0 && job.terms.iter().any(|term| term.up.rank() > 0) {
            busy.push((job, rows));
            places.push((job.output, (job.place.0, job.place.1, job.tokens, rows)));
        }
    }
    for output in 0..outputs.len() {
        let mut own: Vec<_> = places.iter().filter(|place| place.0 == output).map(|place| place.1).collect();
        refuse_overlap(&mut own)?;
    }
    Ok(busy)
}
