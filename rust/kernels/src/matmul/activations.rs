//! Activations for the quantized products: signed bytes with one f32 scale per 32 values, stored in the order in which the
//! kernels read them.
//!
//! Each block is tried at four levels: its largest magnitude becomes 127, 126, 125 or 124, values are rounded to nearest,
//! ties to even, and the level with the smallest squared error is chosen; the scale is then the least-squares fit for those
//! quants. On normally distributed values this leaves 5/6 of the squared error of always using 127 and the plain quotient,
//! at a cost that is negligible next to the product. Two kinds of blocks are special cases: one with a NaN or an infinity
//! gets NaN for its scale, so that every output of that token is NaN; one with no magnitude of at least 2^-100 counts as
//! zeros (the reciprocal of a much smaller magnitude is not a finite f32).

use crate::Error;
use crate::math::{Kernel, LANES, Lanes, MAGIC};
use crate::memory::resize;
use crate::simd::Form;

/// Requirements of a kind of weights beyond quants and scales.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Zero point: subtracted from every weight.
    pub zero: i32,
    /// Sums per 32 columns.
    pub parts: usize,
    /// Whether sums are also needed as pairs of 16 bits; the columns are then a multiple of 256.
    pub pairs: bool,
    /// The form of start values and activations.
    pub form: Form,
}

/// The order of the quants of a block of 32 values of each column, in groups of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Column after column for each group: `[8][column]`.
    Groups,
    /// Two groups of a column side by side: `[4][column][2]`.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "for matrix products of Arm"))]
    PairsOfGroups,
    /// Column after column: `[column][8]`, rows of a tile.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for AMX"))]
    Columns,
}

/// Start values and sums for weights with the same needs.
#[derive(Debug, Default, Clone)]
pub struct Variant<I, F> {
    /// The needs of these weights.
    pub needs: Needs,
    /// `-zero · Σ activation`: `[tile][block][part][column]`; see `Form` for its halves.
    pub starts: I,
    /// `Σ activation · scale`, in the same order.
    pub sums: F,
    /// The same as pairs of 16 bits: `[tile][block · parts / 2][column]`.
    pub pairs: I,
    /// The value of 1 in `pairs`: `[tile][block / 8][column]`.
    pub pair_scales: F,
    /// Activations as pairs of 16 bits, for `Form::Words`: `[tile][block][16][column]`.
    pub words: I,
}

impl<I, F> Variant<I, F> {
    /// The variant for `needs`.
    ///
    /// # Panics
    /// If there is none: any other variant would be wrong and of a different size.
    pub fn of(variants: &[Self], needs: Needs) -> &Self {
        let found = variants.iter().find(|variant| variant.needs == needs);
        found.unwrap_or_else(|| panic!("activations were quantized without {needs:?}"))
    }
}

/// Quantized activations of several tokens.
#[derive(Debug, Default)]
pub struct Activations {
    /// `[tile][block][8][column]`, 4 bytes each (see also `Order`), from the first 64 bytes of their own on.
    pub quants: Vec<i32>,
    /// `[tile][block][column]`.
    pub scales: Vec<f32>,
    /// Everything that depends on the weights' format.
    pub variants: Vec<Variant<Vec<i32>, Vec<f32>>>,
}

/// Quants that may lie in front of the first 64 bytes of their own.
const ALIGNED: usize = 15;

impl Activations {
    /// Makes room for `tokens` × `blocks` blocks of 32; the contents are undefined.
    pub fn resize(&mut self, tokens: usize, blocks: usize, wanted: impl Iterator<Item = Needs>) -> Result<(), Error> {
        const PURPOSE: &str = "activations";
        resize(&mut self.quants, tokens * blocks * 8 + ALIGNED, 0, PURPOSE)?;
        resize(&mut self.scales, tokens * blocks, 0.0, PURPOSE)?;
        let mut used = 0;
        for needs in wanted {
            if self.variants[..used].iter().any(|variant| variant.needs == needs) {
                continue;
            }
            if used == self.variants.len() {
                self.variants.push(Variant::default());
            }
            let variant = &mut self.variants[used];
            variant.needs = needs;
            let sums = tokens * blocks * needs.parts;
            let words = if needs.form == Form::Words { tokens * blocks * 16 } else { 0 };
            resize(&mut variant.starts, sums, 0, PURPOSE)?;
            resize(&mut variant.sums, sums, 0.0, PURPOSE)?;
            resize(&mut variant.pairs, if needs.pairs { sums / 2 } else { 0 }, 0, PURPOSE)?;
            resize(&mut variant.pair_scales, if needs.pairs { tokens * blocks / 8 } else { 0 }, 0.0, PURPOSE)?;
            resize(&mut variant.words, words, 0, PURPOSE)?;
            used += 1;
        }
        self.variants.truncate(used);
        Ok(())
    }
}

