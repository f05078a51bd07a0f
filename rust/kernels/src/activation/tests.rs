use super::*;
use crate::math::tests::{Random, same};
use crate::threads::Pool;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Runs the function in every instruction set with 1 to 3 threads, checks that the bits are equal, and returns them.
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
        assert!(x.iter().zip(&y).zip(got).all(|((x, y), got)| same(x + y, got)));
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
