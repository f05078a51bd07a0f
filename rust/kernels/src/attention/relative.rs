//! Attention biases from relative positions (P. He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", 2020):
//! products of queries with embeddings of distances, and of keys with another set of such embeddings.

use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::memory::grow;
use crate::shared::Pieces;

/// One of the two terms of the bias, for a sequence of `n` tokens.
#[derive(Debug, Clone, Copy)]
pub struct RelativeTerm<'a> {
    /// `n × heads × size` elements: queries (content to position) or keys (position to content).
    pub rows: &'a [f32],
    /// Whether `rows` are keys.
    pub of_keys: bool,
    /// Embeddings of distances: `distances × heads × size` elements.
    pub table: &'a [f32],
    /// The row of the table for every difference of positions, query minus key, from `1 - n` to `n - 1`.
    pub buckets: &'a [usize],
    /// Factor of the products.
    pub scale: f32,
}

/// Adds a term to `bias[h][i][j]`, `heads × n × n` elements for queries `i` and keys `j`: `scale * rows[i][h] · table[b][h]`, or
/// `scale * rows[j][h] · table[b][h]` if the rows are keys, where `b = buckets[i - j + n - 1]`. A product is a sequence of fused
/// multiply-adds in the order of its elements.
///
/// # Errors
/// `Error::Shape` if sizes do not match or a bucket is not a row of the table; `Error::Cancelled` if the context was interrupted;
/// `Error::Memory` if memory is short.
pub fn add_relative_bias(
    context: &Context,
    heads: usize,
    size: usize,
    term: &RelativeTerm,
    bias: &mut [f32],
) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Shape(format!("relative positions: {what}")));
    let row = heads.saturating_mul(size);
    if row == 0 || !term.rows.len().is_multiple_of(row) || !term.table.len().is_multiple_of(row) {
        return wrong(format!(
            "{} numbers of tokens and {} of distances; expected rows of {heads} heads × {size} numbers",
            term.rows.len(),
            term.table.len()
        ));
    }
    let (tokens, distances) = (term.rows.len() / row, term.table.len() / row);
    let expected = tokens.checked_mul(tokens).and_then(|square| square.checked_mul(heads));
    if Some(bias.len()) != expected || term.buckets.len() != (2 * tokens).saturating_sub(1) {
        return wrong(format!(
            "a bias of {} numbers and {} buckets for {tokens} tokens; expected heads × tokens × tokens, and one bucket for each \
             difference",
            bias.len(),
            term.buckets.len()
        ));
    }
    if let Some(bucket) = term.buckets.iter().find(|bucket| **bucket >= distances) {
        return wrong(format!("bucket {bucket}; expected one below the {distances} of the table"));
    }
    let Some(first) = term.buckets.iter().min().copied() else { return Ok(()) };
    let count = term.buckets.iter().max().map_or(0, |last| last + 1 - first);
    // For each head: the required distances as columns, then the products of a row.
    let width = count.next_multiple_of(LANES);
    let own = width.checked_mul(size + 1);
    let mut scratch = Vec::new();
    let all = own.and_then(|own| own.checked_mul(heads)).unwrap_or(usize::MAX);
    grow(&mut scratch, all, 0.0, "relative positions")?;
    let scratch = Pieces::new(&mut scratch, own.unwrap_or(usize::MAX));
    let pieces = Pieces::new(bias, tokens * tokens);
    context.for_each(heads, &|head| {
        // SAFETY: `Context::for_each` hands every head out once, so that no other thread holds its parts.
        let (bias, scratch) = unsafe { (pieces.get(head), scratch.get(head)) };
        let (columns, products) = scratch.split_at_mut(width * size);
        let shape = Shape { heads, size, head, first, count, width };
        dispatch(context.isa, Head { term, shape, columns, products, bias });
    })
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    size: usize,
    head: usize,
    /// The first row of the table that is needed, and the number of rows.
    first: usize,
    count: usize,
    width: usize,
}

struct Head<'a> {
    term: &'a RelativeTerm<'a>,
    shape: Shape,
    /// `size × width`
    columns: &'a mut [f32],
    /// `width`
    products: &'a mut [f32],
    /// `n × n`
    bias: &'a mut [f32],
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { term, shape, columns, products, bias } = self;
        let Shape { heads, size, head, first, count, width } = shape;
        for distance in 0..count {
            let from = &term.table[((first + distance) * heads + head) * size..][..size];
            for (column, number) in columns[distance..].iter_mut().step_by(width).zip(from) {
                *column = *number;
            }
        }
        let rows = term.rows.chunks_exact(heads * size).map(|row| &row[head * size..][..size]);
        let tokens = rows.len();
        for (token, row) in rows.enumerate() {
            multiply::<L>(set, row, columns, products);
            let product = |place: usize| products[term.buckets[place] - first] * term.scale;
            if term.of_keys {
                for (query, to) in bias[token..].iter_mut().step_by(tokens).enumerate() {
                    *to += product(query + tokens - 1 - token);
                }
            } else {
                for (key, to) in bias[token * tokens..][..tokens].iter_mut().enumerate() {
                    *to += product(token + tokens - 1 - key);
                }
            }
        }
    }
}

/// Computes the products of a row with all columns; columns are lanes.
#[inline(always)]
fn multiply<L: Lanes>(set: L::Set, row: &[f32], columns: &[f32], products: &mut [f32]) {
    let vectors = products.len() / LANES;
    let (columns, _) = columns.as_chunks::<LANES>();
    let (products, _) = products.as_chunks_mut::<LANES>();
    // Several at once, because each sum has to wait for its previous addition.
    for first in (0..vectors).step_by(4) {
        let mut sums = [L::zero(set); 4];
        let count = (vectors - first).min(4);
        for (number, x) in row.iter().enumerate() {
            let x = L::splat(set, *x);
            let line = &columns[number * vectors + first..][..count];
            for (sum, column) in sums.iter_mut().zip(line) {
                *sum = x.fma(L::load(set, column), *sum);
            }
        }
        for (sum, to) in sums.iter().zip(&mut products[first..]) {
            sum.store(to);
        }
    }
}
