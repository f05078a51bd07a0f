//! Adds what adapters change to products with the weights of the model.

use std::ops::Range;

use llamacpu_kernels::context::Context;
use llamacpu_kernels::low_rank::{LowRankJob, LowRankTerm, add_low_rank};
use llamacpu_kernels::matmul::{GroupedJob, InputBuffers, Job, Table, grouped_matmul, matmul};

use super::parts::Pair;
use super::rows::{AdaptedRows, Run};
use crate::error::{Error, sized};
use crate::rows::multiply;

const PURPOSE: &str = "adapters";

/// The changes of several matrices that share their input.
pub(crate) struct Delta<'a> {
    rows: usize,
    parts: Vec<Part<'a>>,
}

/// The change of one matrix by one adapter, for some rows.
struct Part<'a> {
    /// Index of the matrix.
    matrix: usize,
    rows: Range<usize>,
    pair: &'a Pair,
    scale: f32,
}

impl Part<'_> {
    fn low_len(&self) -> usize {
        self.rows.len() * self.pair.up.rank()
    }
}

impl<'a> Delta<'a> {
    /// The changes of the matrices with these slots for a buffer of `rows` rows; `None` if there are none.
    pub(crate) fn of(adapted: &'a AdaptedRows, rows: usize, slots: &[usize]) -> Option<Self> {
        if adapted.is_empty() {
            return None;
        }
        let mut parts = Vec::new();
        for Run { rows, set } in adapted.runs(rows) {
            let Some(set) = *set else { continue };
            for (matrix, &slot) in slots.iter().enumerate() {
                for (adapter, scale) in adapted.adapters(set) {
                    if let Some(pair) = adapter.pair(slot) {
                        parts.push(Part { matrix, rows: rows.clone(), pair, scale: scale * pair.factor });
                    }
                }
            }
        }
        (!parts.is_empty()).then_some(Self { rows, parts })
    }

    /// Room for the products with the first matrices.
    pub(crate) fn room<'b>(&self, low: &'b mut Vec<f32>) -> Result<&'b mut [f32], Error> {
        sized(low, self.parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.low_len())), PURPOSE)
    }

    /// The products with the first matrices as jobs beside those of the model, if all rows have the same adapters: fewer
    /// parallel regions, and more equal work for the threads.
    pub(crate) fn joined<'b>(&self, low: &'b mut [f32]) -> Vec<Job<'b>>
    where
        'a: 'b,
    {
        if !self.is_joined() {
            return Vec::new();
        }
        let mut rest = low;
        let jobs = self.parts.iter().map(|part| {
            let (output, others) = std::mem::take(&mut rest).split_at_mut(part.low_len());
            rest = others;
            Job { weights: &part.pair.down, output }
        });
        jobs.collect()
    }

    fn is_joined(&self) -> bool {
        self.parts.iter().all(|part| part.rows == (0..self.rows))
    }

    /// Adds the changes to the products; `low` is what `room` returned, with the results of the `joined` jobs.
    pub(crate) fn add(
        &self,
        context: &Context,
        input: &[f32],
        (buffers, low): (&mut InputBuffers, &mut [f32]),
        outputs: &mut [Table<&mut [f32]>],
    ) -> Result<(), Error> {
        let columns = input.len() / self.rows;
        if !self.is_joined() {
            let mut rest = &mut *low;
            for parts in self.parts.chunk_by(|left, right| left.rows == right.rows) {
                let mut jobs = Vec::with_capacity(parts.len());
                for part in parts {
                    let (output, others) = rest.split_at_mut(part.low_len());
                    rest = others;
                    jobs.push(Job { weights: &part.pair.down, output });
                }
                let rows = &parts[0].rows;
                matmul(context, &input[rows.start * columns..rows.end * columns], rows.len(), buffers, &mut jobs)?;
            }
        }
        let mut rest = &mut *low;
        for part in &self.parts {
            let (own, others) = rest.split_at_mut(part.low_len());
            multiply(own, part.scale);
            rest = others;
        }
        let mut start = 0;
        let mut jobs = Vec::new();
        for parts in self.parts.chunk_by(|left, right| (&left.rows, left.matrix) == (&right.rows, right.matrix)) {
            let terms = parts.iter().map(|part| {
                let numbers = &low[start..start + part.low_len()];
                start += part.low_len();
                LowRankTerm { up: &part.pair.up, low: numbers, stride: part.pair.up.rank() }
            });
            let terms = terms.collect();
            let Part { matrix, rows, .. } = &parts[0];
            jobs.push(LowRankJob { terms, tokens: rows.len(), output: *matrix, place: (rows.start, 0) });
        }
        Ok(add_low_rank(context, outputs, &jobs)?)
    }
}

