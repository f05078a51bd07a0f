//! Rotary position embedding (J. Su et al., "RoFormer", 2021) with its scalings: linear (S. Chen et al., "Extending
//! Context Window of Large Language Models via Positional Interpolation", 2023), YaRN (B. Peng et al., 2023), and the
//! frequency factors of Llama 3.1.
//!
//! Angles are computed in `f64`, using only sums, products and quotients (`math::circle`, `math::double_double`), so that
//! tables have the same bits on every processor and platform. The relative error of an angle is below 2^-51: at position 2^20
//! a table is the exact one rounded to `f32`, except for one unit in the last place of a few entries.

use crate::Error;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, LARGEST_ANGLE, Lanes, dispatch, ln, power, sine_and_cosine};

/// Which two elements of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Adjacent elements: `2 i` and `2 i + 1`.
    Interleaved,
    /// `i` and `i + size / 2`.
    NeoX,
}

/// How angles are scaled for positions beyond the trained context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// All angles are divided by the factor.
    Linear {
        /// Context length over trained context length.
        factor: f64,
    },
    /// Angles are not scaled, but cosines and sines are multiplied by a factor (Y. Ding et al., "LongRoPE", 2024): the
    /// frequencies themselves are scaled by `RopeSettings::factors`, for short or long texts.
    Long {
        /// The factor, such as `sqrt(1 + ln(context / original context) / ln(original context))`.
        attn_factor: f64,
    },
    /// Slow pairs are divided by the factor, fast pairs are left alone, with a ramp between them, and the magnitude is corrected.
    Yarn {
        /// Context length over trained context length.
        factor: f64,
        /// Trained context length.
        original_context: f64,
        /// How much of the ramp is used: 1 for YaRN.
        ext_factor: f64,
        /// Further factor of the magnitude `1 + ln(factor) / 10`.
        attn_factor: f64,
        /// The magnitude is divided by `1 + log_multiplier · ln(factor) / 10`: 0 for YaRN.
        log_multiplier: f64,
        /// Rotations over the trained context above which a pair is fast: 32.
        beta_fast: f64,
        /// Rotations below which a pair is slow: 1.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole pairs.
        truncate: bool,
    },
}

/// Upper bound (exclusive) of positions.
pub const POSITIONS: usize = 1 << 30;

/// The settings that define the rotation of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSettings {
    /// Number of elements of each head that are rotated; even. The rest passes through unchanged.
    pub size: usize,
    /// The base of the frequencies, such as 10000.
    pub base: f64,
    /// Which elements form pairs.
    pub style: RopeStyle,
    /// The scaling.
    pub scaling: RopeScaling,
    /// One divisor of the frequency for each pair, `size / 2` in total.
    pub factors: Option<Vec<f32>>,
}

/// The rotation of one model: the angle per position for each pair.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f64>,
    magnitude: f64,
    style: RopeStyle,
}

