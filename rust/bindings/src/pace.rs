//! Step durations of a model: whether Python's main thread can be unresponsive for the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Handing work to another thread costs some tens of microseconds: less than one per cent of this.
const LONG: Duration = Duration::from_millis(5);
/// Passes of up to this many tokens take about as long as a pass of one.
const FEW: usize = 2;

/// Upper estimate of the recent time per token, in nanoseconds; 0 if unknown.
#[derive(Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Whether a step of `tokens` tokens may take long; the first step may.
    pub(crate) fn is_long(&self, tokens: usize) -> bool {
        let each = u128::from(self.0.load(Ordering::Relaxed));
        each == 0 || each * tokens as u128 >= LONG.as_nanos()
    }

    /// Learns from a step. Prompt tokens take less time each than single ones, so they can only raise the estimate.
    pub(crate) fn note(&self, tokens: usize, time: Duration) {
        let each = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / (tokens as u64).max(1);
        let known = self.0.load(Ordering::Relaxed);
        if tokens <= FEW || each > known {
            self.0.store(each.max(1), Ordering::Relaxed);
        }
    }
}
