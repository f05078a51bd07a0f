//! Operations over the logits of a whole vocabulary, for sampling a token: the largest logit, the k largest in order, the
//! softmax and its normalization. NaN counts as negative infinity everywhere.

use crate::cpu::Isa;
pub use crate::math::doubles;
use crate::math::{Kernel, LANES, Lanes, dispatch, exp};

/// Number of logits that are processed together.
const BLOCK: usize = 8 * LANES;
/// If a logit's difference from the largest one is below this, its weight is 0 in `f32`.
const NEGLIGIBLE: f32 = -200.0;

/// The id of the largest logit, the lowest id among equals; `None` if all logits are NaN or there are none.
pub fn argmax(isa: Isa, logits: &[f32]) -> Option<usize> {
    let largest = largest(isa, logits);
    let found = logits.iter().position(|logit| *logit == largest);
    found.filter(|_| largest > f32::NEG_INFINITY).or_else(|| logits.iter().position(|logit| !logit.is_nan()))
}

/// The `k` largest logits (all, if there are fewer) with their ids, in descending order, lower ids first among equals.
/// Meant for `k` far below the number of logits: it then takes one pass at memory speed.
///
/// Ids are `u32`: anything beyond the first 2^32 logits is ignored.
pub fn top_k(isa: Isa, logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let logits = &logits[..logits.len().min(u32::MAX as usize)];
    let k = k.min(logits.len());
    let mut keys = if k == 0 { Vec::new() } else { dispatch(isa, Select { logits, k }) };
    keys.sort_unstable_by(|a, b| b.cmp(a));
    let mut chosen: Vec<(u32, f32)> = keys.into_iter().map(|key| (id(key), logits[id(key) as usize])).collect();
    // Only finite logits and positive infinity were selected; these fill the rest.
    let last = logits.iter().enumerate().filter(|(_, logit)| logit.is_nan() || **logit == f32::NEG_INFINITY);
    let missing = k - chosen.len();
    chosen.extend(last.take(missing).map(|(id, _)| (id as u32, f32::NEG_INFINITY)));
    chosen
}

/// Statistics of the softmax of some logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distribution {
    /// The largest logit.
    pub largest: f32,
    /// Logarithm of the sum of `exp(logit)`: a logit minus this is its log-probability.
    pub log_sum: f64,
    /// Shannon entropy in nats.
    pub entropy: f64,
}

/// Normalization and entropy of the softmax, with a relative error of about 1e-6 in the probabilities. `None` if no logit
/// is finite or one is positive infinity: the softmax is then undefined.
pub fn distribution(isa: Isa, logits: &[f32]) -> Option<Distribution> {
    let largest = largest(isa, logits);
    if !largest.is_finite() {
        return None;
    }
    let (total, weighted) = dispatch(isa, Weigh { logits, largest });
    let mut log_total = [total];
    doubles::ln(isa, &mut log_total);
    let [log_total] = log_total;
    Some(Distribution {
        largest,
        log_sum: f64::from(largest) + log_total,
        entropy: (log_total - weighted / total).max(0.0),
    })
}

/// Computes the natural logarithms of the softmax: `output[i] = logits[i] - log_sum`, negative infinity for NaN. Returns
/// `false` and leaves `output` alone if the softmax is undefined (see [`distribution`]). If the lengths differ, only the
/// common part is processed.
pub fn log_softmax(isa: Isa, logits: &[f32], output: &mut [f32]) -> bool {
    let Some(Distribution { log_sum, .. }) = distribution(isa, logits) else { return false };
    for (y, x) in output.iter_mut().zip(logits) {
        *y = if x.is_nan() { f32::NEG_INFINITY } else { (f64::from(*x) - log_sum) as f32 };
    }
    true
}

/// The largest logit; negative infinity if there is none.
fn largest(isa: Isa, logits: &[f32]) -> f32 {
    dispatch(isa, Largest(logits))
}

struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> f32 {
        // Several maxima at once, because each has to wait for its previous value.
        let mut maxima = [L::splat(set, f32::NEG_INFINITY); 4];
        let (vectors, rest) = self.0.as_chunks::<LANES>();
        let (groups, single) = vectors.as_chunks::<4>();
        for group in groups {
            for (maximum, vector) in maxima.iter_mut().zip(group) {
                *maximum = L::load(set, vector).max(*maximum);
            }
        }
        for vector in single {
            maxima[0] = L::load(set, vector).max(maxima[0]);
        }
        let maximum = maxima[0].max(maxima[1]).max(maxima[2].max(maxima[3])).largest();
        rest.iter().fold(maximum, |maximum, x| if *x > maximum { *x } else { maximum })
    }
}

/// A number that sorts like the logit, and among equal logits in reverse order of the ids.
#[inline(always)]
fn key(id: usize, logit: f32) -> u64 {
    // Adding 0 turns negative zero into zero.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(u32::MAX - id as u32)
}

fn id(key: u64) -> u32 {
    u32::MAX - key as u32
}

/// The logit of a key.
fn logit(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

/// Selects the keys of the `k` largest logits above negative infinity, in no order.
struct Select<'a> {
    logits: &'a [f32],
    k: usize,
}

impl Kernel for Select<'_> {
    type Output = Vec<u64>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Vec<u64> {
        let Self { logits, k } = self;
        // Everything above the threshold is collected; whenever the collection is full, the k largest stay and the
        // smallest of them is the new threshold. Later logits that equal it lose by their id.
        let full = k.saturating_add(k.max(BLOCK));
        let mut keys: Vec<u64> = Vec::with_capacity(full.min(logits.len()) + BLOCK);
        let mut threshold = f32::NEG_INFINITY;
        for (index, block) in logits.chunks(BLOCK).enumerate() {
            if let Some(block) = block.as_chunks::<LANES>().0.first_chunk::<{ BLOCK / LANES }>() {
                let start = L::splat(set, threshold);
                let mut maximum = start;
                for vector in block {
                    maximum = L::load(set, vector).max(maximum);
                }
                if maximum.largest() <= threshold {
                    continue;
                }
            }
            for (place, logit) in block.iter().enumerate() {
                if *logit > threshold {
                    keys.push(key(index * BLOCK + place, *logit));
                }
            }
            if keys.len() >= full {
                threshold = shrink(&mut keys, k);
            }
        }
        if keys.len() > k {
            shrink(&mut keys, k);
        }
        keys
    }
}

/// Keeps the `k` largest keys, `0 < k < keys.len()`, and returns the smallest logit of them.
fn shrink(keys: &mut Vec<u64>, k: usize) -> f32 {
    let (_, smallest, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    let smallest = logit(*smallest);
    keys.truncate(k);
    smallest
}

/// The sums of `exp(d)` and of `d * exp(d)` with `d = logit - largest`.
struct Weigh<'a> {
    logits: &'a [f32],
    largest: f32,
}

impl Kernel for Weigh<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> (f64, f64) {
        let (mut total, mut weighted) = (0.0, 0.0);
        let (shift, least) = (L::splat(set, self.largest), L::splat(set, NEGLIGIBLE));
        // Blocks are summed in f32, their sums in f64.
        for block in self.logits.chunks(BLOCK) {
            let (mut sums, mut products) = (L::zero(set), L::zero(set));
            for part in block.chunks(LANES) {
                let vector = if part.len() == LANES {
                    L::load_part(set, part)
                } else {
                    let mut padded = [f32::NEG_INFINITY; LANES];
                    padded[..part.len()].copy_from_slice(part);
                    L::load(set, &padded)
                };
                let difference = vector.sub(shift).max(least);
                let weight = exp(difference);
                sums = sums.add(weight);
                products = weight.fma(difference, products);
            }
            total += f64::from(sums.sum());
            weighted += f64::from(products.sum());
        }
        (total, weighted)
    }
}
