//! How well logits predict given tokens, and how far the predictions of two models are apart. Rows are floats, sums over
//! blocks of them doubles.

use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch, exp};
use crate::sampling::{argmax, distribution};

/// Number of logits that are summed in `f32` before the sum is added to an `f64`.
const BLOCK: usize = 8 * LANES;
/// Logits this far below the largest have no weight in `f32`.
const NEGLIGIBLE: f32 = -87.0;
/// llama.cpp stores no log-probability further below the largest than this, and ignores tokens of the original model whose
/// log-probability is below minus this.
pub const KEPT_RANGE: f32 = 16.0;
/// Words in front of the codes of a record: the scale and the smallest log-probability, as floats.
pub const RECORD_HEAD: usize = 4;
const LARGEST_CODE: f32 = 65535.0;

/// What the softmax of some logits says about a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Logarithm of the probability of the token.
    pub log_probability: f64,
    /// Shannon entropy of all probabilities, in nats.
    pub entropy: f64,
    /// The most probable token.
    pub top: usize,
}

/// The prediction of `token`; `None` if there is no softmax (no finite logit, or an infinite one) or no such token.
pub fn predict(isa: Isa, logits: &[f32], token: usize) -> Option<Prediction> {
    let logit = *logits.get(token)?;
    let found = distribution(isa, logits)?;
    Some(Prediction {
        log_probability: f64::from(logit) - found.log_sum,
        entropy: found.entropy,
        top: argmax(isa, logits)?,
    })
}

/// The predictions of the original model that others are compared with.
#[derive(Debug, Clone, Copy)]
pub enum Original<'a> {
    /// Its logits.
    Logits(&'a [f32]),
    /// Log-probabilities as [`decode`] returns them; those below -16 are left out of the divergence, as in llama.cpp.
    LogProbabilities(&'a [f32]),
}

/// The difference between two predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Logarithm of the probability that the model gives to the token.
    pub log_probability: f64,
    /// The same of the original model.
    pub original_log_probability: f64,
    /// The Kullback-Leibler divergence of the model from the original one, in nats: the sum over all tokens of
    /// `p ln(p / q)`, with `p` the probabilities of the original model and `q` those of the model.
    pub divergence: f64,
    /// The most probable token of the model.
    pub top: usize,
    /// The most probable token of the original model.
    pub original_top: usize,
}

/// Compares the predictions of `token`; `None` if the lengths differ, or one of the softmaxes does not exist.
pub fn compare(isa: Isa, original: Original, logits: &[f32], token: usize) -> Option<Difference> {
    let own = distribution(isa, logits)?;
    let own_rest = own.log_sum - f64::from(own.largest);
    let (base, shift, base_log_sum, least) = match original {
        Original::Logits(base) => {
            let found = distribution(isa, base)?;
            (base, found.largest, found.log_sum, NEGLIGIBLE)
        }
        Original::LogProbabilities(base) => (base, 0.0, 0.0, -KEPT_RANGE),
    };
    if base.len() != logits.len() {
        return None;
    }
    let (weight, weighted) = dispatch(isa, Diverge { base, shift, least, logits, largest: own.largest });
    let divergence = match original {
        Original::Logits(_) => (weighted / weight - (base_log_sum - f64::from(shift)) + own_rest).max(0.0),
        Original::LogProbabilities(_) => weighted + weight * own_rest,
    };
    Some(Difference {
        log_probability: f64::from(*logits.get(token)?) - own.log_sum,
        original_log_probability: f64::from(*base.get(token)?) - base_log_sum,
        divergence,
        top: argmax(isa, logits)?,
        original_top: argmax(isa, base)?,
    })
}

/// Number of 16-bit words in the record of a prediction over `vocabulary` tokens: a head and an even number of codes.
pub fn record_words(vocabulary: usize) -> usize {
    vocabulary.next_multiple_of(2).saturating_add(RECORD_HEAD)
}

/// Writes log-probabilities as 16-bit codes, in the form of the files of `llama-perplexity --kl-divergence-base`: a scale
/// and the smallest log-probability (little-endian floats, in four words), then a code for every token. `false` if there is
/// no softmax or `record` does not have [`record_words`] words.
pub fn encode(isa: Isa, logits: &[f32], record: &mut [u16]) -> bool {
    let Some(found) = distribution(isa, logits) else { return false };
    if record.len() != record_words(logits.len()) {
        return false;
    }
    let largest = found.largest;
    let smallest = logits.iter().fold(largest, |smallest, x| if *x < smallest { *x } else { smallest });
    let smallest = smallest.max(largest - KEPT_RANGE);
    let log_sum = (found.log_sum - f64::from(largest)) as f32;
    let scale = (largest - smallest) / LARGEST_CODE;
    let (head, codes) = record.split_at_mut(RECORD_HEAD);
    for (words, number) in head.chunks_exact_mut(2).zip([scale, smallest - largest - log_sum]) {
        let bits = number.to_bits();
        words[0] = bits as u16;
        words[1] = (bits >> 16) as u16;
    }
    codes.fill(0);
    if scale > 0.0 {
        let inverse = 1.0 / scale;
        for (code, logit) in codes.iter_mut().zip(logits) {
            // NaN and what lies below the range get 0: the conversion to integers saturates.
            *code = (inverse * (logit - smallest)).round_ties_even() as u16;
        }
    }
    true
}

/// Reads the log-probabilities of a record. `false` if its size does not match or its head is not finite.
pub fn decode(record: &[u16], log_probabilities: &mut [f32]) -> bool {
    if record.len() != record_words(log_probabilities.len()) {
        return false;
    }
    let (head, codes) = record.split_at(RECORD_HEAD);
    let number = |at: usize| f32::from_bits(u32::from(head[at]) | u32::from(head[at + 1]) << 16);
    let (scale, smallest) = (number(0), number(2));
    for (value, code) in log_probabilities.iter_mut().zip(codes) {
        *value = scale * f32::from(*code) + smallest;
    }
    scale.is_finite() && scale >= 0.0 && smallest.is_finite()
}

/// The sums over all tokens of `w = exp(b)` and of `w * (b - q)`, with `b = base - shift` and `q = logit - largest`, without
/// tokens whose `b` is below `least`.
struct Diverge<'a> {
    base: &'a [f32],
    shift: f32,
    least: f32,
    logits: &'a [f32],
    largest: f32,
}

impl Kernel for Diverge<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> (f64, f64) {
        let (mut total, mut weighted) = (0.0, 0.0);
        let (shift, largest) = (L::splat(set, self.shift), L::splat(set, self.largest));
        let (least, zero) = (L::splat(set, self.least), L::zero(set));
        for (base, logits) in self.base.chunks(BLOCK).zip(self.logits.chunks(BLOCK)) {
            let (mut sums, mut products) = (zero, zero);
            for (base, logits) in base.chunks(LANES).zip(logits.chunks(LANES)) {
                let base = if base.len() == LANES {
                    L::load_part(set, base)
                } else {
                    let mut padded = [f32::NEG_INFINITY; LANES];
                    padded[..base.len()].copy_from_slice(base);
                    L::load(set, &padded)
                };
                let base = base.sub(shift);
                let weight = base.select_below(least, zero, exp(base));
                let difference = base.sub(L::load_part(set, logits).sub(largest));
                sums = sums.add(weight);
                products = products.add(base.select_below(least, zero, weight.mul(difference)));
            }
            total += f64::from(sums.sum());
            weighted += f64::from(products.sum());
        }
        (total, weighted)
    }
}
