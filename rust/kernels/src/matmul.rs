//! Matrix products: weights in any format × activations in f32.
//!
//! Quantized weights are packed once, in parallel, by the first product that uses them: groups of 16 rows side by side (see
//! `weights`), in huge pages, after which the file's own pages are released. Few tokens are multiplied straight from that
//! layout, at memory speed. For more tokens each thread expands two groups into its cache (`panel`) and runs a
//! register tile over all tokens. Plain weights are read directly from the file; for many tokens each thread expands some
//! of their rows as well.
//!
//! The order of every sum is fixed by the format (see `tile` and `floats`), so a result has the same bits for any number of
//! threads, any batch and every instruction set.

pub(crate) mod activations;
mod additions;
#[cfg(target_arch = "aarch64")]
mod arm;
mod batches;
mod buffers;
mod decompression;
pub(crate) mod dispatch;
mod expand;
mod first_pieces;
mod floats;
mod grouped;
mod job;
mod kernels;
mod lanes;
mod matrix;
mod multiplied;
#[cfg(target_arch = "x86_64")]
mod narrow;
mod operands;
mod output;
mod peak;
mod pieces;
mod placed;
mod plan;
mod product;
mod quantizer;
mod regions;
mod registers;
mod scales;
mod sets;
pub(crate) mod spans;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiled;
mod unit;
mod weights;
mod words;

pub use additions::{Addition, Change, ChangeTerm};
pub(crate) use grouped::refuse_overlap;
pub use grouped::{GroupedJob, Table, grouped_matmul, grouped_matmul_with};
pub use job::{InputBuffers, Job};
pub use matrix::Matrix;
pub use peak::product_peak;
pub use words::word_matmul;

use crate::Error;
use crate::context::Context;
use crate::memory::{grow, room};
use crate::shared::SharedSlice;
use additions::place;
use batches::{Batch, Product};
use output::Output;

/// Multiplies `tokens` rows of `input` (tokens × columns) with the weights of every job; all jobs share the input.
///
/// A token with a NaN or an infinity in a block of 32 gets NaN in every output of a quantized format; in the plain formats
/// such values follow IEEE arithmetic. (The bit pattern of the NaN is unspecified.)
///
/// # Errors
/// `Error::Shape` if sizes do not match or memory is short; `Error::Cancelled` if the context was interrupted, with outputs
/// undefined.
pub fn matmul(
    context: &Context,
    input: &[f32],
    tokens: usize,
    buffers: &mut InputBuffers,
    jobs: &mut [Job],
) -> Result<(), Error> {
    matmul_with(context, input, tokens, buffers, jobs, &[])
}

/// As [`matmul`], with an addition to the results of each job, or none at all.
///
/// The order of sums: the product, plus the bias, plus the change, which [`low_rank`](crate::low_rank) defines; the
/// products with its first matrices, which are those of `matmul`, are multiplied by the scale.
///
/// # Errors
/// As for `matmul`; `Error::Shape` also if an addition does not fit to its job.
pub fn matmul_with(
    context: &Context,
    input: &[f32],
    tokens: usize,
    buffers: &mut InputBuffers,
    jobs: &mut [Job],
    additions: &[Addition],
) -> Result<(), Error> {
    check(input, tokens, jobs)?;
    check_additions(jobs.iter().map(|job| (job.weights, tokens)), additions)?;
    if tokens == 0 || jobs.is_empty() {
        return Ok(());
    }
    if input.is_empty() {
        // Empty sums.
        for job in &mut *jobs {
            job.output.fill(0.0);
        }
        for (job, addition) in jobs.iter_mut().zip(additions) {
            if let Some(bias) = addition.bias {
                job.output.chunks_exact_mut(bias.len().max(1)).for_each(|row| row.copy_from_slice(bias));
            }
        }
        return Ok(());
    }
    for job in jobs.iter() {
        if let Some(observer) = context.observer {
            let columns = job.weights.columns();
            observer.product(context, job.weights.bytes(), columns, (input, columns), tokens)?;
        }
        job.weights.prepare(context)?;
    }
    let columns = input.len() / tokens;
    let mut numbers = std::mem::take(&mut buffers.low);
    grow(&mut numbers, low_len(additions)?, 0.0, "adapters")?;
    let low = SharedSlice::new(&mut numbers);
    let (mut lows, mut start) = (Vec::new(), 0);
    let mut placed = room(additions.len(), "products")?;
    placed.extend(additions.iter().map(|addition| place(addition, (input, columns), (&low, &mut start), &mut lows)));
    let mut outputs = room(jobs.len(), "products")?;
    outputs.extend(jobs.iter_mut().map(|job| (job.weights, SharedSlice::new(job.output))));
    let mut products = room(outputs.len(), "products")?;
    products.extend(outputs.iter().enumerate().map(|(index, (weights, numbers))| {
        let output = Output { numbers, start: 0, stride: weights.rows() };
        Product { weights, output, addition: placed.get(index) }
    }));
    let done = regions::run(context, columns, &[Batch { input, stride: columns, tokens, products }], &lows, buffers);
    buffers.low = numbers;
    done
}

/// Checks that there are no additions, or one that fits for each product, given as weights and number of tokens.
fn check_additions<'a>(
    products: impl ExactSizeIterator<Item = (&'a Matrix, usize)>,
    additions: &[Addition],
) -> Result<(), Error> {
    if !additions.is_empty() && additions.len() != products.len() {
        return Err(Error::Shape(format!("{} additions for {} products", additions.len(), products.len())));
    }
    let mut both = products.zip(additions);
    both.try_for_each(|((weights, tokens), addition)| addition.check((weights.rows(), weights.columns()), tokens))
}

/// Number of results of the small products of all additions.
fn low_len(additions: &[Addition]) -> Result<usize, Error> {
    let sum = additions.iter().try_fold(0usize, |sum, addition| sum.checked_add(addition.low_len()?));
    sum.ok_or_else(|| Error::Shape("more changes than memory can hold".to_owned()))
}

/// Checks that all sizes match.
fn check(input: &[f32], tokens: usize, jobs: &[Job]) -> Result<(), Error> {
    for job in jobs {
        let (rows, columns) = (job.weights.rows(), job.weights.columns());
        if tokens.checked_mul(columns) != Some(input.len()) {
            return Err(Error::Shape(format!(
                "{} activations given for {tokens} tokens and a {rows} × {columns} matrix; expected tokens × columns",
                input.len()
            )));
        }
        if tokens.checked_mul(rows) != Some(job.output.len()) {
            return Err(Error::Shape(format!(
                "room for {} results given for {tokens} tokens and a {rows} × {columns} matrix; expected tokens × rows",
                job.output.len()
            )));
        }
    }
    Ok(())
}
