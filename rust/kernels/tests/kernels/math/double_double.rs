use std::f64::consts::{LN_2, LN_10};

use llamacpu_kernels::internals::math::{ln, power};

use crate::random::Random;

/// Base, numerator and denominator of the exponent, and power, correctly rounded from 400 bits.
const POWERS: &[(f64, f64, f64, f64)] = &[
    (500_000.0, -2.0, 128.0, 0.814_617_233_856_544_7),
    (500_000.0, -126.0, 128.0, 2.455_140_791_131_609e-06),
    (10_000.0, -2.0, 80.0, 0.794_328_234_724_281_5),
    (10_000.0, -78.0, 80.0, 0.000_125_892_541_179_416_72),
    (1_000_000.0, -62.0, 96.0, 0.000_133_352_143_216_332_4),
    (0.5, -1.0, 3.0, 1.259_921_049_894_873_2),
    (8_000_000.0, 1.0, 1.0, 8_000_000.0),
    (1e308, -9.0, 10.0, 6.309_573_444_801_933e-278),
];

/// A number and its logarithm, rounded likewise.
const LOGARITHMS: &[(f64, f64)] = &[
    (1.0, 0.0),
    (2.0, LN_2),
    (10.0, LN_10),
    (500_000.0, 13.122_363_377_404_328),
    (0.999, -0.001_000_500_333_583_534_4),
    (1.001, 0.000_999_500_333_083_423_2),
    (1e308, 709.196_208_642_166_1),
    (3e-308, -708.097_596_353_497_9),
];

#[test]
fn powers_and_logarithms_are_correctly_rounded() {
    for (base, numerator, denominator, expected) in POWERS {
        assert_eq!(power(*base, *numerator, *denominator), *expected, "{base}^({numerator}/{denominator})");
    }
    for (x, expected) in LOGARITHMS {
        assert_eq!(ln(*x), *expected, "ln({x})");
    }
    let mut random = Random::new(64);
    for round in 0..20_000 {
        let size = f64::from(random.unit()) * [1.0, 600.0][round % 2];
        let x = size.exp2();
        assert!((ln(x) - x.ln()).abs() <= x.ln().abs() * 3e-16, "ln({x:e})");
        assert!((power(x, 1.0, 3.0) - x.powf(1.0 / 3.0)).abs() <= x.cbrt() * 1e-13, "{x:e}^(1/3)");
    }
}

#[test]
fn powers_beyond_the_range_are_zero_and_infinite() {
    assert_eq!(power(1e308, -1.0, 1.0), 0.0);
    assert_eq!(power(1e-308, -1.0, 1.0), f64::INFINITY);
    assert_eq!(power(1e4, 0.0, 64.0), 1.0);
}