/// The quants from their first line of the cache on, so that no row of a tile of AMX crosses from one line to the next.
pub(crate) fn aligned(quants: &mut [i32]) -> &mut [i32] {
    let skipped = quants.as_ptr().align_offset(64).min(ALIGNED).min(quants.len());
    &mut quants[skipped..]
}

/// Mutable parts of one tile.
pub(crate) struct TileParts<'a> {
    /// See `Activations`.
    pub(crate) quants: &'a mut [i32],
    /// See `Activations`.
    pub(crate) scales: &'a mut [f32],
    /// See `Activations`.
    pub(crate) variants: &'a mut [Variant<&'a mut [i32], &'a mut [f32]>],
}

/// Quantizes one tile of `columns` rows of `input`: the first `width` values of every `stride`.
pub(crate) struct QuantizeTile<'a, 'b> {
    pub(crate) input: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) width: usize,
    pub(crate) columns: usize,
    pub(crate) order: Order,
    pub(crate) tile: TileParts<'b>,
}

impl Kernel for QuantizeTile<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { input, stride, width, columns, order, tile } = self;
        for (column, row) in input.chunks(stride.max(1)).take(columns).enumerate() {
            for (number, some) in row[..width].as_chunks::<32>().0.chunks(LANES).enumerate() {
                let blocks = quantize_blocks::<L>(set, some);
                let (first, place) = (number * LANES, (columns, column));
                for (lane, quants) in blocks.quants[..some.len()].iter().enumerate() {
                    let index = first + lane;
                    tile.scales[index * columns + column] = blocks.scales[lane];
                    store_quants(quants, place, order, &mut tile.quants[index * 8 * columns..][..8 * columns]);
                }
                for variant in tile.variants.iter_mut() {
                    store_variant(&blocks, (first, some.len()), place, variant);
                }
            }
        }
        for variant in tile.variants.iter_mut().filter(|variant| variant.needs.pairs) {
            pair_sums(variant, columns);
        }
    }
}

/// Stores the quants of a block of one of `columns` tokens.
#[inline(always)]
fn store_quants(quants: &[u8; 32], (columns, column): (usize, usize), order: Order, to: &mut [i32]) {
    for (group, four) in quants.as_chunks::<4>().0.iter().enumerate() {
        let at = match order {
            Order::Groups => group * columns + column,
            Order::PairsOfGroups => (group / 2 * columns + column) * 2 + group % 2,
            Order::Columns => column * 8 + group,
        };
        to[at] = i32::from_ne_bytes(*four);
    }
}

/// Stores what depends on the weights for the `count` blocks of a token from block `first` on.
#[inline(always)]
fn store_variant(
    blocks: &Blocks,
    (first, count): (usize, usize),
    (columns, column): (usize, usize),
    variant: &mut Variant<&mut [i32], &mut [f32]>,
) {
    let Needs { zero, parts, form, .. } = variant.needs;
    for part in 0..parts {
        let start = (first * parts + part) * columns + column;
        for lane in 0..count {
            let [low, high] = [blocks.sums[0][lane], blocks.sums[1][lane]];
            let sum = if parts == 1 { low + high } else { [low, high][part] };
            let at = start + lane * parts * columns;
            variant.sums[at] = sum * blocks.scales[lane];
            variant.starts[at] = match form {
                Form::Halves => half_starts(&blocks.quants[lane], parts, part, zero),
                _ => -zero * sum as i32,
            };
        }
    }
    if form == Form::Words {
        for (lane, quants) in blocks.quants[..count].iter().enumerate() {
            let to = &mut variant.words[(first + lane) * 16 * columns..][..16 * columns];
            store_words(quants, columns, column, to);
        }
    }
}

