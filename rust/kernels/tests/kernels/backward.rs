//! The kernels of training against f64, and their bits on every instruction set and number of threads.

use llamacpu_kernels::activation::Activation;
use llamacpu_kernels::attention::Visible;
use llamacpu_kernels::backward::*;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::norm::{Norm, NormKind};
use llamacpu_kernels::threads::Pool;

use crate::emulated;

mod attention;
mod elements;
mod logarithm;

/// Numbers without a pattern, from -1 to 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2_147_483_648.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The same result on every instruction set with one and three threads.
fn everywhere(compute: impl Fn(&Context) -> Vec<f32>) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::all() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            let result = compute(&Context::new(isa, &pool));
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let first = first.get_or_insert_with(|| result.clone());
            assert_eq!(bits(first), bits(&result), "{isa} with {threads} threads");
        }
    }
    first.unwrap()
}

/// Checks against f64, relative to the largest value.
fn close(found: &[f32], exact: &[f64], limit: f64) {
    assert_eq!(found.len(), exact.len());
    let largest = exact.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    for (index, (found, exact)) in found.iter().zip(exact).enumerate() {
        assert!((f64::from(*found) - exact).abs() <= limit * largest, "{index}: {found} instead of {exact}");
    }
}

/// `scale · a · b + before` in f64, from functions of row and column.
fn product(
    (rows, inner, columns): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let mut result = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            result.push((0..inner).map(|k| f64::from(a(row, k)) * f64::from(b(k, column))).sum());
        }
    }
    result
}

/// A matrix of numbers without a pattern.
fn matrix_of(format: Format, rows: usize, columns: usize) -> Matrix {
    let mut bytes = vec![0; rows * format.row_bytes(columns).unwrap()];
    format.quantize(&numbers(rows * columns, 3), &mut bytes).unwrap();
    Matrix::new(format, rows, columns, Bytes::owned(bytes)).unwrap()
}

#[test]
fn products_in_both_directions_with_weights_of_every_format() {
    for format in Format::all() {
        let (rows, columns, tokens) = if emulated() { (19, 256, 6) } else { (37, 512, 14) };
        // No exponent of a float is all ones, whatever the format.
        let count = rows * format.row_bytes(columns).unwrap();
        let bytes: Vec<u8> = (0..count).map(|index| ((index * 7919) >> 3) as u8 & 0x3f).collect();
        let mut values = vec![0.0; rows * columns];
        format.dequantize(&bytes, &mut values).unwrap();
        let matrix = Matrix::new(*format, rows, columns, Bytes::owned(bytes)).unwrap();

        let input = numbers(tokens * columns, 5);
        let forward = everywhere(|context| {
            let mut packed = Packed::default();
            packed.set(context, View::new(&input, tokens, columns).unwrap()).unwrap();
            let mut output = vec![f32::NAN; tokens * rows];
            multiply(context, &packed, Right::Rows(&matrix), Sum::SET, &mut output).unwrap();
            output
        });
        let exact = product(
            (tokens, columns, rows),
            |row, k| input[row * columns + k],
            |k, column| values[column * columns + k],
        );
        close(&forward, &exact, 1e-6);

        let gradient = numbers(tokens * rows, 7);
        let back = everywhere(|context| {
            let mut packed = Packed::default();
            packed.set(context, View::new(&gradient, tokens, rows).unwrap()).unwrap();
            let mut output = vec![1.0; tokens * columns];
            multiply(context, &packed, Right::Columns(&matrix), Sum { scale: 0.5, add: true }, &mut output).unwrap();
            output
        });
        let exact = product(
            (tokens, rows, columns),
            |row, k| gradient[row * rows + k],
            |k, column| values[k * columns + column],
        );
        close(&back, &exact.iter().map(|value| 0.5 * value + 1.0).collect::<Vec<_>>(), 1e-6);
    }
}

