//! The kernels of training against f64, and their bits on every instruction set and number of threads.

use super::*;
use crate::activation::Activation;
use crate::attention::Visible;
use crate::context::Context;
use crate::cpu::Isa;
use crate::formats::Format;
use crate::mapping::Bytes;
use crate::matmul::Matrix;
use crate::norm::{Norm, NormKind};
use crate::threads::Pool;

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

#[test]
fn products_in_both_directions_with_weights_of_every_format() {
    for format in Format::all() {
        let (rows, columns, tokens) = (37, 512, 14);
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
    for (rows, inner, columns) in [(1, 1, 1), (5, 300, 17), (13, 16, 33), (40, 7, 3), (2, 600, 70)] {
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
    }
}

/// Attention in f64: outputs, of which the sum with `gradient` as weights is differentiated by finite differences.
fn attention_sum(shape: &AttentionShape, [query, key, value]: [&[f64]; 3], gradient: &[f32]) -> f64 {
    let mut sum = 0.0;
    for segment in shape.segments.windows(2) {
        for head in 0..shape.heads {
            let kv = head / (shape.heads / shape.kv_heads);
            for position in 0..segment[1] - segment[0] {
                let token = segment[0] + position;
                let first = match shape.visible {
                    Visible::Window(size) => (position + 1).saturating_sub(size),
                    Visible::Chunk(size) => position / size * size,
                    _ => 0,
                };
                let seen: Vec<usize> = (first..=position).map(|key| segment[0] + key).collect();
                let score = |key_token: &usize| {
                    let q = &query[(token * shape.heads + head) * shape.key_size..][..shape.key_size];
                    let k = &key[(key_token * shape.kv_heads + kv) * shape.key_size..][..shape.key_size];
                    let score = f64::from(shape.scale) * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
                    shape.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                };
                let weights: Vec<f64> = seen.iter().map(|key| score(key).exp()).collect();
                let total = weights.iter().sum::<f64>() + shape.sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
                for (weight, key_token) in weights.iter().zip(&seen) {
                    for element in 0..shape.value_size {
                        let v = value[(key_token * shape.kv_heads + kv) * shape.value_size + element];
                        let g = gradient[(token * shape.heads + head) * shape.value_size + element];
                        sum += weight / total * v * f64::from(g);
                    }
                }
            }
        }
    }
    sum
}

#[test]
fn attention_and_its_gradients_against_finite_differences() {
    let sinks = [0.3, -0.2, 0.1, 0.4];
    let segments = [0, 100, 101, 230];
    for (visible, soft_cap, sinks) in [
        (Visible::Causal, None, None),
        (Visible::Window(40), Some(2.0), None),
        (Visible::Chunk(50), None, Some(&sinks[..])),
    ] {
        let shape = AttentionShape {
            segments: &segments,
            heads: 4,
            kv_heads: 2,
            key_size: 6,
            value_size: 5,
            scale: 0.8,
            soft_cap,
            sinks,
            visible,
        };
        let tokens = 230;
        let (query, key, value) = (numbers(tokens * 24, 1), numbers(tokens * 12, 2), numbers(tokens * 10, 3));
        let gradient = numbers(tokens * 20, 4);
        let all = everywhere(|context| {
            let (mut output, mut logarithms) = (vec![f32::NAN; tokens * 20], vec![f32::NAN; tokens * 4]);
            attention_forward(context, &shape, (&query, &key, &value), &mut output, &mut logarithms).unwrap();
            let mut found = [vec![f32::NAN; tokens * 24], vec![f32::NAN; tokens * 12], vec![f32::NAN; tokens * 10]];
            let [q, k, v] = &mut found;
            let targets = AttentionGradients { query: q, key: k, value: v };
            let known = (&output[..], &logarithms[..], &gradient[..]);
            attention_backward(context, &shape, (&query, &key, &value), known, targets).unwrap();
            [output].into_iter().chain(found).flatten().collect()
        });
        let exact: Vec<Vec<f64>> =
            [&query, &key, &value].iter().map(|values| values.iter().map(|x| f64::from(*x)).collect()).collect();
        let sum: f64 = all[..tokens * 20].iter().zip(&gradient).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum();
        let reference = attention_sum(&shape, [&exact[0], &exact[1], &exact[2]], &gradient);
        assert!((sum - reference).abs() < 1e-4, "{sum} instead of {reference}");
        let starts = [tokens * 20, tokens * 44, tokens * 56];
        for (which, start) in starts.into_iter().enumerate() {
            for index in (0..exact[which].len()).step_by(499) {
                let mut moved = exact.clone();
                let mut at = |distance: f64| {
                    moved[which][index] = exact[which][index] + distance;
                    attention_sum(&shape, [&moved[0], &moved[1], &moved[2]], &gradient)
                };
                let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
                let found = f64::from(all[start + index]);
                assert!((found - slope).abs() < 1e-5, "{which} {index}: {found} instead of {slope}");
            }
        }
    }
}

/// Slopes of a function of f64 by finite differences.
fn slope(function: impl Fn(f64) -> f64, x: f64) -> f64 {
    (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
}

#[test]
fn activations_against_finite_differences() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let functions: [(Activation, &dyn Fn(f64) -> f64); 7] = [
        (Activation::Silu, &|x| x * sigmoid(x)),
        (Activation::GeluTanh, &|x| {
            x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }),
        (Activation::GeluSigmoid, &|x| x * sigmoid(1.702 * x)),
        (Activation::Relu, &|x| x.max(0.0)),
        (Activation::ReluSquared, &|x| x.max(0.0).powi(2)),
        (Activation::Sigmoid, &sigmoid),
        (Activation::Tanh, &f64::tanh),
    ];
    let x: Vec<f32> = numbers(100, 1).iter().map(|x| 5.0 * x).collect();
    let (up, gradient) = (numbers(100, 2), numbers(100, 3));
    for (activation, function) in functions {
        let found = everywhere(|context| {
            let (mut gate, mut other, mut plain) = (x.clone(), up.clone(), x.clone());
            gated_backward(context, activation, &mut gate, &mut other, &gradient).unwrap();
            activate_backward(context, activation, &mut plain, &gradient).unwrap();
            [gate, other, plain].concat()
        });
        let each = |of: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
            (0..100).map(|i| of(f64::from(x[i]), f64::from(up[i]), f64::from(gradient[i]))).collect()
        };
        close(&found[..100], &each(&|x, up, g| slope(function, x) * up * g), 1e-5);
        close(&found[100..200], &each(&|x, _, g| function(x) * g), 1e-6);
        close(&found[200..], &each(&|x, _, g| slope(function, x) * g), 1e-5);
    }
}

