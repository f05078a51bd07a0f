//! Every format on every instruction set: equal bits everywhere, and close to exact arithmetic.

use llamacpu_kernels::Error;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::*;
use llamacpu_kernels::threads::Pool;

use crate::emulated;
use crate::matmul::activations::quantize_block;

mod activations;
mod additions;
mod edges;
mod float_pieces;
mod floats;
mod grouped;
mod peak;
mod spans;
mod words;

/// A small random number generator (xorshift64*).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A value from -1 to 1.
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Random blocks with scales of typical magnitudes; all other bits are random.
fn random_rows(format: Format, rows: usize, columns: usize, random: &mut Random) -> Vec<u8> {
    if format.info().block_elements == 1 {
        let values: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
        let mut bytes = vec![0; format.row_bytes(values.len()).unwrap()];
        format.quantize(&values, &mut bytes).unwrap();
        return bytes;
    }
    let mut bytes: Vec<u8> = (0..rows * format.row_bytes(columns).unwrap()).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.info().block_bytes) {
        for at in half_offsets(format) {
            let scale = half::f16::from_f32(random.float() * 0.02);
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if format == Format::IQ1_M {
            // Exponent of a small number in the nibble that holds it.
            block[55] = block[55] & 15 | 0x20;
        }
        if format == Format::MXFP4 {
            block[0] = 118 + block[0] % 8;
        }
        if format == Format::NVFP4 {
            // All scales but those of the largest numbers.
            block[..4].iter_mut().for_each(|scale| *scale %= 40);
        }
    }
    bytes
}

/// Offsets of f16 values in a block.
fn half_offsets(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        Format::TQ1_0 => &[52],
        Format::TQ2_0 => &[64],
        Format::MXFP4 | Format::NVFP4 | Format::IQ1_M => &[],
        _ => &[0],
    }
}

pub(super) fn random_matrix(format: Format, rows: usize, columns: usize, random: &mut Random) -> Matrix {
    Matrix::new(format, rows, columns, Bytes::owned(random_rows(format, rows, columns, random))).unwrap()
}

