//! Activations for the quantized products: signed bytes with one f32 scale for 32 values, stored in the order in which the
//! kernels read them.
//!
//! A block's scale is its largest magnitude / 127; quants are `value · (127 / largest magnitude)`, rounded to nearest, ties
//! to even, so -127 to 127. Two kinds of blocks are defined apart: one with a NaN or an infinity gets NaN for its scale, so
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
fn quantize_block(values: &[f32; 32]) -> ([i8; 32], f32) {
    // Magnitudes order like their bits; infinities and NaNs come last.
    let largest = values.iter().fold(0, |found: u32, value| found.max(value.to_bits() & 0x7fff_ffff));
    if largest >= f32::INFINITY.to_bits() {
        return ([0; 32], f32::NAN);
    }
    let largest = f32::from_bits(largest);
    if largest < SMALLEST {
        return ([0; 32], 0.0);
    }
    let inverse = 127.0 / largest;
    let mut quants = [0; 32];
    for (quant, value) in quants.iter_mut().zip(values) {
        // Adding 1.5 · 2^23 leaves the rounded integer in the low bits.
        let rounded = value * inverse + 12_582_912.0;
        *quant = rounded.to_bits() as i8;
    }
    (quants, largest / 127.0)
}

/// 2^-100.
const SMALLEST: f32 = f32::from_bits(27 << 23);
