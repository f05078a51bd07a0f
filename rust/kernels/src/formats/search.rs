//! Helpers for quantization: extremes, reciprocals, and the searches for good scales of the K and IQ4 formats, by weighted
//! least squares over several roundings.

/// Rounds to nearest, ties to even, within limits; a NaN becomes zero (or the nearer limit).
#[inline]
pub(super) fn nearest(value: f32, low: i32, high: i32) -> i32 {
    (value.round_ties_even() as i32).clamp(low, high)
}

/// The value of largest magnitude, with its sign; the first one of several.
pub(super) fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |found: f32, value| if value.abs() > found.abs() { *value } else { found })
}

/// `1 / d`; zero if that is NaN or infinite, as for a `d` of zero or a subnormal so small that f16 stores it as zero anyway.
pub(super) fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Parameters of the fit of a scale and minimum.
pub(super) struct RangeSearch {
    /// Largest quant.
    pub(super) largest: i32,
    /// First divisor of the range, relative to `largest`.
    pub(super) start: f32,
    /// Number of divisors tried, a tenth apart.
    pub(super) steps: i32,
    /// Whether absolute errors are summed, rather than squares.
    pub(super) absolute: bool,
}

impl RangeSearch {
    /// Finds a scale and a nonnegative minimum such that `scale · q - minimum` is close to `values`.
    pub(super) fn fit(&self, values: &[f32], weights: &[f32]) -> (f32, f32) {
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(low, f32::max);
        if high <= low {
            return (0.0, -low);
        }
        let (mut sum_w, mut sum_x) = (0.0, 0.0);
        for (x, w) in values.iter().zip(weights) {
            sum_w += w;
            sum_x += w * x;
        }
        let quant = |inverse: f32, x: f32| nearest(inverse * (x - low), 0, self.largest) as f32;
        let error = |inverse: f32, scale: f32, low: f32| {
            let part = |(x, w): (&f32, &f32)| {
                let difference = scale * quant(inverse, *x) + low - x;
                w * if self.absolute { difference.abs() } else { difference * difference }
            };
            values.iter().zip(weights).map(part).sum::<f32>()
        };
        let inverse = self.largest as f32 / (high - low);
        let mut best = (1.0 / inverse, low);
        let mut best_error = error(inverse, best.0, best.1);
        for step in 0..=self.steps {
            let inverse = (self.start + 0.1 * step as f32 + self.largest as f32) / (high - low);
            let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
            for (x, w) in values.iter().zip(weights) {
                let l = quant(inverse, *x);
                sum_l += w * l;
                sum_l2 += w * l * l;
                sum_xl += w * l * x;
            }
            let determinant = sum_w * sum_l2 - sum_l * sum_l;
            if determinant > 0.0 {
                let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
                let mut minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
                if minimum > 0.0 {
                    minimum = 0.0;
                    scale = sum_xl / sum_l2;
                }
                let found = error(inverse, scale, minimum);
                if found < best_error {
                    best_error = found;
                    best = (scale, minimum);
                }
            }
        }
        (best.0, -best.1)
    }
}

/// Finds a scale such that `scale · q` is close to `values`, with `q` chosen by `quant` from `value / trial scale`. Errors are
/// weighted by the squares of the values. `trials` are the quants that the value of largest magnitude should become.
pub(super) fn fit_symmetric(values: &[f32], trials: impl Iterator<Item = f32>, quant: impl Fn(f32) -> f32) -> f32 {
    let most = extreme(values);
    if most.abs() < 1e-15 {
        return 0.0;
    }
    let (mut scale, mut best) = (0.0, 0.0);
    for trial in trials {
        let inverse = trial / most;
        let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
        for x in values {
            let l = quant(inverse * x);
            sum_lx += x * x * x * l;
            sum_l2 += x * x * l * l;
        }
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    scale
}

/// Like `fit_symmetric`, for three bits (-4 to 3): after a first rounding every quant is improved in turn, five times.
pub(super) fn fit_three_bits(values: &[f32]) -> f32 {
    let most = extreme(values);
    if most.abs() < 1e-15 {
        return 0.0;
    }
    let mut quants: Vec<f32> = values.iter().map(|x| nearest(-4.0 / most * x, -4, 3) as f32).collect();
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    for (x, l) in values.iter().zip(&quants) {
        sum_lx += x * x * x * l;
        sum_l2 += x * x * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, l) in values.iter().zip(&mut quants) {
            let w = x * x;
            let others_lx = sum_lx - w * x * *l;
            let others_l2 = sum_l2 - w * *l * *l;
            if others_lx <= 0.0 {
                continue;
            }
            let better = nearest(x * others_l2 / others_lx, -4, 3) as f32;
            let (new_lx, new_l2) = (others_lx + w * x * better, others_l2 + w * better * better);
            if better != *l && new_l2 > 0.0 && new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2 {
                (*l, sum_lx, sum_l2) = (better, new_lx, new_l2);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}
