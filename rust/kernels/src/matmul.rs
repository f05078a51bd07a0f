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

mod activations;
#[cfg(target_arch = "aarch64")]
mod arm;
mod batches;
mod buffers;
mod decompression;
mod dispatch;
mod expand;
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
mod peak;
mod pieces;
mod plan;
mod product;
mod regions;
mod registers;
mod scales;
mod sets;
mod spans;
mod tile;
mod weights;

#[cfg(test)]
mod tests;

pub(crate) use grouped::refuse_overlap;
pub use grouped::{GroupedJob, Table, grouped_matmul};
pub use job::{InputBuffers, Job};
pub use matrix::Matrix;
pub use peak::product_peak;

use crate::Error;
use crate::context::Context;
use crate::memory::room;
use crate::shared::SharedSlice;
use batches::{Batch, Output, Product};

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
    check(input, tokens, jobs)?;
    if tokens == 0 || jobs.is_empty() {
        return Ok(());
    }
    if input.is_empty() {
        // Empty sums.
        for job in jobs {
            job.output.fill(0.0);
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
    let mut outputs = room(jobs.len(), "products")?;
    outputs.extend(jobs.iter_mut().map(|job| (job.weights, SharedSlice::new(job.output))));
    let mut products = room(outputs.len(), "products")?;
    products.extend(outputs.iter().map(|(weights, numbers)| {
        let output = Output { numbers, start: 0, stride: weights.rows() };
        Product { weights, output }
    }));
    let columns = input.len() / tokens;
    regions::run(context, columns, &[Batch { input, stride: columns, tokens, products }], buffers)
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
