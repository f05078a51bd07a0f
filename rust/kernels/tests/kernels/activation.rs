use llamacpu_kernels::Error;
use llamacpu_kernels::activation::*;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::threads::Pool;

use crate::random::{Random, same};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Runs the function on every instruction set with 1 to 3 threads, checks that the bits are equal, and returns them.
fn everywhere(x: &[f32], function: impl Fn(&Context, &mut [f32])) -> Vec<f32> {
    let mut results: Vec<Vec<f32>> = Vec::new();
    for isa in Isa::available() {
        for threads in 1..=3 {
            let pool = Pool::new(threads).expect("threads start");
            let mut x = x.to_vec();
            function(&Context::new(*isa, &pool), &mut x);
            results.push(x);
        }
    }
    assert!(results.iter().all(|result| bits(result) == bits(&results[0])));
    results.swap_remove(0)
}

#[test]
fn swiglu_and_add_are_the_formulas() {
    let mut random = Random::new(20);
    for count in [0, 1, 15, 16, 33, 1000, 50_001] {
        let x: Vec<f32> = random.units(count).iter().map(|x| x * 30.0).collect();
        let y = random.units(count);
        let got = everywhere(&x, |context, x| swiglu(context, x, &y).expect("equal lengths"));
        for ((x, y), got) in x.iter().zip(&y).zip(got) {
            let exact = f64::from(*x) / (1.0 + f64::from(-*x).exp()) * f64::from(*y);
            assert!((f64::from(got) - exact).abs() <= 4e-7 * exact.abs(), "{x} {y}: {got}, expected {exact}");
        }
        let got = everywhere(&x, |context, x| add(context, x, &y).expect("equal lengths"));
        assert!(x.iter().zip(&y).zip(&got).all(|((x, y), got)| same(x + y, *got)));
        let sum = everywhere(&x, |context, z| add_into(context, (&x, &y), z).expect("equal lengths"));
        assert_eq!(bits(&sum), bits(&got));
        let mut product = x.clone();
        let pool = Pool::new(1).expect("threads start");
        swiglu(&Context::new(Isa::SCALAR, &pool), &mut product, &y).expect("equal lengths");
        let got =
            everywhere(&x, |context, z| gated_into(context, Activation::Silu, (&x, &y), z).expect("equal lengths"));
        assert_eq!(bits(&got), bits(&product));
        let got = everywhere(&x, |context, x| scale(context, x, 0.3).expect("not cancelled"));
        assert!(x.iter().zip(got).all(|(x, got)| same(x * 0.3, got)));
    }
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -200.0, 200.0, -0.0, 1e30, -1e30];
    let got = everywhere(&special, |context, x| swiglu(context, x, &[1.0; 8]).expect("equal lengths"));
    assert!(got[0].is_nan() && got[2].is_nan());
    assert_eq!(got[1], f32::INFINITY);
    assert_eq!(got[3..], [0.0, 200.0, 0.0, 1e30, 0.0]);
}

#[test]
fn different_lengths_are_errors() {
    let pool = Pool::new(1).expect("threads start");
    let context = Context::new(Isa::SCALAR, &pool);
    assert!(matches!(swiglu(&context, &mut [1.0; 3], &[1.0; 4]), Err(Error::Shape(_))));
    assert!(matches!(add(&context, &mut [1.0; 3], &[1.0; 2]), Err(Error::Shape(_))));
}