#[test]
fn the_exact_unit_and_the_clamped_one() {
    // The normal distribution function and its density at some points.
    let known = [(0.0, 0.5), (0.5, 0.867_495_1), (1.0, 1.083_315_5), (-1.0, -0.083_315_47), (-3.0, -0.011_945_64)];
    let (x, slopes): (Vec<f32>, Vec<f64>) = known.into_iter().unzip();
    let found = everywhere(|context| {
        let mut values = x.clone();
        activate_backward(context, Activation::Gelu, &mut values, &[1.0; 5]).unwrap();
        values
    });
    close(&found, &slopes, 1e-5);
    let function = |x: f64, up: f64| {
        let (x, up) = (x.min(7.0), up.clamp(-7.0, 7.0));
        (up + 1.0) * x / (1.0 + (-1.702 * x).exp())
    };
    let x: Vec<f32> = numbers(64, 1).iter().map(|x| 9.0 * x).collect();
    let up: Vec<f32> = numbers(64, 2).iter().map(|x| 9.0 * x).collect();
    let found = everywhere(|context| {
        let (mut gate, mut other) = (x.clone(), up.clone());
        clamped_swiglu_backward(context, &mut gate, &mut other, &[1.0; 64], (1.702, 7.0)).unwrap();
        [gate, other].concat()
    });
    let pairs = || x.iter().zip(&up).map(|(x, up)| (f64::from(*x), f64::from(*up)));
    close(&found[..64], &pairs().map(|(x, up)| slope(|x| function(x, up), x)).collect::<Vec<_>>(), 1e-5);
    close(&found[64..], &pairs().map(|(x, up)| slope(|up| function(x, up), up)).collect::<Vec<_>>(), 1e-5);
}

