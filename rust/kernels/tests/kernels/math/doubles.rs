use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::sampling::doubles::{exp, ln};

use crate::random::Random;

const SPECIAL: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    f64::MIN_POSITIVE,
    5e-324,
    f64::MAX,
    709.0,
    710.0,
    -707.0,
    -708.0,
];

fn numbers(random: &mut Random, count: usize) -> Vec<f64> {
    let mut numbers: Vec<f64> = SPECIAL.to_vec();
    for round in 0..count {
        let exponent = f64::from(random.unit()) * [1.0, 9.5, 300.0][round % 3];
        let size = if round % 2 == 0 { exponent.exp2() } else { exponent };
        numbers.push(if round % 4 < 2 { size } else { -size } + f64::from(random.unit()) * 1e-9);
    }
    numbers
}

/// The distance of `found` from `exact`, in units in the last place.
pub(super) fn units(found: f64, exact: f64) -> f64 {
    let unit = exact.abs().next_up() - exact.abs();
    (found - exact).abs() / unit
}

#[test]
fn exponentials_are_exact_to_two_units() {
    let numbers = numbers(&mut Random::new(60), 200_000);
    let mut found = numbers.clone();
    exp(Isa::SCALAR, &mut found);
    for (x, y) in numbers.iter().zip(&found) {
        match *x {
            x if x.is_nan() => assert!(y.is_nan()),
            x if x < -707.0 => assert_eq!(*y, 0.0, "{x}"),
            x if x > 709.0 => assert_eq!(*y, f64::INFINITY, "{x}"),
            x => assert!(units(*y, x.exp()) <= 2.0, "exp({x:e}) = {y:e}, expected {:e}", x.exp()),
        }
    }
}

#[test]
fn logarithms_are_exact_to_two_units() {
    let numbers = numbers(&mut Random::new(61), 200_000);
    let mut found = numbers.clone();
    ln(Isa::SCALAR, &mut found);
    for (x, y) in numbers.iter().zip(&found) {
        match *x {
            x if x.is_nan() || x < 0.0 => assert!(y.is_nan(), "ln({x:e}) = {y:e}"),
            x if x == 0.0 || x == f64::INFINITY => assert_eq!(*y, x.ln()),
            1.0 => assert_eq!(*y, 0.0),
            x => assert!(units(*y, x.ln()) <= 2.0, "ln({x:e}) = {y:e}, expected {:e}", x.ln()),
        }
    }
}

#[test]
fn every_instruction_set_returns_the_same_bits() {
    let numbers = numbers(&mut Random::new(62), 10_000);
    for function in [exp, ln] {
        let mut expected = numbers.clone();
        function(Isa::SCALAR, &mut expected);
        for isa in Isa::available() {
            // Various lengths, so that incomplete vectors are covered as well.
            for count in [0, 1, 3, 17, numbers.len()] {
                let mut found = numbers[..count].to_vec();
                function(*isa, &mut found);
                for (one, other) in found.iter().zip(&expected) {
                    assert!(one.to_bits() == other.to_bits() || one.is_nan() && other.is_nan(), "{}", isa.name());
                }
            }
        }
    }
}