/// `-zero · Σ quant` over a part of a block: positions 0 and 1 of every 4 in the low 16 bits, 2 and 3 in the high 16 bits.
#[inline(always)]
fn half_starts(quants: &[u8; 32], parts: usize, part: usize, zero: i32) -> i32 {
    let mut sums = 0_u64;
    for eight in quants[32 / parts * part..][..32 / parts].as_chunks::<8>().0 {
        // 128 is added to every quant; two sum to at most 510, and eight times that fits into 16 bits.
        let bytes = u64::from_le_bytes(*eight) ^ 0x8080_8080_8080_8080;
        sums += (bytes & 0x00ff_00ff_00ff_00ff) + (bytes >> 8 & 0x00ff_00ff_00ff_00ff);
    }
    let both = sums + (sums >> 32);
    let added = 128 * (16 / parts) as i32;
    let (low, high) = ((both & 0xffff) as i32 - added, (both >> 16 & 0xffff) as i32 - added);
    (-zero * low) & 0xffff | (-zero * high) << 16
}

/// Stores the quants of a block in the form `Form::Words`.
#[inline(always)]
fn store_words(quants: &[u8; 32], columns: usize, column: usize, to: &mut [i32]) {
    for (index, eight) in quants.as_chunks::<8>().0.iter().enumerate() {
        let bytes = u64::from_le_bytes(*eight) ^ 0x8080_8080_8080_8080;
        for odd in 0..2 {
            // 0 to 255, minus 128; the top bit of each 16, set in the meantime, stops borrows from crossing.
            let words = bytes >> (8 * odd) & 0x00ff_00ff_00ff_00ff | 0x8000_8000_8000_8000;
            let words = (words - 0x0080_0080_0080_0080) ^ 0x8000_8000_8000_8000;
            to[(4 * index + odd) * columns + column] = words as i32;
            to[(4 * index + 2 + odd) * columns + column] = (words >> 32) as i32;
        }
    }
}

/// Rounds the sums of 256 columns to 16 bits, for each column of the tile.
#[inline(always)]
fn pair_sums(variant: &mut Variant<&mut [i32], &mut [f32]>, columns: usize) {
    let count = 8 * variant.needs.parts;
    let groups = variant.sums.chunks_exact(count * columns).zip(variant.pairs.chunks_exact_mut(count / 2 * columns));
    for ((sums, pairs), scales) in groups.zip(variant.pair_scales.chunks_exact_mut(columns)) {
        for column in 0..columns {
            let largest = sums.iter().skip(column).step_by(columns).fold(0.0_f32, |found, sum| found.max(sum.abs()));
            // A sum that is not finite comes with a NaN scale, so that the result is NaN.
            let finite = sums.iter().skip(column).step_by(columns).all(|sum| sum.is_finite());
            let inverse = if finite && largest >= SMALLEST { 32767.0 / largest } else { 0.0 };
            scales[column] = if finite { largest / 32767.0 } else { f32::NAN };
            for pair in 0..count / 2 {
                let [low, high] = [0, 1].map(|part| {
                    let sum = if finite { sums[(2 * pair + part) * columns + column] } else { 0.0 };
                    (sum * inverse + MAGIC).to_bits() & 0xffff
                });
                pairs[pair * columns + column] = (low | high << 16) as i32;
            }
        }
    }
}

/// Up to sixteen quantized blocks.
pub struct Blocks {
    /// Signed bytes.
    pub quants: [[u8; 32]; LANES],
    /// The value of a quant of 1.
    pub scales: [f32; LANES],
    /// Sums of the first and the last 16 quants; exact integers.
    pub sums: [[f32; LANES]; 2],
}

/// The quants that the largest magnitude of a block may become.
const LEVELS: [f32; 4] = [127.0, 126.0, 125.0, 124.0];

/// 2^-100.
const SMALLEST: f32 = f32::from_bits(27 << 23);