#[test]
fn softmax_is_the_formula() {
    let mut random = Random::new(21);
    for count in [1, 2, 15, 16, 17, 64, 1000, 32_003] {
        for scale in [0.1, 10.0, 1000.0] {
            let x: Vec<f32> = random.units(count).iter().map(|x| x * scale - 3.0 * scale).collect();
            let got = everywhere(&x, |context, x| softmax(context.isa, x));
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exps: Vec<f64> = x.iter().map(|x| f64::from(x - largest).exp()).collect();
            let sum: f64 = exps.iter().sum();
            for (exact, got) in exps.iter().zip(&got) {
                let exact = exact / sum;
                assert!((f64::from(*got) - exact).abs() <= 3e-6 * exact + 1e-37, "{got} {exact}");
            }
            assert!((got.iter().map(|x| f64::from(*x)).sum::<f64>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn softmax_of_unusual_rows_is_defined() {
    assert!(everywhere(&[], |context, x| softmax(context.isa, x)).is_empty());
    let masked = everywhere(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], |context, x| softmax(context.isa, x));
    assert_eq!(masked, [0.0, 1.0, 0.0]);
    for row in [[f32::NEG_INFINITY; 20], [f32::INFINITY; 20]] {
        assert!(everywhere(&row, |context, x| softmax(context.isa, x)).iter().all(|x| x.is_nan()));
    }
    for place in [0, 7, 15, 16, 19] {
        let mut row = [1.0; 20];
        row[place] = f32::NAN;
        assert!(everywhere(&row, |context, x| softmax(context.isa, x)).iter().all(|x| x.is_nan()));
    }
}

/// The complementary error function in f64, with a relative error below 1e-10: its series for small x, its continued fraction
/// for larger x.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..200).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / fraction * std::f64::consts::FRAC_2_SQRT_PI / 2.0
}

const ALL: [Activation; 8] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::GeluSigmoid,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::Sigmoid,
    Activation::Tanh,
];

fn exact(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * erfc(-x / std::f64::consts::SQRT_2),
        Activation::GeluTanh => x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))),
        Activation::GeluSigmoid => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

/// The error in units in the last place of the expected value.
fn units_off(got: f32, expected: f64) -> f64 {
    let nearest = expected as f32;
    let unit = f64::from(f32::from_bits(nearest.abs().to_bits() + 1)) - f64::from(nearest.abs());
    (f64::from(got) - expected).abs() / unit
}

#[test]
fn activations_are_the_formulas() {
    let mut random = Random::new(22);
    for activation in ALL {
        for scale in [1e-6, 0.01, 1.0, 4.0, 12.0, 100.0] {
            let x: Vec<f32> = random.units(20_001).iter().map(|x| x * scale).collect();
            let got = everywhere(&x, |context, x| activate(context, activation, x).expect("not cancelled"));
            for (x, got) in x.iter().zip(&got) {
                let expected = exact(activation, f64::from(*x));
                // The rounding error of the argument of exp is amplified by the magnitude of the argument.
                let most = match activation {
                    Activation::Relu | Activation::ReluSquared => 0.5,
                    Activation::Tanh | Activation::Sigmoid | Activation::Silu => 3.0,
                    Activation::Gelu => 6.0,
                    Activation::GeluTanh | Activation::GeluSigmoid => {
                        4.0 + if *x < 0.0 { 4.0 * f64::from(x.abs().max(x.abs().powi(3) / 10.0)) } else { 0.0 }
                    }
                };
                let off = units_off(*got, expected);
                // Results of exp that would be subnormal are 0.
                let tiny = expected.abs() < 1.2e-38 * f64::from(x.abs().max(1.0));
                assert!(off <= most || tiny, "{activation:?}({x}): {got}, expected {expected}: {off}");
            }
            let y = random.units(x.len());
            let gates = everywhere(&x, |context, x| gated(context, activation, x, &y).expect("equal lengths"));
            assert!(gates.iter().zip(&got).zip(&y).all(|((gate, x), y)| same(*gate, x * y)), "{activation:?}");
        }
    }
}

#[test]
fn activations_of_unusual_numbers_are_defined() {
    let special = [f32::NAN, f32::INFINITY, 3e38, -3e38, 0.0];
    for activation in ALL {
        let got = everywhere(&special, |context, x| activate(context, activation, x).expect("not cancelled"));
        let bounded = matches!(activation, Activation::Sigmoid | Activation::Tanh);
        assert!(got[0].is_nan(), "{activation:?}");
        assert_eq!(got[1], if bounded { 1.0 } else { f32::INFINITY }, "{activation:?}");
        assert_eq!(got[3], if activation == Activation::Tanh { -1.0 } else { 0.0 }, "{activation:?}");
        assert_eq!(got[4], if activation == Activation::Sigmoid { 0.5 } else { 0.0 }, "{activation:?}");
    }
}

