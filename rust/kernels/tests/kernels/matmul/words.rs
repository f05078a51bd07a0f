//! Comparison with the definition, written out, on every instruction set, and with exact products.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix, word_matmul};
use llamacpu_kernels::threads::Pool;

use crate::emulated;
use crate::matmul::{Random, bits, random_matrix};

fn product(isa: Isa, threads: usize, weights: &Matrix, bias: Option<&[f32]>, input: &[f32]) -> Vec<f32> {
    let pool = Pool::new(threads).unwrap();
    let tokens = input.len() / weights.columns();
    let mut output = vec![f32::NAN; tokens * weights.rows()];
    let mut jobs = [Job { weights, output: &mut output }];
    word_matmul(&Context::new(isa, &pool), input, tokens, &mut InputBuffers::default(), &mut jobs, &[bias]).unwrap();
    output
}

fn rows_of(weights: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; weights.rows() * weights.columns()];
    for (row, values) in values.chunks_exact_mut(weights.columns()).enumerate() {
        weights.row(row, values).unwrap();
    }
    values
}

/// The integers of a row and the scales of its blocks.
fn integers(row: &[f32]) -> (Vec<i64>, Vec<f32>) {
    let (mut all, mut scales) = (Vec::new(), Vec::new());
    for block in row.chunks(64) {
        let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest == 0.0 { 0.0 } else { 5792.0 / largest };
        all.extend(block.iter().map(|value| (f64::from(*value) * f64::from(inverse)).round_ties_even() as i64));
        scales.push(largest / 5792.0);
    }
    (all, scales)
}

fn defined(row: &[f32], token: &[f32]) -> f32 {
    let ((row, row_scales), (token, token_scales)) = (integers(row), integers(token));
    let mut sum = 0.0_f32;
    for (block, (row, token)) in row.chunks(64).zip(token.chunks(64)).enumerate() {
        let exact: i64 = row.iter().zip(token).map(|(a, b)| a * b).sum();
        sum = (i32::try_from(exact).unwrap() as f32).mul_add(row_scales[block] * token_scales[block], sum);
    }
    sum
}

#[test]
fn it_is_the_definition_and_the_same_bits_everywhere() {
    let mut random = Random(5);
    let shapes = [(64, 64, 1), (70, 37, 6), (3, 129, 13), (129, 210, 29)];
    let count = if emulated() { 2 } else { shapes.len() };
    for (rows, columns, tokens) in shapes.into_iter().take(count) {
        for format in [Format::F16, Format::BF16] {
            let weights = random_matrix(format, rows, columns, &mut random);
            let values = rows_of(&weights);
            let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
            let bias: Vec<f32> = (0..rows).map(|_| random.float()).collect();
            let exact = |row: &[f32], token: &[f32]| row.iter().zip(token).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (mut error, mut size) = (0.0, 0.0);
            let mut expected = Vec::new();
            for token in input.chunks_exact(columns) {
                for (row, bias) in values.chunks_exact(columns).zip(&bias) {
                    let product = defined(row, token);
                    error += (f64::from(product) - exact(row, token)).powi(2);
                    size += exact(row, token).powi(2);
                    expected.push(product + bias);
                }
            }
            assert!(error < 1e-7 * size, "{format:?} {rows} × {columns}: {}", error / size);
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let found = product(*isa, threads, &weights, Some(&bias), &input);
                    assert!(bits(&found) == bits(&expected), "{format:?} {} {rows} × {columns} × {tokens}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_batch_is_its_tokens_one_by_one() {
    let mut random = Random(6);
    let weights = random_matrix(Format::F16, 66, 70, &mut random);
    // More tokens than a piece has, so that they are divided.
    let input: Vec<f32> = (0..600 * 70).map(|_| random.float()).collect();
    let Some(isa) = Isa::available().first().copied() else { return };
    let all = product(isa, 2, &weights, None, &input);
    for (token, results) in input.chunks_exact(70).zip(all.chunks_exact(66)).step_by(37) {
        assert_eq!(bits(&product(isa, 1, &weights, None, token)), bits(results));
    }
}

#[test]
fn largest_integers_fit_and_nan_stays() {
    let mut input = vec![3.0; 3 * 130];
    let weights = vec![-2.0; 2 * 130];
    let mut bytes = vec![0; 4 * 130];
    Format::F16.quantize(&weights, &mut bytes).unwrap();
    let weights = Matrix::new(Format::F16, 2, 130, Bytes::owned(bytes)).unwrap();
    input[2 * 130..].fill(0.0);
    for isa in Isa::available() {
        let found = product(*isa, 1, &weights, None, &input);
        assert!(found[..4].iter().all(|value| (value + 780.0).abs() < 1e-3), "{found:?}");
        assert_eq!(found[4..], [0.0, 0.0]);
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut input = input.clone();
            input[130 + 70] = wrong;
            let found = product(*isa, 1, &weights, None, &input);
            assert!(found[2..4].iter().all(|value| value.is_nan()) && !found[0].is_nan() && found[4] == 0.0);
        }
    }
}