#[test]
fn products_of_floats_of_any_shape_and_order() {
    for (rows, inner, columns) in [(1, 1, 1), (5, 300, 17), (13, 16, 33), (16, 270, 40), (40, 7, 3), (2, 600, 70)]
        .into_iter()
        .take(if emulated() { 3 } else { 6 })
    {
        let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
        let transposed: Vec<f32> = (0..inner * columns).map(|at| b[at % inner * columns + at / inner]).collect();
        let exact = product((rows, inner, columns), |row, k| a[row * inner + k], |k, column| b[k * columns + column]);
        let straight = View::new(&b, inner, columns).unwrap();
        let turned = View::new(&transposed, columns, inner).unwrap().transposed();
        let mut found = Vec::new();
        for right in [straight, turned] {
            found.push(everywhere(|context| {
                let mut packed = Packed::default();
                packed.set(context, View::new(&a, rows, inner).unwrap()).unwrap();
                let mut output = vec![f32::NAN; rows * columns];
                multiply(context, &packed, Right::Numbers(right), Sum::SET, &mut output).unwrap();
                output
            }));
        }
        assert_eq!(found[0], found[1]);
        close(&found[0], &exact, 1e-6);
        // The same bits from rows where they are, and the other way round.
        found[0] = everywhere(|context| {
            let mut packed = Packed::default();
            packed.set_columns(context, straight.transposed()).unwrap();
            let mut output = vec![f32::NAN; rows * columns];
            multiply_narrow(context, View::new(&a, rows, inner).unwrap(), &packed, Sum::SET, &mut output).unwrap();
            output
        });
        assert_eq!(found[0], found[1]);
        let sum = Sum { scale: 0.5, add: true };
        let turned = [false, true].map(|turned| {
            everywhere(|context| {
                let mut packed = Packed::default();
                packed.set(context, View::new(&a, rows, inner).unwrap()).unwrap();
                let mut output = vec![1.0; rows * columns];
                let product = if turned { multiply_turned } else { multiply };
                product(context, &packed, Right::Numbers(straight), sum, &mut output).unwrap();
                output
            })
        });
        let straight = (0..rows * columns).map(|at| turned[0][at % rows * columns + at / rows]);
        assert_eq!(straight.collect::<Vec<_>>(), turned[1]);
    }
}

#[test]
fn products_in_bytes_are_near_and_the_same_everywhere() {
    // Neither whole blocks of rows nor whole panels of columns.
    let (rows, columns, tokens) = (301, 544, 8);
    let weights = numbers(rows * columns, 3);
    let mut bytes = vec![0; rows * Format::Q8_0.row_bytes(columns).unwrap()];
    Format::Q8_0.quantize(&weights, &mut bytes).unwrap();
    let mut values = vec![0.0; rows * columns];
    Format::Q8_0.dequantize(&bytes, &mut values).unwrap();
    let matrix = Matrix::new(Format::Q8_0, rows, columns, Bytes::owned(bytes)).unwrap();
    let mut gradient = numbers(tokens * rows, 7);
    // A row of zeros.
    gradient[2 * rows..3 * rows].fill(0.0);
    let multiplied = |context: &Context, gradient: &[f32], sum: Sum| {
        let mut packed = PackedBytes::default();
        packed.set(context, View::new(gradient, tokens, rows).unwrap()).unwrap();
        let mut output = vec![1.0; tokens * columns];
        multiply_bytes(context, &packed, &matrix, sum, &mut output).unwrap();
        output
    };
    let found = everywhere(|context| multiplied(context, &gradient, Sum::SET));
    let exact =
        product((tokens, rows, columns), |row, k| gradient[row * rows + k], |k, column| values[k * columns + column]);
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let error = squares(&mut found.iter().zip(&exact).map(|(found, exact)| f64::from(*found) - exact));
    // Two factors, each rounded to 255 steps across the largest of 32.
    assert!((error / squares(&mut exact.iter().copied())).sqrt() < 0.007);
    assert!(found[2 * columns..3 * columns].iter().all(|value| *value == 0.0));
    let added = everywhere(|context| multiplied(context, &gradient, Sum { scale: 2.0, add: true }));
    close(&added, &found.iter().map(|value| 2.0 * f64::from(*value) + 1.0).collect::<Vec<_>>(), 1e-6);
    gradient[40] = f32::NAN;
    gradient[rows + 40] = f32::INFINITY;
    let pool = Pool::new(1).unwrap();
    let broken = multiplied(&Context::new(*Isa::available().last().unwrap(), &pool), &gradient, Sum::SET);
    assert!(broken[..2 * columns].iter().all(|value| value.is_nan()));
    assert_eq!(broken[2 * columns..], found[2 * columns..]);
}