#[test]
fn clamped_swiglu_and_soft_caps_are_the_formulas() {
    let mut random = Random::new(23);
    for count in [0, 1, 17, 20_001] {
        let x: Vec<f32> = random.units(count).iter().map(|x| x * 20.0).collect();
        let y: Vec<f32> = random.units(count).iter().map(|x| x * 20.0).collect();
        let got = everywhere(&x, |context, x| clamped_swiglu(context, x, &y, 1.702, 7.0).expect("equal lengths"));
        for ((x, y), got) in x.iter().zip(&y).zip(got) {
            let (gate, up) = (f64::from(x.min(7.0)), f64::from(y.clamp(-7.0, 7.0)));
            let expected = gate / (1.0 + (-1.702f32 as f64 * gate).exp()) * (up + 1.0);
            assert!((f64::from(got) - expected).abs() <= 3e-6 * expected.abs() + 1e-6 * gate.abs(), "{x} {y}: {got}");
        }
        let got = everywhere(&x, |context, x| limited_swiglu(context, x, &y, 7.0).expect("equal lengths"));
        for ((x, y), got) in x.iter().zip(&y).zip(got) {
            let (gate, up) = (f64::from(x.min(7.0)), f64::from(y.clamp(-7.0, 7.0)));
            let expected = gate / (1.0 + (-gate).exp()) * up;
            assert!((f64::from(got) - expected).abs() <= 4e-7 * expected.abs(), "{x} {y}: {got}, expected {expected}");
        }
        for cap in [0.5, 30.0] {
            let got = everywhere(&x, |context, x| soft_cap(context, x, cap).expect("not cancelled"));
            for (x, got) in x.iter().zip(got) {
                let expected = f64::from(cap) * (f64::from(*x) / f64::from(cap)).tanh();
                assert!(units_off(got, expected) <= 5.0, "{x}: {got}, expected {expected}");
            }
        }
    }
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
    let got = everywhere(&special, |context, x| clamped_swiglu(context, x, &[1.0; 4], 1.702, 7.0).expect("as many"));
    assert!(got[0].is_nan() && got[2].is_nan() && (got[1] - 14.0).abs() < 1e-3, "{got:?}");
    let ups = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
    let got = everywhere(&[1.0; 4], |context, x| clamped_swiglu(context, x, &ups, 1.702, 7.0).expect("as many"));
    assert!(got[0].is_nan() && got[1] > 6.0 && got[2] < -5.0, "{got:?}");
    let got = everywhere(&special, |context, x| soft_cap(context, x, 30.0).expect("not cancelled"));
    assert!(got[0].is_nan() && got[1..3] == [30.0, -30.0], "{got:?}");
}

#[test]
fn roots_of_softplus_are_the_formula() {
    let mut x: Vec<f32> = Random::new(25).units(20_001).iter().map(|x| x * 90.0).collect();
    x.extend([0.0, -12.0, -12.000_001, 40.0, 40.000_004, 3e38]);
    let got = everywhere(&x, |context, x| sqrt_softplus(context.isa, x).expect("little memory"));
    for (x, got) in x.iter().zip(got) {
        let x = f64::from(*x);
        let expected = (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt();
        assert!((f64::from(got) - expected).abs() <= 1.3e-7 * expected, "{x}: {got}, expected {expected}");
    }
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let got = everywhere(&special, |context, x| sqrt_softplus(context.isa, x).expect("little memory"));
    assert!(got[0].is_nan() && got[1] == f32::INFINITY && got[2] == 0.0, "{got:?}");
}

#[test]
fn rows_are_scaled_by_their_factors() {
    let mut random = Random::new(24);
    for (rows, size) in [(1, 1), (3, 20_000), (700, 33), (5, 0), (0, 0)] {
        let (x, factors) = (random.units(rows * size), random.units(rows));
        let got = everywhere(&x, |context, x| scale_rows(context, x, &factors).expect("fitting shapes"));
        assert!((0..x.len()).all(|index| same(got[index], x[index] * factors[index / size])));
    }
    let pool = Pool::new(1).expect("threads start");
    let context = Context::new(Isa::SCALAR, &pool);
    assert!(matches!(scale_rows(&context, &mut [1.0; 3], &[1.0; 2]), Err(Error::Shape(_))));
    assert!(matches!(scale_rows(&context, &mut [1.0; 3], &[]), Err(Error::Shape(_))));
    assert!(matches!(gated(&context, Activation::Relu, &mut [1.0; 3], &[1.0; 2]), Err(Error::Shape(_))));
    assert!(matches!(clamped_swiglu(&context, &mut [1.0; 3], &[1.0; 2], 1.0, 1.0), Err(Error::Shape(_))));
}
