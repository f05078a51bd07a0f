//! Activations, norms, the loss and the optimizer.

use super::*;

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
            let (mut inner, mut value) = (gradient.clone(), gradient.clone());
            gated_backward(context, activation, &mut gate, &mut other, &mut inner).unwrap();
            activate_backward(context, activation, &mut plain, &mut value).unwrap();
            [gate, other, plain, inner, value].concat()
        });
        let each = |of: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
            (0..100).map(|i| of(f64::from(x[i]), f64::from(up[i]), f64::from(gradient[i]))).collect()
        };
        close(&found[..100], &each(&|x, up, g| slope(function, x) * up * g), 1e-5);
        close(&found[100..200], &each(&|x, _, g| function(x) * g), 1e-6);
        close(&found[200..300], &each(&|x, _, g| slope(function, x) * g), 1e-5);
        close(&found[300..400], &each(&|x, up, _| function(x) * up), 1e-6);
        close(&found[400..], &each(&|x, _, _| function(x)), 1e-6);
    }
}

#[test]
fn the_exact_unit_and_the_clamped_one() {
    // The normal distribution function and its density at some points.
    let known = [(0.0, 0.5), (0.5, 0.867_495_1), (1.0, 1.083_315_5), (-1.0, -0.083_315_47), (-3.0, -0.011_945_64)];
    let (x, slopes): (Vec<f32>, Vec<f64>) = known.into_iter().unzip();
    let found = everywhere(|context| {
        let mut values = x.clone();
        activate_backward(context, Activation::Gelu, &mut values, &mut [1.0; 5]).unwrap();
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
        let (mut gate, mut other, mut inner) = (x.clone(), up.clone(), vec![1.0; 64]);
        clamped_swiglu_backward(context, &mut gate, &mut other, &mut inner, (1.702, 7.0)).unwrap();
        [gate, other, inner].concat()
    });
    let pairs = || x.iter().zip(&up).map(|(x, up)| (f64::from(*x), f64::from(*up)));
    close(&found[..64], &pairs().map(|(x, up)| slope(|x| function(x, up), x)).collect::<Vec<_>>(), 1e-5);
    close(&found[64..128], &pairs().map(|(x, up)| slope(|up| function(x, up), up)).collect::<Vec<_>>(), 1e-5);
    close(&found[128..], &pairs().map(|(x, up)| function(x, up)).collect::<Vec<_>>(), 1e-6);
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
fn the_gradient_of_cross_entropy_in_bytes_is_the_rounded_one() {
    // Neither whole blocks nor whole panels; the last rows begin inside a panel.
    let (size, rows, first) = (1337, 8, 5);
    let logits: Vec<f32> = numbers(rows * size, 1).iter().map(|x| 6.0 * x).collect();
    let targets = [0, 700, 1336, 127, 128, 5, 6, 1335];
    let weights = matrix_of(Format::F32, size, 40);
    let multiplied = |context: &Context, bytes: &PackedBytes| {
        let mut output = vec![f32::NAN; rows * 40];
        multiply_bytes(context, bytes, &weights, Sum::SET, &mut output).unwrap();
        output
    };
    let whole = everywhere(|context| {
        let (mut logits, mut losses, mut bytes) = (logits.clone(), [0.0; 8], PackedBytes::default());
        cross_entropy(context, &mut logits, &targets, &mut losses, true).unwrap();
        bytes.set(context, View::new(&logits, rows, size).unwrap()).unwrap();
        let mut found = multiplied(context, &bytes);
        found.extend(losses.map(|loss| loss as f32));
        found
    });
    let found = everywhere(|context| {
        let (mut losses, mut bytes) = ([0.0; 8], PackedBytes::default());
        bytes.resize(context, rows, size).unwrap();
        for part in [0..first, first..rows] {
            let logits = &logits[part.start * size..part.end * size];
            let place = (&mut bytes, part.start);
            let (targets, losses) = (&targets[part.clone()], &mut losses[part.clone()]);
            cross_entropy_in_bytes(context, logits, targets, losses, place).unwrap();
        }
        let mut found = multiplied(context, &bytes);
        found.extend(losses.map(|loss| loss as f32));
        found
    });
    // A byte may be rounded the other way; the losses have the same bits.
    let exact: Vec<f64> = whole[..rows * 40].iter().map(|value| f64::from(*value)).collect();
    close(&found[..rows * 40], &exact, 1e-3);
    assert_eq!(found[rows * 40..], whole[rows * 40..]);
    let pool = Pool::new(1).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    let (mut losses, mut bytes) = ([0.0], PackedBytes::default());
    bytes.resize(&context, 1, 4).unwrap();
    assert!(cross_entropy_in_bytes(&context, &[0.0; 4], &[4], &mut losses, (&mut bytes, 0)).is_err());
    assert!(cross_entropy_in_bytes(&context, &[0.0; 4], &[3], &mut losses, (&mut bytes, 1)).is_err());
    assert!(cross_entropy_in_bytes(&context, &[0.0; 3], &[2], &mut losses, (&mut bytes, 0)).is_err());
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
