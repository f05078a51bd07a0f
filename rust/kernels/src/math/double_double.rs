//! Numbers of twice the precision of `f64`, each the sum of two (T. J. Dekker, "A floating-point technique for extending the
//! available precision", Numerische Mathematik 18, 1971), with exponential, logarithm and power. They use only sums, products
//! and quotients, so that every processor and platform returns the same bits. For values that are computed once per model.

use super::doubles::ln_one;

/// ln(2); the second part is the remainder.
const LN_2: DoubleDouble = DoubleDouble { high: std::f64::consts::LN_2, low: 2.319_046_813_846_299_6e-17 };
/// `2^27 + 1`: multiplying by it splits 53 bits into 26 and 27.
const SPLITTER: f64 = 134_217_729.0;
/// Number of times `exp` halves its argument before it evaluates the series.
const HALVINGS: i32 = 8;

/// The unevaluated sum of two numbers, the second at most half a unit in the last place of the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DoubleDouble {
    high: f64,
    low: f64,
}

/// The rounded sum and the rounding error (D. Knuth).
#[inline(always)]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// The rounded product and the rounding error. Exact unless a factor is above 2^996 or the error is subnormal.
#[inline(always)]
pub(super) fn two_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let scaled = SPLITTER * x;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    (product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)
}

impl DoubleDouble {
    /// `high + low`; `high` must not be the smaller in magnitude.
    fn new(high: f64, low: f64) -> Self {
        let sum = high + low;
        Self { high: sum, low: low - (sum - high) }
    }

    fn plus(self, other: Self) -> Self {
        let (sum, rest) = two_sum(self.high, other.high);
        let (low, last) = two_sum(self.low, other.low);
        let first = Self::new(sum, rest + low);
        Self::new(first.high, first.low + last)
    }

    fn times(self, other: Self) -> Self {
        let (product, rest) = two_product(self.high, other.high);
        Self::new(product, rest + (self.high * other.low + self.low * other.high))
    }

    fn over(self, divisor: f64) -> Self {
        let quotient = self.high / divisor;
        let (product, rest) = two_product(quotient, divisor);
        Self::new(quotient, ((self.high - product) - rest + self.low) / divisor)
    }

    /// `e` to the power of `self`, which must be between -700 and 700.
    ///
    /// `e^x = 2^n · (e^r)^256` with `|256 r| <= ln(2) / 2`, and for `e^r` thirteen terms of its series.
    fn exp(self) -> Self {
        let n = (self.high / std::f64::consts::LN_2).round();
        let reduced = self.plus(LN_2.times(Self::new(-n, 0.0)));
        let scale = f64::from(1 << HALVINGS);
        let r = Self { high: reduced.high / scale, low: reduced.low / scale };
        let one = Self::new(1.0, 0.0);
        let mut power = (1..=12).rev().fold(one, |sum, k| one.plus(r.times(sum).over(f64::from(k))));
        for _ in 0..HALVINGS {
            power = power.times(power);
        }
        let factor = power_of_two(n as i64);
        Self { high: power.high * factor, low: power.low * factor }
    }

    /// The natural logarithm of a normal positive number.
    ///
    /// `x = 2^k m` with m from sqrt(1/2) to sqrt(2); one step of Newton's method makes the logarithm of m, known to `f64`
    /// precision, as precise as `exp`.
    fn ln(x: f64) -> Self {
        let fraction = f64::from_bits(x.to_bits() & 0x000f_ffff_ffff_ffff | 1f64.to_bits());
        let larger = fraction > std::f64::consts::SQRT_2;
        let m = if larger { fraction / 2.0 } else { fraction };
        let exponent = (x.to_bits() >> 52) as i64 - 1023 + i64::from(larger);
        let near = ln_one(m);
        let quotient = Self::new(m, 0.0).times(Self::new(-near, 0.0).exp());
        let excess = quotient.plus(Self::new(-1.0, 0.0));
        let correction = Self::new(excess.high, excess.low - excess.high * excess.high / 2.0);
        LN_2.times(Self::new(exponent as f64, 0.0)).plus(Self::new(near, 0.0)).plus(correction)
    }
}

/// `2^n` for n from -1022 to 1023.
fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// The natural logarithm of a normal positive number, correctly rounded except for a few cases in 2^40.
pub fn ln(x: f64) -> f64 {
    DoubleDouble::ln(x).high
}

/// `base^(numerator / denominator)` for a normal positive base, correctly rounded except for a few cases in 2^40; 0 and
/// infinity for results beyond e^-700 and e^700.
pub fn power(base: f64, numerator: f64, denominator: f64) -> f64 {
    let exponent = DoubleDouble::ln(base).times(DoubleDouble::new(numerator, 0.0)).over(denominator);
    match exponent.high {
        x if x < -700.0 => 0.0,
        x if x > 700.0 => f64::INFINITY,
        _ => exponent.exp().high,
    }
}
