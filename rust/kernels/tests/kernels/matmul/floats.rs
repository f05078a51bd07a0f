//! Comparison of every kernel with the order of sums that the head of `floats` defines, written out.

use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::Matrix;

use crate::matmul::{Random, bits, product};

/// Plain weights, as a matrix of the format's bytes and as f32 values.
fn weights(format: Format, rows: usize, columns: usize, values: &[f32]) -> (Matrix, Vec<f32>) {
    let mut bytes = vec![0; format.row_bytes(values.len()).unwrap()];
    format.quantize(values, &mut bytes).unwrap();
    let matrix = Matrix::new(format, rows, columns, Bytes::owned(bytes)).unwrap();
    let mut exact = vec![0.0; rows * columns];
    for (row, exact) in exact.chunks_exact_mut(columns).enumerate() {
        matrix.row(row, exact).unwrap();
    }
    (matrix, exact)
}

/// One product, in the defined order.
fn defined(row: &[f32], token: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    for (k, (weight, activation)) in row.iter().zip(token).enumerate() {
        sums[k % 16] = weight.mul_add(*activation, sums[k % 16]);
    }
    for distance in [8, 4, 2, 1] {
        for i in 0..distance {
            sums[i] += sums[i + distance];
        }
    }
    sums[0]
}

fn check(format: Format, (rows, columns): (usize, usize), values: &[f32], input: &[f32], batches: &[usize]) {
    let (matrix, exact) = weights(format, rows, columns, values);
    let expected: Vec<f32> = input
        .chunks_exact(columns)
        .flat_map(|token| exact.chunks_exact(columns).map(|row| defined(row, token)).collect::<Vec<_>>())
        .collect();
    for isa in Isa::available() {
        for tokens in batches {
            let found = product(*isa, 2, &matrix, &input[..tokens * columns], *tokens);
            assert!(
                bits(&found) == bits(&expected[..tokens * rows]),
                "{format:?} {} {rows} × {columns} × {tokens}",
                isa.name()
            );
        }
    }
}

#[test]
fn every_kernel_keeps_the_defined_order() {
    let mut random = Random(11);
    // Whole and partial panels, columns that do not fill a vector, fewer columns than partial sums.
    for (rows, columns) in [(64, 64), (131, 37), (70, 500), (33, 15), (3, 129)] {
        let values: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
        let input: Vec<f32> = (0..53 * columns).map(|_| random.float()).collect();
        for format in [Format::F32, Format::F16, Format::BF16] {
            check(format, (rows, columns), &values, &input, &[1, 2, 3, 6, 8, 9, 13, 17, 19, 53]);
        }
    }
}

#[test]
fn long_rows_are_done_in_parts_or_straight_from_the_file() {
    let mut random = Random(12);
    for (rows, columns, tokens) in [(33, 4097, 49), (33, 8200, 49), (33, 65_537, 17)] {
        let values: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
        let input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
        check(Format::BF16, (rows, columns), &values, &input, &[tokens]);
    }
}

#[test]
fn values_that_are_not_finite_follow_ieee_arithmetic_and_spoil_only_their_row_and_token() {
    let mut random = Random(13);
    let (rows, columns, tokens) = (75, 83, 50);
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values: Vec<f32> = (0..rows * columns).map(|_| random.float()).collect();
        let mut input: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
        (values[30 * columns + 7], values[72 * columns + 82]) = (wrong, wrong);
        (input[5 * columns + 7], input[16 * columns + 81], input[2 * columns + 40]) = (wrong, wrong, 0.0);
        // Infinity times zero.
        values[11 * columns + 40] = f32::INFINITY;
        for format in [Format::F32, Format::F16, Format::BF16] {
            check(format, (rows, columns), &values, &input, &[6, tokens]);
        }
    }
}
