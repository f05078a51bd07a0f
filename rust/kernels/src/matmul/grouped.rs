//! Grouped matrix multiplication: products with separate inputs in one call, shared among the threads as if they were one.

use super::additions::{Addition, place};
use super::batches::{Batch, Product};
use super::job::InputBuffers;
use super::matrix::Matrix;
use super::output::Output;
use super::{check_additions, low_len, regions};
use crate::Error;
use crate::context::Context;
use crate::memory::{grow, room};
use crate::shared::SharedSlice;

/// Rows of `width` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<Numbers> {
    /// rows × width.
    pub numbers: Numbers,
    /// Length of a row.
    pub width: usize,
}

/// One product of a call: a rectangle of the input, times a matrix, gives a rectangle of the output.
#[derive(Debug, Clone, Copy)]
pub struct GroupedJob<'a> {
    /// rows × columns.
    pub weights: &'a Matrix,
    /// Number of rows of the tables that are multiplied.
    pub tokens: usize,
    /// First row and first column in the input; as many columns as the matrix has are read.
    pub input: (usize, usize),
    /// First row and first column in the output; as many columns as the matrix has rows are overwritten.
    pub output: (usize, usize),
}

/// Multiplies parts of `input` by the weights of every job; the results have the same bits as those of
/// [`matmul`](super::matmul) with the same rows. All matrices have the same number of columns. Adjacent jobs with the same
/// input share its preparation.
///
/// # Errors
/// `Error::Shape` if sizes do not match, memory is short, or parts of the output overlap: parts that share a row must
/// have all rows in common and disjoint columns. `Error::Cancelled` if the context was interrupted, with outputs undefined.
pub fn grouped_matmul(
    context: &Context,
    input: Table<&[f32]>,
    Table { numbers: output, width: output_width }: Table<&mut [f32]>,
    buffers: &mut InputBuffers,
    jobs: &[GroupedJob],
) -> Result<(), Error> {
    grouped_matmul_with(context, input, Table { numbers: output, width: output_width }, buffers, jobs, &[])
}

/// As [`grouped_matmul`], with an addition to the results of each job, or none at all; see [`matmul_with`](super::matmul_with).
///
/// # Errors
/// As for `grouped_matmul`; `Error::Shape` also if an addition does not fit to its job.
pub fn grouped_matmul_with(
    context: &Context,
    input: Table<&[f32]>,
    Table { numbers: output, width: output_width }: Table<&mut [f32]>,
    buffers: &mut InputBuffers,
    jobs: &[GroupedJob],
    additions: &[Addition],
) -> Result<(), Error> {
    check_additions(jobs.iter().map(|job| (job.weights, job.tokens)), additions)?;
    check((input.numbers.len(), input.width), (output.len(), output_width), jobs)?;
    let columns = jobs.first().map_or(0, |job| job.weights.columns());
    let mut low_numbers = std::mem::take(&mut buffers.low);
    grow(&mut low_numbers, low_len(additions)?, 0.0, "adapters")?;
    let low = SharedSlice::new(&mut low_numbers);
    let (mut lows, mut start) = (Vec::new(), 0);
    let mut placed = room(additions.len(), "products")?;
    placed.extend(jobs.iter().zip(additions).map(|(job, addition)| {
        let first = (job.input.0 * input.width + job.input.1).min(input.numbers.len());
        place(addition, (&input.numbers[first..], input.width), (&low, &mut start), &mut lows)
    }));
    let numbers = SharedSlice::new(output);
    let mut batches: Vec<Batch> = room(jobs.len(), "products")?;
    let mut last = None;
    for (index, job) in jobs.iter().enumerate().filter(|(_, job)| job.tokens > 0 && job.weights.rows() > 0) {
        let (row, column) = job.output;
        let rectangle = Output { numbers: &numbers, start: row * output_width + column, stride: output_width };
        if columns == 0 {
            // Empty sums.
            for token in 0..job.tokens {
                // SAFETY: this thread alone writes.
                let row = unsafe { rectangle.part(token, 0, job.weights.rows()) };
                match additions.get(index).and_then(|addition| addition.bias) {
                    Some(bias) => row.copy_from_slice(bias),
                    None => row.fill(0.0),
                }
            }
            continue;
        }
        let input_start = job.input.0 * input.width + job.input.1;
        let numbers = &input.numbers[input_start..];
        if let Some(observer) = context.observer {
            observer.product(context, job.weights.bytes(), columns, (numbers, input.width), job.tokens)?;
        }
        job.weights.prepare(context)?;
        if last != Some((job.input, job.tokens)) {
            last = Some((job.input, job.tokens));
            batches.push(Batch { input: numbers, stride: input.width, tokens: job.tokens, products: Vec::new() });
        }
        if let Some(batch) = batches.last_mut() {
            batch.products.push(Product { weights: job.weights, output: rectangle, addition: placed.get(index) });
        }
    }
    let done = if batches.is_empty() { Ok(()) } else { regions::run(context, columns, &batches, &lows, buffers) };
    buffers.low = low_numbers;
    done
}

/// Checks that all jobs fit into the tables, given as length and width, and that their outputs do not overlap.
fn check(input: (usize, usize), output: (usize, usize), jobs: &[GroupedJob]) -> Result<(), Error> {
    let mut places = room(jobs.len(), "products")?;
    for job in jobs {
        let (rows, columns) = (job.weights.rows(), job.weights.columns());
        if columns != jobs[0].weights.columns() {
            let first = jobs[0].weights.columns();
            return Err(Error::Shape(format!(
                "matrices of {first} and {columns} columns; expected the same for all jobs"
            )));
        }
        for (name, (numbers, width), (row, column), count) in
            [("input", input, job.input, columns), ("output", output, job.output, rows)]
        {
            let lines = numbers.checked_div(width).unwrap_or(0);
            let fits =
                |first: usize, count: usize, most: usize| first.checked_add(count).is_some_and(|end| end <= most);
            if lines * width != numbers || !fits(row, job.tokens, lines) || !fits(column, count, width) {
                return Err(Error::Shape(format!(
                    "{} rows of {count} numbers from row {row}, column {column} on; expected them inside an {name} of \
                     {numbers} numbers in rows of {width}",
                    job.tokens
                )));
            }
        }
        if job.tokens > 0 && rows > 0 {
            places.push((job.output.0, job.output.1, job.tokens, rows));
        }
    }
    refuse_overlap(&mut places)
}

/// Checks that rectangles of an output, given as first row, first column, number of rows and of columns, do not overlap:
/// those that share a row must have all rows in common and disjoint columns. Sorts them.
pub(crate) fn refuse_overlap(places: &mut [(usize, usize, usize, usize)]) -> Result<(), Error> {
    places.sort_unstable();
    for pair in places.windows(2) {
        let [(row, column, tokens, rows), (next_row, next_column, next_tokens, _)] = [pair[0], pair[1]];
        let beside = row == next_row && tokens == next_tokens && column + rows <= next_column;
        if row + tokens > next_row && !beside {
            return Err(Error::Shape(format!(
                "outputs that begin at row {row}, column {column} and at row {next_row}, column {next_column} overlap; \
                 expected parts that share all rows or none, and no columns"
            )));
        }
    }
    Ok(())
}
