//! Activations for the quantized products: signed bytes with one f32 scale for 32 values, stored in the order in which the
//! kernels read them.
//!
//! A block is tried at four sizes: its largest magnitude becomes 127, 126, 125 or 124, values are rounded to nearest, ties to
//! even, and the size with the least squared error is kept; the scale is then the least-squares one for those quants. On
//! normally distributed values that leaves 5/6 of the squared error of always taking 127 and the plain quotient, for work
//! that vanishes beside the product. Two kinds of blocks are defined apart: one with a NaN or an infinity gets NaN for its scale, so
//! that every output of that token is NaN; one with nothing above 2^-100 counts as zeros (the reciprocal of a smaller
//! magnitude is no finite f32).

/// Start values and sums for weights of one zero and number of parts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Variant {
    /// What is subtracted from every weight.
    pub(crate) zero: i32,
    /// Sums in 32 columns.
    pub(crate) parts: usize,
    /// `-zero · Σ activation`: `[tile][block][part][column]`.
    pub(crate) starts: Vec<i32>,
    /// `Σ activation`, in the same order.
    pub(crate) sums: Vec<f32>,
}

/// Quantized activations of several tokens.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    /// `[tile][block][8][column]`, 4 bytes each.
    pub(crate) quants: Vec<i32>,
    /// `[tile][block][column]`.
    pub(crate) scales: Vec<f32>,
    /// Everything that depends on the weights' format.
    pub(crate) variants: Vec<Variant>,
}

impl Activations {
    /// Makes room for `tokens` × `blocks` blocks of 32; the contents are undefined.
    pub(crate) fn resize(&mut self, tokens: usize, blocks: usize, variants: impl Iterator<Item = (i32, usize)>) {
        self.quants.resize(tokens * blocks * 8, 0);
        self.scales.resize(tokens * blocks, 0.0);
        let mut used = 0;
        for (zero, parts) in variants {
            if self.variants[..used].iter().any(|variant| (variant.zero, variant.parts) == (zero, parts)) {
                continue;
            }
            if used == self.variants.len() {
                self.variants.push(Variant::default());
            }
            let variant = &mut self.variants[used];
            (variant.zero, variant.parts) = (zero, parts);
            variant.starts.resize(tokens * blocks * parts, 0);
            variant.sums.resize(tokens * blocks * parts, 0.0);
            used += 1;
        }
        self.variants.truncate(used);
    }

    /// The variant for that zero and number of parts, which was named in `resize`.
    pub(crate) fn variant(&self, zero: i32, parts: usize) -> &Variant {
        let found = self.variants.iter().position(|variant| (variant.zero, variant.parts) == (zero, parts));
        &self.variants[found.unwrap_or_default()]
    }
}

/// Mutable parts of one tile.
pub(crate) struct TileParts<'a> {
    /// See `Activations`.
    pub(crate) quants: &'a mut [i32],
    /// See `Activations`.
    pub(crate) scales: &'a mut [f32],
    /// Zero, parts, starts and sums of each variant.
    pub(crate) variants: &'a mut [(i32, usize, &'a mut [i32], &'a mut [f32])],
}

/// Quantizes one tile of `columns` rows of `input`.
#[inline(always)]
pub(crate) fn quantize_tile(input: &[f32], columns: usize, tile: &mut TileParts) {
    let width = input.len() / columns;
    if width == 0 {
        return;
    }
    for (column, row) in input.chunks_exact(width).enumerate() {
        for (block, values) in row.as_chunks::<32>().0.iter().enumerate() {
            let (quants, scale) = quantize_block(values);
            tile.scales[block * columns + column] = scale;
            for (group, four) in quants.as_chunks::<4>().0.iter().enumerate() {
                tile.quants[(block * 8 + group) * columns + column] = i32::from_ne_bytes(four.map(|quant| quant as u8));
            }
            let halves =
                [0, 16].map(|first| quants[first..first + 16].iter().map(|quant| i32::from(*quant)).sum::<i32>());
            for (zero, parts, starts, sums) in tile.variants.iter_mut() {
                let found = if *parts == 1 { &[halves[0] + halves[1]][..] } else { &halves[..] };
                for (part, sum) in found.iter().enumerate() {
                    let at = (block * *parts + part) * columns + column;
                    starts[at] = -*zero * sum;
                    sums[at] = *sum as f32;
                }
            }
        }
    }
}