impl Rope {
    /// Computes the frequencies.
    ///
    /// # Errors
    /// `Error::Shape` for an odd size, a number of factors that is not half the size, or settings out of range: a frequency may
    /// be at most 2^20 radians per token.
    pub fn new(settings: &RopeSettings) -> Result<Self, Error> {
        let size = settings.size;
        let wrong = |what: String| Err(Error::Shape(format!("rotary embedding: {what}")));
        let positive = |x: f64| x.is_normal() && x > 0.0;
        if !size.is_multiple_of(2) {
            return wrong(format!("{size} numbers are to be rotated; expected an even number"));
        }
        if !positive(settings.base) {
            return wrong(format!("base {:?}; expected a positive number", settings.base));
        }
        let mut frequencies: Vec<f64> =
            (0..size / 2).map(|pair| power(settings.base, -2.0 * pair as f64, size as f64)).collect();
        if let Some(factors) = &settings.factors {
            if factors.len() != size / 2 {
                return wrong(format!("{} frequency factors; expected {}", factors.len(), size / 2));
            }
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                if !positive(f64::from(*factor)) {
                    return wrong(format!("frequency factor {factor}; expected a positive number"));
                }
                *frequency /= f64::from(*factor);
            }
        }
        let magnitude = match settings.scaling {
            RopeScaling::None => 1.0,
            RopeScaling::Long { attn_factor } if !positive(attn_factor) => {
                return wrong(format!("attention factor {attn_factor}; expected a positive number"));
            }
            RopeScaling::Long { attn_factor } => attn_factor,
            RopeScaling::Linear { factor } | RopeScaling::Yarn { factor, .. } if !positive(factor) => {
                return wrong(format!("scaling factor {factor}; expected a positive number"));
            }
            RopeScaling::Linear { factor } => {
                for frequency in &mut frequencies {
                    *frequency /= factor;
                }
                1.0
            }
            RopeScaling::Yarn {
                factor,
                original_context,
                ext_factor,
                attn_factor,
                log_multiplier,
                beta_fast,
                beta_slow,
                truncate,
            } => {
                let sound = [original_context, beta_fast, beta_slow].into_iter().all(positive)
                    && ext_factor.is_finite()
                    && attn_factor.is_finite()
                    && log_multiplier.is_finite()
                    && log_multiplier >= 0.0;
                if !sound || settings.base <= 1.0 {
                    return wrong(format!(
                        "YaRN with base {}, original context {original_context}, extrapolation factor {ext_factor}, \
                         attention factor {attn_factor}, multiplier {log_multiplier}, beta {beta_fast} and {beta_slow}; \
                         expected positive numbers \
                         and a base above 1",
                        settings.base
                    ));
                }
                let pair_of = |rotations: f64| {
                    size as f64 * ln(original_context / (rotations * std::f64::consts::TAU)) / (2.0 * ln(settings.base))
                };
                let (start, end) = (pair_of(beta_fast), pair_of(beta_slow));
                let (start, end) = if truncate { (start.floor(), end.ceil()) } else { (start, end) };
                let (start, end) = (start.max(0.0), end.min(size as f64 - 1.0));
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    let ramp = (pair as f64 - start) / (end - start).max(0.001);
                    let kept = (1.0 - ramp.clamp(0.0, 1.0)) * ext_factor;
                    *frequency = *frequency / factor * (1.0 - kept) + *frequency * kept;
                }
                if ext_factor == 0.0 {
                    attn_factor
                } else {
                    attn_factor / (1.0 + 0.1 * log_multiplier * ln(factor)) * (1.0 + 0.1 * ln(factor))
                }
            }
        };
        let largest = LARGEST_ANGLE / POSITIONS as f64;
        if let Some(frequency) = frequencies.iter().find(|frequency| !frequency.is_finite() || **frequency > largest) {
            return wrong(format!(
                "a pair turns by {frequency:?} radians a token; expected {largest} at most: base, factors or scaling are wrong"
            ));
        }
        Ok(Self { frequencies, magnitude, style: settings.style })
    }

    /// Radians per position, of each pair.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// The factor of all rotated numbers.
    pub fn magnitude(&self) -> f64 {
        self.magnitude
    }

    /// Number of elements of each head that are rotated.
    pub fn size(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Writes the cosines, then the sines, of the angles at a position, `size()` values in total.
    ///
    /// # Errors
    /// `Error::Shape` if the table has a different size or the position is not below [`POSITIONS`].
    pub fn table(&self, position: usize, cos_sin: &mut [f32]) -> Result<(), Error> {
        if cos_sin.len() != self.size() {
            return Err(Error::Shape(format!(
                "a table of {} numbers for the rotation of {}; expected as many",
                cos_sin.len(),
                self.size()
            )));
        }
        if position >= POSITIONS {
            return Err(Error::Shape(format!(
                "rotation for position {position}; expected positions below {POSITIONS}"
            )));
        }
        let (cosines, sines) = cos_sin.split_at_mut(self.frequencies.len());
        for ((frequency, cosine), sine) in self.frequencies.iter().zip(cosines).zip(sines) {
            let (sin, cos) = sine_and_cosine(position as f64 * frequency);
            *cosine = (cos * self.magnitude) as f32;
            *sine = (sin * self.magnitude) as f32;
        }
        Ok(())
    }

    /// Rotates the beginning of heads of `head_size` elements in place, all at the position of the table.
    ///
    /// # Errors
    /// As [`Rope::apply_from`].
    pub fn apply(&self, isa: Isa, x: &mut [f32], head_size: usize, cos_sin: &[f32]) -> Result<(), Error> {
        self.apply_from(isa, x, head_size, 0, cos_sin)
    }

    /// Rotates heads of `head_size` elements in place, from element `first` of each on, all at the position of the table.
    ///
    /// # Errors
    /// `Error::Shape` if heads are shorter than the part that is rotated, `x` is not a whole number of heads, or the table has
    /// a different size.
    pub fn apply_from(
        &self,
        isa: Isa,
        x: &mut [f32],
        head_size: usize,
        first: usize,
        cos_sin: &[f32],
    ) -> Result<(), Error> {
        let end = first.saturating_add(self.size());
        if head_size == 0 || head_size < end || !x.len().is_multiple_of(head_size) {
            return Err(Error::Shape(format!(
                "rotation of {} numbers in heads of {head_size}; expected whole heads of at least {end} numbers",
                x.len()
            )));
        }
        if cos_sin.len() != self.size() {
            return Err(Error::Shape(format!(
                "rotation with a table of {} numbers; expected {}",
                cos_sin.len(),
                self.size()
            )));
        }
        if cos_sin.is_empty() {
            return Ok(());
        }
        let (cosines, sines) = cos_sin.split_at(cos_sin.len() / 2);
        dispatch(isa, Rotate { x, head_size, first, cosines, sines, style: self.style });
        Ok(())
    }
}