/// Quantizes at most sixteen blocks, each in a lane of its own: then a sum over a block, whose order is that of [`Lanes::sum`],
/// is as many additions of vectors for all of them as it would be of numbers for one.
///
/// No closures: unless they are inlined, they are compiled without the instruction set of the enclosing function, and
/// every operation becomes a call.
#[inline(always)]
pub fn quantize_blocks<L: Lanes>(set: L::Set, blocks: &[[f32; 32]]) -> Blocks {
    let mut values = [L::zero(set); 32];
    for half in 0..2 {
        let mut square = [L::zero(set); LANES];
        for (lane, block) in square.iter_mut().zip(blocks) {
            *lane = L::load(set, &block.as_chunks::<LANES>().0[half]);
        }
        values[half * LANES..][..LANES].copy_from_slice(&L::transpose(square));
    }
    let mut largest = L::zero(set);
    for value in values {
        largest = L::zero(set).sub(value).max(value).max(largest);
    }
    let mut first_error = L::zero(set);
    let mut best = (L::zero(set), L::zero(set), L::zero(set));
    for (index, level) in LEVELS.into_iter().enumerate() {
        let inverse = L::splat(set, level).div(largest);
        let error = tree::<L, Errors>(set, &values, inverse).mul(L::splat(set, 1.0 / (level * level)));
        if index == 0 {
            first_error = error;
            best = (error, inverse, L::splat(set, level));
        } else {
            let inverse = error.select_below(best.0, inverse, best.1);
            let level = error.select_below(best.0, L::splat(set, level), best.2);
            best = (error.select_below(best.0, error, best.0), inverse, level);
        }
    }
    let (_, inverse, level) = best;
    let products = tree::<L, Products>(set, &values, inverse);
    // At least `level²`; an integer below 2^24, so it is exact in any order.
    let squares = tree::<L, Squares>(set, &values, inverse);
    let mut found = Blocks { quants: [[0; 32]; LANES], scales: [0.0; LANES], sums: [[0.0; LANES]; 2] };
    products.div(squares).mul(largest.div(level)).store(&mut found.scales);
    for (half, sums) in values.as_chunks::<LANES>().0.iter().zip(&mut found.sums) {
        let mut sum = L::zero(set);
        for value in half {
            sum = sum.add(rounded(set, value.mul(inverse)));
        }
        sum.store(sums);
    }
    let (largest, first_error, inverse) = (largest.to_array(), first_error.to_array(), inverse.to_array());
    for (lane, block) in blocks.iter().enumerate().take(LANES) {
        // An infinity or a NaN makes the errors NaN; so do magnitudes too small for a reciprocal.
        if !(largest[lane] >= SMALLEST && first_error[lane] >= 0.0) {
            let finite = block.iter().all(|value| value.is_finite());
            found.scales[lane] = if finite { 0.0 } else { f32::NAN };
            (found.sums[0][lane], found.sums[1][lane]) = (0.0, 0.0);
            continue;
        }
        let inverse = L::splat(set, inverse[lane]);
        let halves = block.as_chunks::<LANES>().0.iter().zip(found.quants[lane].as_chunks_mut::<LANES>().0);
        for (values, bytes) in halves {
            L::load(set, values).mul(inverse).add(L::splat(set, MAGIC)).store_low_bytes(bytes);
        }
    }
    found
}

/// The nearest integers.
#[inline(always)]
fn rounded<L: Lanes>(set: L::Set, values: L) -> L {
    values.add(L::splat(set, MAGIC)).sub(L::splat(set, MAGIC))
}

/// A term of a sum over a block: of two of its values, divided by the scale.
trait Term {
    fn of<L: Lanes>(set: L::Set, first: L, second: L) -> L;
}

/// Squared errors of rounding.
struct Errors;
/// Products of values and quants.
struct Products;
/// Squares of quants.
struct Squares;

impl Term for Errors {
    #[inline(always)]
    fn of<L: Lanes>(set: L::Set, first: L, second: L) -> L {
        let (first, second) = (first.sub(rounded(set, first)), second.sub(rounded(set, second)));
        second.fma(second, first.mul(first))
    }
}

impl Term for Products {
    #[inline(always)]
    fn of<L: Lanes>(set: L::Set, first: L, second: L) -> L {
        second.fma(rounded(set, second), first.mul(rounded(set, first)))
    }
}

impl Term for Squares {
    #[inline(always)]
    fn of<L: Lanes>(set: L::Set, first: L, second: L) -> L {
        let (first, second) = (rounded(set, first), rounded(set, second));
        second.fma(second, first.mul(first))
    }
}

/// The sum over each block, in the order of [`Lanes::sum`]: term `i` is that of values `i` and `i + 16`.
#[inline(always)]
fn tree<L: Lanes, T: Term>(set: L::Set, values: &[L; 32], inverse: L) -> L {
    let mut sums = [L::zero(set); 8];
    for (i, sum) in sums.iter_mut().enumerate() {
        let first = T::of(set, values[i].mul(inverse), values[i + 16].mul(inverse));
        let second = T::of(set, values[i + 8].mul(inverse), values[i + 24].mul(inverse));
        *sum = first.add(second);
    }
    for step in [4, 2, 1] {
        for i in 0..step {
            sums[i] = sums[i].add(sums[i + step]);
        }
    }
    sums[0]
}