#[test]
fn norms_against_finite_differences() {
    let (rows, size) = (4, 21);
    let (x, gradient, weight) = (numbers(rows * size, 1), numbers(rows * size, 2), numbers(2 * size, 3));
    for kind in [NormKind::RootMeanSquare, NormKind::MeanAndVariance] {
        // Two sets of weights, as for heads with their own.
        let norm = Norm { kind, size, weight: Some(&weight), bias: None, epsilon: 1e-3 };
        let found = everywhere(|context| {
            let mut found = gradient.clone();
            norm.backward(context, &x, &mut found).unwrap();
            found
        });
        let sum = |row: usize, x: &[f64]| {
            let mean = if kind == NormKind::MeanAndVariance { x.iter().sum::<f64>() / size as f64 } else { 0.0 };
            let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
            let of = |(index, x): (usize, &f64)| {
                let factor = f64::from(weight[row % 2 * size + index]) * f64::from(gradient[row * size + index]);
                (x - mean) / (square + f64::from(1e-3_f32)).sqrt() * factor
            };
            x.iter().enumerate().map(of).sum::<f64>()
        };
        let exact: Vec<f64> = (0..rows * size)
            .map(|index| {
                let row = index / size;
                let mut moved: Vec<f64> = x[row * size..][..size].iter().map(|x| f64::from(*x)).collect();
                let start = moved[index % size];
                moved[index % size] = start + 1e-5;
                let above = sum(row, &moved);
                moved[index % size] = start - 1e-5;
                (above - sum(row, &moved)) / 2e-5
            })
            .collect();
        close(&found, &exact, 1e-5);
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let size = 1337;
    let logits: Vec<f32> = numbers(3 * size, 1).iter().map(|x| 20.0 * x).collect();
    let targets = [0, 700, 1336];
    let losses = |context: &Context, gradient: bool| {
        let (mut logits, mut losses) = (logits.clone(), [0.0; 3]);
        cross_entropy(context, &mut logits, &targets, &mut losses, gradient).unwrap();
        (logits, losses)
    };
    let found = everywhere(|context| losses(context, true).0);
    let pool = Pool::new(1).unwrap();
    let of = losses(&Context::new(Isa::SCALAR, &pool), false).1;
    for (row, target) in targets.into_iter().enumerate() {
        let x: Vec<f64> = logits[row * size..][..size].iter().map(|x| f64::from(*x)).collect();
        let total: f64 = x.iter().map(|x| x.exp()).sum();
        assert!((of[row] - (total.ln() - x[target as usize])).abs() < 1e-6);
        let exact: Vec<f64> =
            x.iter().enumerate().map(|(at, x)| x.exp() / total - f64::from(at == target as usize)).collect();
        close(&found[row * size..][..size], &exact, 1e-6);
    }
    let context = Context::new(Isa::SCALAR, &pool);
    assert!(cross_entropy(&context, &mut [0.0; 4], &[4], &mut [0.0], true).is_err());
}

#[test]
fn the_optimizer_follows_its_definition() {
    let adam =
        AdamW { gradient_scale: 0.5, betas: (0.9, 0.99), rate: 0.1, correction: 0.3, epsilon: 1e-8, decay: 0.98 };
    let start: Vec<Vec<f32>> = (1..5).map(|seed| numbers(50, seed)).collect();
    let second: Vec<f32> = start[3].iter().map(|x| x.abs()).collect();
    let found = everywhere(|context| {
        let [mut p, mut g, mut m, mut v] = [start[0].clone(), start[1].clone(), start[2].clone(), second.clone()];
        adam.update(context, &mut p, &mut g, (&mut m, &mut v)).unwrap();
        assert!(g.iter().all(|g| *g == 0.0));
        [p, m, v].concat()
    });
    let exact: Vec<[f64; 3]> = (0..50)
        .map(|i| {
            let g = 0.5 * f64::from(start[1][i]);
            let m = 0.9 * f64::from(start[2][i]) + 0.1 * g;
            let v = 0.99 * f64::from(second[i]) + 0.01 * g * g;
            [0.98 * f64::from(start[0][i]) - 0.1 * m / (v.sqrt() / 0.3 + 1e-8), m, v]
        })
        .collect();
    for part in 0..3 {
        close(&found[part * 50..][..50], &exact.iter().map(|all| all[part]).collect::<Vec<_>>(), 1e-6);
    }
    let pool = Pool::new(2).unwrap();
    let norm = euclidean_norm(&Context::new(Isa::SCALAR, &pool), &[3.0, 4.0]).unwrap();
    assert_eq!(norm, 5.0);
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