/// The natural logarithm of a positive number, with the same bits on every processor.
pub fn natural_logarithm(x: f64) -> f64 {
    ln(x)
}

struct Rotate<'a> {
    x: &'a mut [f32],
    head_size: usize,
    first: usize,
    cosines: &'a [f32],
    sines: &'a [f32],
    style: RopeStyle,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let pairs = self.cosines.len();
        for head in self.x.chunks_exact_mut(self.head_size) {
            let head = &mut head[self.first..][..2 * pairs];
            match self.style {
                RopeStyle::NeoX => {
                    let (first, second) = head.split_at_mut(pairs);
                    rotate::<L>(set, first, second, self.cosines, self.sines);
                }
                RopeStyle::Interleaved => {
                    let mut first = [0.0; LANES];
                    let mut second = [0.0; LANES];
                    let tables = self.cosines.chunks(LANES).zip(self.sines.chunks(LANES));
                    for (part, (cosines, sines)) in head.chunks_mut(2 * LANES).zip(tables) {
                        let (part, _) = part.as_chunks_mut::<2>();
                        let count = part.len();
                        for ((first, second), pair) in first.iter_mut().zip(&mut second).zip(part.iter()) {
                            [*first, *second] = *pair;
                        }
                        rotate::<L>(set, &mut first[..count], &mut second[..count], cosines, sines);
                        for ((first, second), pair) in first.iter().zip(&second).zip(part) {
                            *pair = [*first, *second];
                        }
                    }
                }
            }
        }
    }
}

/// Maps `(x, y)` to `(x cos - y sin, x sin + y cos)`; the products with the sine are rounded, the rest is fused.
#[inline(always)]
fn rotate<L: Lanes>(set: L::Set, first: &mut [f32], second: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let tables = cosines.chunks(LANES).zip(sines.chunks(LANES));
    for ((x, y), (cosine, sine)) in first.chunks_mut(LANES).zip(second.chunks_mut(LANES)).zip(tables) {
        let (cosine, sine) = (L::load_part(set, cosine), L::load_part(set, sine));
        let (a, b) = (L::load_part(set, x), L::load_part(set, y));
        a.fma(cosine, L::zero(set).sub(b.mul(sine))).store_part(x);
        b.fma(cosine, a.mul(sine)).store_part(y);
    }
}