/// A rectangle of an input that a matrix turns into a rectangle of an output.
#[derive(Debug, Clone)]
pub(crate) struct GroupedPart {
    pub(crate) slot: usize,
    pub(crate) tokens: usize,
    /// First row and column.
    pub(crate) input: (usize, usize),
    /// First row and column.
    pub(crate) output: (usize, usize),
    /// Number of the first row among all rows, as `set_of` counts them.
    pub(crate) row: usize,
}

/// Adds to each part of the output what its rows' adapters change; `set_of` gives the adapters of a row.
pub(crate) fn add_grouped(
    context: &Context,
    (adapted, buffers, low): (&AdaptedRows, &mut InputBuffers, &mut Vec<f32>),
    input: Table<&[f32]>,
    output: Table<&mut [f32]>,
    parts: impl Iterator<Item = GroupedPart>,
    set_of: &dyn Fn(usize) -> Option<usize>,
) -> Result<(), Error> {
    let mut pieces = Vec::new();
    for part in parts {
        let mut first = 0;
        while first < part.tokens {
            let set = set_of(part.row + first);
            let same = (first..part.tokens).take_while(|&token| set_of(part.row + token) == set).count();
            let adapters = set.map_or(&[][..], |set| adapted.adapters(set));
            let pairs = adapters.iter().filter_map(|(adapter, scale)| Some((adapter.pair(part.slot)?, *scale)));
            let pairs: Vec<_> = pairs.collect();
            if !pairs.is_empty() {
                // A single input row serves all rows of the output.
                let from = if input.numbers.len() == input.width { 0 } else { part.input.0 + first };
                let to = (part.output.0 + first, part.output.1);
                pieces.push((pairs, same, (from, part.input.1), to));
            }
            first += same;
        }
    }
    if pieces.is_empty() {
        return Ok(());
    }
    let ranks = |pairs: &[(&Pair, f32)]| pairs.iter().map(|(pair, _)| pair.up.rank()).sum::<usize>();
    let width = pieces.iter().map(|(pairs, ..)| ranks(pairs)).max().unwrap_or(0);
    let rows: usize = pieces.iter().map(|(_, tokens, ..)| tokens).sum();
    let low = sized(low, rows.checked_mul(width), PURPOSE)?;
    let mut jobs = Vec::new();
    let mut row = 0;
    for (pairs, tokens, from, _) in &pieces {
        let mut column = 0;
        for (pair, _) in pairs {
            jobs.push(GroupedJob { weights: &pair.down, tokens: *tokens, input: *from, output: (row, column) });
            column += pair.up.rank();
        }
        row += tokens;
    }
    grouped_matmul(context, input, Table { numbers: &mut *low, width }, buffers, &jobs)?;
    let mut row = 0;
    for (pairs, tokens, ..) in &pieces {
        for numbers in low[row * width..(row + tokens) * width].chunks_exact_mut(width) {
            let mut rest = numbers;
            for (pair, scale) in pairs {
                let (own, others) = rest.split_at_mut(pair.up.rank());
                multiply(own, scale * pair.factor);
                rest = others;
            }
        }
        row += tokens;
    }
    let mut row = 0;
    let mut jobs = Vec::with_capacity(pieces.len());
    for (pairs, tokens, _, to) in &pieces {
        let mut column = 0;
        let terms = pairs.iter().map(|(pair, _)| {
            let term = &low[row * width + column..];
            column += pair.up.rank();
            LowRankTerm { up: &pair.up, low: term, stride: width }
        });
        jobs.push(LowRankJob { terms: terms.collect(), tokens: *tokens, output: 0, place: *to });
        row += tokens;
    }
    Ok(add_low_rank(context, &mut [output], &jobs)?)
}