pub(super) fn product(isa: Isa, threads: usize, weights: &Matrix, input: &[f32], tokens: usize) -> Vec<f32> {
    let pool = Pool::new(threads).unwrap();
    let mut output = vec![f32::NAN; tokens * weights.rows()];
    let mut jobs = [Job { weights, output: &mut output }];
    matmul(&Context::new(isa, &pool), input, tokens, &mut InputBuffers::default(), &mut jobs).unwrap();
    output
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// Activations as rounded for the quantized kernels.
fn rounded_activations(input: &[f32]) -> Vec<f64> {
    let mut rounded = Vec::with_capacity(input.len());
    for block in input.as_chunks::<32>().0 {
        let (quants, scale) = quantize_block(block);
        rounded.extend(quants.map(|quant| f64::from(quant) * f64::from(scale)));
    }
    rounded
}

/// Checks one product against f64 arithmetic on the dequantized weights.
fn check_against_exact(weights: &Matrix, input: &[f32], output: &[f32]) {
    let columns = weights.columns();
    let quantized = weights.format().info().block_elements > 1;
    let inputs: Vec<Vec<f64>> =
        input
            .chunks_exact(columns)
            .map(|input| {
                if quantized {
                    rounded_activations(input)
                } else {
                    input.iter().map(|value| f64::from(*value)).collect()
                }
            })
            .collect();
    let mut row = vec![0.0; columns];
    for r in 0..weights.rows() {
        weights.row(r, &mut row).unwrap();
        let largest = row.iter().fold(0.0_f32, |found, value| found.max(value.abs()));
        for (token, exact) in inputs.iter().enumerate() {
            let expected: f64 = exact.iter().zip(&row).map(|(a, w)| a * f64::from(*w)).sum();
            let size: f64 = exact.iter().map(|a| a.abs() * f64::from(largest)).sum();
            let found = f64::from(output[token * weights.rows() + r]);
            let error = (found - expected).abs();
            // Sums of activations that are multiplied by integer minimums are rounded to 16 bits.
            let tolerance =
                if matches!(weights.format(), Format::Q2_K | Format::Q4_K | Format::Q5_K) { 1e-5 } else { 2e-6 };
            assert!(error <= tolerance * size, "{:?} row {r} token {token}: {found} {expected}", weights.format());
        }
    }
}

/// Column counts to test: one block, an odd number of blocks.
fn widths(format: Format) -> [usize; 2] {
    match format.info().block_elements {
        1 => [7, 83],
        32 => [32, 160],
        64 => [64, 192],
        128 => [128, 384],
        _ => [256, 768],
    }
}

#[test]
fn equal_on_every_instruction_set_and_close_to_exact() {
    let mut random = Random(1);
    for (number, format) in Format::all().iter().enumerate() {
        for (place, columns) in widths(*format).into_iter().enumerate() {
            // Under an emulator 1 token for one width and 20 for the other, in turn.
            let (least, step) = if emulated() { (1 + 19 * ((number + place) % 2), 20) } else { (1, 1) };
            for (rows, tokens) in (least..=20).step_by(step).map(|tokens| (1 + (tokens * 13 + columns) % 53, tokens)) {
                let weights = random_matrix(*format, rows, columns, &mut random);
                let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
                let expected = product(Isa::SCALAR, 1, &weights, &input, tokens);
                check_against_exact(&weights, &input, &expected);
                for isa in &Isa::all()[1..] {
                    let found = product(*isa, 1, &weights, &input, tokens);
                    assert_eq!(bits(&found), bits(&expected), "{format:?} {isa} {rows}×{columns}×{tokens}");
                }
            }
        }
    }
}

#[test]
fn the_largest_sums_fit_into_the_integers_of_every_instruction_set() {
    let mut random = Random(9);
    for (number, format) in Format::all().iter().filter(|format| format.info().block_elements > 1).enumerate() {
        let (rows, columns) = (17, 256);
        // Under an emulator one of the three for each format.
        let (first, step) = if emulated() { (number % 3, 3) } else { (0, 1) };
        for fill in [0x00, 0xff] {
            let mut bytes = random_rows(*format, rows, columns, &mut random);
            for block in bytes.chunks_exact_mut(format.info().block_bytes) {
                // Quants and integer scales become extreme, floats stay the same.
                let floats: &[_] = match format {
                    Format::MXFP4 => &[0],
                    Format::NVFP4 => &[0, 2],
                    Format::IQ1_M => &[48, 50, 52, 54],
                    _ => half_offsets(*format),
                };
                for (at, byte) in block.iter_mut().enumerate() {
                    if !floats.iter().any(|float| (*float..float + 2).contains(&at)) {
                        *byte = fill;
                    }
                }
            }
            let weights = Matrix::new(*format, rows, columns, Bytes::owned(bytes)).unwrap();
            // All have the same magnitude, so all of them become 127 or -127: with one sign, or alternating every two columns.
            for signs in [0_u32, !0, 0xcccc_cccc].into_iter().skip(first).step_by(step) {
                let input: Vec<f32> =
                    (0..20 * columns).map(|at| if signs >> (at % 32) & 1 == 0 { 1.0 } else { -1.0 }).collect();
                // Under an emulator 1 token for one of the two fills and 20 for the other, in turn.
                let (skipped, step) = if emulated() { (3 * ((number + usize::from(fill & 1)) % 2), 4) } else { (0, 1) };
                for tokens in [1, 2, 4, 20].into_iter().skip(skipped).step_by(step) {
                    let input = &input[..tokens * columns];
                    let expected = product(Isa::SCALAR, 1, &weights, input, tokens);
                    check_against_exact(&weights, input, &expected);
                    for isa in &Isa::all()[1..] {
                        let found = product(*isa, 1, &weights, input, tokens);
                        assert_eq!(bits(&found), bits(&expected), "{format:?} {fill} {signs:x} {isa}");
                    }
                }
            }
        }
    }
}

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn the_instructions_of_amx_give_the_same_bits_as_scalar() {
    use crate::tiles::emulation;
    // SAFETY: before it is used, the process has the instructions, or emulates them.
    let Some(amx) = (unsafe { Isa::emulated_amx() }) else { return };
    if Isa::named("amx").is_err() {
        emulation::install();
    }
    let mut random = Random(12);
    for format in Format::all().iter().filter(|format| format.info().block_elements > 1) {
        for (columns, tokens) in [(widths(*format)[1], 12), (widths(*format)[0], 39)] {
            let weights = random_matrix(*format, 53, columns, &mut random);
            let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
            let expected = product(Isa::SCALAR, 1, &weights, &input, tokens);
            for threads in [1, 2] {
                let found = product(amx, threads, &weights, &input, tokens);
                assert_eq!(bits(&found), bits(&expected), "{format:?} {columns} {tokens}");
            }
            assert!(emulation::released());
        }
    }
}

#[test]
fn a_factor_multiplies_results_and_weights() {
    let mut random = Random(11);
    for format in [Format::NVFP4, Format::Q4_K, Format::F16] {
        let (rows, columns) = (19, 256);
        let bytes = random_rows(format, rows, columns, &mut random);
        let plain = Matrix::new(format, rows, columns, Bytes::owned(bytes.clone())).unwrap();
        let scaled = Matrix::new(format, rows, columns, Bytes::owned(bytes)).unwrap().scaled(0.3);
        let (mut expected, mut found) = (vec![0.0; columns], vec![0.0; columns]);
        plain.row(7, &mut expected).unwrap();
        scaled.row(7, &mut found).unwrap();
        assert!(found.iter().zip(&expected).all(|(found, weight)| *found == weight * 0.3), "{format:?}");
        for tokens in [1, 20] {
            let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
            for isa in Isa::all() {
                let expected = product(isa, 1, &plain, &input, tokens);
                let expected: Vec<f32> = expected.iter().map(|value| value * 0.3).collect();
                assert_eq!(bits(&product(isa, 2, &scaled, &input, tokens)), bits(&expected), "{format:?} {isa}");
            }
        }
    }
}

#[test]
fn more_columns_than_a_panel_holds() {
    let mut random = Random(2);
    for format in [
        Format::Q4_0,
        Format::Q4_K,
        Format::Q6_K,
        Format::IQ1_M,
        Format::IQ2_XXS,
        Format::IQ3_S,
        Format::TQ1_0,
        Format::F16,
    ] {
        let (rows, columns, tokens) = (37, 8192 + 768, 9);
        let weights = random_matrix(format, rows, columns, &mut random);
        let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
        for isa in &Isa::all() {
            let together = product(*isa, 1, &weights, &input, tokens);
            for token in 0..tokens {
                let alone = product(*isa, 1, &weights, &input[token * columns..][..columns], 1);
                assert_eq!(bits(&alone), bits(&together[token * rows..][..rows]), "{format:?} {isa}");
            }
        }
    }
}

#[test]
fn equal_for_every_batch_thread_count_and_way_of_packing() {
    let mut random = Random(3);
    for format in Format::all() {
        let (rows, columns, tokens) = (75, 512, 13);
        let bytes = random_rows(*format, rows, columns, &mut random);
        let weights = Matrix::new(*format, rows, columns, Bytes::owned(bytes.clone())).unwrap();
        let unpacked = Matrix::new(*format, rows, columns, Bytes::owned(bytes)).unwrap();
        unpacked.resident(false);
        let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
        let isa = *Isa::available().last().unwrap();
        let expected = product(isa, 1, &weights, &input, tokens);
        for threads in [2, 3] {
            assert_eq!(bits(&product(isa, threads, &weights, &input, tokens)), bits(&expected), "{format:?} {threads}");
        }
        assert_eq!(bits(&product(isa, 2, &unpacked, &input, tokens)), bits(&expected), "{format:?} not resident");
        for part in [1, 2, 4, 8] {
            for first in [0, 5] {
                let found = product(isa, 1, &unpacked, &input[first * columns..][..part * columns], part);
                assert_eq!(bits(&found), bits(&expected[first * rows..][..part * rows]), "{format:?} {first} {part}");
            }
        }
    }
}

#[test]
fn several_jobs_share_the_input() {
    let mut random = Random(4);
    let columns = 512;
    let formats = [Format::Q4_K, Format::Q6_K, Format::Q8_0, Format::F16, Format::Q4_K];
    let matrices: Vec<_> = formats
        .iter()
        .enumerate()
        .map(|(i, format)| random_matrix(*format, 20 + 9 * i, columns, &mut random))
        .collect();
    let pool = Pool::new(2).unwrap();
    for isa in &Isa::all() {
        let mut scratch = InputBuffers::default();
        for tokens in [1, 11, 2] {
            let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
            let mut outputs: Vec<_> = matrices.iter().map(|matrix| vec![f32::NAN; tokens * matrix.rows()]).collect();
            let mut jobs: Vec<_> = matrices
                .iter()
                .zip(&mut outputs)
                .map(|(weights, output)| Job { weights, output: output.as_mut_slice() })
                .collect();
            matmul(&Context::new(*isa, &pool), &input, tokens, &mut scratch, &mut jobs).unwrap();
            for (matrix, output) in matrices.iter().zip(&outputs) {
                assert_eq!(bits(output), bits(&product(*isa, 1, matrix, &input, tokens)), "{:?}", matrix.format());
            }
        }
    }
}
