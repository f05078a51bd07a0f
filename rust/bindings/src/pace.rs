//! How long the steps of a model take: whether Python's main thread can be deaf for the time of the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Handing work to another thread costs some tens of microseconds: less than one per cent of this.
const LONG: Duration = Duration::from_millis(5);
/// Passes of so few tokens take about as long as one.
const FEW: usize = 2;

/// Nanoseconds that a token took at most of late; 0 if that is not known.
#[derive(Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Whether a step of so many tokens may take long; the first one may.
    pub(crate) fn is_long(&self, tokens: usize) -> bool {
        let each = u128::from(self.0.load(Ordering::Relaxed));
        each == 0 || each * tokens as u128 >= LONG.as_nanos()
    }

    /// Learns from a step. Tokens of a prompt take less than single ones: they can only make the estimate larger.
    pub(crate) fn note(&self, tokens: usize, time: Duration) {
        let each = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / (tokens as u64).max(1);
        let known = self.0.load(Ordering::Relaxed);
        if tokens <= FEW || each > known {
            self.0.store(each.max(1), Ordering::Relaxed);
        }
    }
}
