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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;
    use crate::math::tests::Random;
    use crate::threads::Pool;

    fn run(
        isa: Isa,
        threads: usize,
        heads: usize,
        size: usize,
        term: &RelativeTerm,
        bias: &mut [f32],
    ) -> Result<(), Error> {
        let pool = Pool::new(threads).expect("threads start");
        add_relative_bias(&Context::new(isa, &pool), heads, size, term, bias)
    }

    #[test]
    fn both_terms_are_the_definition() {
        let mut random = Random::new(70);
        for (heads, size, tokens, distances) in [(2, 16, 1, 4), (3, 17, 9, 12), (2, 64, 100, 40), (1, 1, 5, 1)] {
            let (rows, table) = (random.units(tokens * heads * size), random.units(distances * heads * size));
            let buckets: Vec<usize> = (0..2 * tokens - 1).map(|_| random.below(distances)).collect();
            let start = random.units(heads * tokens * tokens);
            for of_keys in [false, true] {
                let term = RelativeTerm { rows: &rows, of_keys, table: &table, buckets: &buckets, scale: 0.4 };
                let mut expected: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let mut bias = start.clone();
                        run(*isa, threads, heads, size, &term, &mut bias).expect("fitting shapes");
                        assert_eq!(expected.get_or_insert_with(|| bias.clone()), &bias, "{isa} {threads}");
                    }
                }
                for (place, got) in expected.expect("at least the scalar set").iter().enumerate() {
                    let (head, query, key) = (place / tokens / tokens, place / tokens % tokens, place % tokens);
                    let row = &rows[(if of_keys { key } else { query } * heads + head) * size..][..size];
                    let distance = &table[(buckets[query + tokens - 1 - key] * heads + head) * size..][..size];
                    let product: f64 = row.iter().zip(distance).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    let exact = f64::from(start[place]) + 0.4 * product;
                    assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} {exact}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (rows, table, buckets) = ([0.0; 24], [0.0; 40], [4; 5]);
        let term = RelativeTerm { rows: &rows, of_keys: false, table: &table, buckets: &buckets, scale: 1.0 };
        run(Isa::SCALAR, 1, 2, 4, &term, &mut [0.0; 18]).expect("three tokens, five distances");
        let wrong = |term: RelativeTerm, heads, count| {
            let result = run(Isa::SCALAR, 1, heads, 4, &term, &mut vec![0.0; count]);
            assert!(matches!(result, Err(Error::Shape(_))));
        };
        wrong(term, 2, 17);
        wrong(term, 0, 18);
        wrong(term, usize::MAX, 18);
        wrong(RelativeTerm { rows: &rows[1..], ..term }, 2, 18);
        wrong(RelativeTerm { table: &table[1..], ..term }, 2, 18);
        wrong(RelativeTerm { buckets: &buckets[1..], ..term }, 2, 18);
        wrong(RelativeTerm { buckets: &[0, 1, 2, 3, 5], ..term }, 2, 18);
        let nothing = RelativeTerm { rows: &[], of_keys: true, table: &table, buckets: &[], scale: 1.0 };
        run(Isa::SCALAR, 1, 2, 4, &nothing, &mut []).expect("no tokens are fine");
    }
}