/// Quants and scale of 32 values.
#[inline(always)]
pub(super) fn quantize_block(values: &[f32; 32]) -> ([i8; 32], f32) {
    // Magnitudes order like their bits; infinities and NaNs come last.
    let largest = values.iter().fold(0, |found: u32, value| found.max(value.to_bits() & 0x7fff_ffff));
    if largest >= f32::INFINITY.to_bits() {
        return ([0; 32], f32::NAN);
    }
    let largest = f32::from_bits(largest);
    if largest < SMALLEST {
        return ([0; 32], 0.0);
    }
    let mut best = round_block(values, largest, LEVELS[0]);
    for level in &LEVELS[1..] {
        let tried = round_block(values, largest, *level);
        if tried.error < best.error {
            best = tried;
        }
    }
    (best.quants, best.products / best.squares as f32 * (largest / best.level))
}

/// What the largest magnitude of a block may become.
const LEVELS: [f32; 4] = [127.0, 126.0, 125.0, 124.0];

/// A block rounded at one size.
struct Rounded {
    quants: [i8; 32],
    /// What the largest magnitude became.
    level: f32,
    /// Squared error in units of the largest magnitude.
    error: f32,
    /// `Σ value · quant`, values in units of the scale.
    products: f32,
    /// `Σ quant²`, at least `level²`.
    squares: i32,
}

/// Rounds a block; sums are taken in 16 lanes and then pairwise, so that their order is fixed.
#[inline(always)]
fn round_block(values: &[f32; 32], largest: f32, level: f32) -> Rounded {
    let inverse = level / largest;
    let mut quants = [0; 32];
    let mut errors = [0.0; 16];
    let mut products = [0.0; 16];
    let mut squares = 0;
    for half in [0, 16] {
        for lane in 0..16 {
            let value = values[half + lane] * inverse;
            // Adding 1.5 · 2^23 leaves the rounded integer in the low bits.
            let shifted = value + 12_582_912.0;
            let rounded = shifted - 12_582_912.0;
            let quant = shifted.to_bits() as i8;
            let error = value - rounded;
            errors[lane] += error * error;
            products[lane] += value * rounded;
            squares += i32::from(quant) * i32::from(quant);
            quants[half + lane] = quant;
        }
    }
    Rounded { quants, level, error: pairwise(errors) / (level * level), products: pairwise(products), squares }
}

/// The sum of 16 lanes, always in the same order.
#[inline(always)]
fn pairwise(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// 2^-100.
const SMALLEST: f32 = f32::from_bits(27 << 23);

#[cfg(test)]
mod tests {
    use super::{pairwise, quantize_block};

    #[test]
    fn blocks_are_rounded_better_than_by_the_plain_quotient() {
        let mut state = 1_u32;
        let mut better = 0;
        for _ in 0..500 {
            let values: [f32; 32] = std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            });
            let largest = values.iter().fold(0.0_f32, |found, value| found.max(value.abs()));
            let (quants, scale) = quantize_block(&values);
            let error = |back: &dyn Fn(usize) -> f32| -> f64 {
                (0..32).map(|index| f64::from(values[index] - back(index)).powi(2)).sum()
            };
            let chosen = error(&|index| f32::from(quants[index]) * scale);
            let plain = error(&|index| (values[index] / largest * 127.0).round_ties_even() * (largest / 127.0));
            assert!(chosen <= plain * 1.000_01, "{chosen} {plain}");
            better += i32::from(chosen < 0.95 * plain);
        }
        assert!(better > 250, "{better} of 500 blocks are clearly better");
    }

    #[test]
    fn blocks_of_a_single_magnitude_are_exact() {
        for value in [1.0_f32, -3.0e-20, 2.5e30] {
            let (quants, scale) = quantize_block(&[value; 32]);
            assert!((f32::from(quants[7]) * scale / value - 1.0).abs() < 1e-6);
        }
        assert_eq!(pairwise(std::array::from_fn(|lane| lane as f32)), 120.0);
    }

    #[test]
    fn values_that_are_no_numbers_and_blocks_of_nothing_have_scales_of_their_own() {
        let mut values = [1.0; 32];
        values[31] = f32::INFINITY;
        assert!(quantize_block(&values).1.is_nan());
        assert_eq!(quantize_block(&[1.0e-38; 32]), ([0; 32], 0.0));
    }
}
