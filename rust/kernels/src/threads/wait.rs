//! Waiting for an event that is expected soon: at first without the system, then with less and less processor time.

#[cfg(not(loom))]
use std::sync::LazyLock;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::time::{Duration, Instant};

/// Busy waiting: longer than the serial code between two regions of a step, shorter than a scheduler's time slice.
#[cfg(not(loom))]
const SPIN: Duration = Duration::from_micros(40);
/// Yielding: longer than the work between two steps (sampling, decoding text), so that generation never sleeps.
#[cfg(not(loom))]
const YIELD: Duration = Duration::from_millis(2);
/// A yield that takes this long has given the processor to a program that wants to keep it.
#[cfg(not(loom))]
const LONG_YIELD: Duration = Duration::from_micros(200);
/// How long threads sleep instead of yielding after the first such yield, and after many.
#[cfg(not(loom))]
const FEWEST: Duration = Duration::from_millis(20);
#[cfg(not(loom))]
const MOST: Duration = Duration::from_secs(2);

/// Beside programs that keep all processors busy, a yield costs a time slice of the fair share of the thread that yields
/// (Linux charges it from 6.18 on), and it returns only after all others have had theirs. A sleeping thread keeps its
/// share and runs soon after it is woken.
#[cfg(not(loom))]
struct Crowd {
    /// Until when threads sleep, in nanoseconds since [`START`].
    until: AtomicU64,
    /// For how long after the next long yield, in nanoseconds.
    pause: AtomicU64,
}

#[cfg(not(loom))]
static CROWD: Crowd = Crowd { until: AtomicU64::new(0), pause: AtomicU64::new(FEWEST.as_nanos() as u64) };
#[cfg(not(loom))]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[cfg(not(loom))]
impl Crowd {
    fn is_known(&self) -> bool {
        since_start() < self.until.load(Ordering::Relaxed)
    }

    /// Notes that a yield took long: the pauses until the next attempt grow, since each attempt costs a slice.
    fn note(&self) {
        let pause = self.pause.load(Ordering::Relaxed);
        self.until.store(since_start() + pause, Ordering::Relaxed);
        self.pause.store((2 * pause).min(MOST.as_nanos() as u64), Ordering::Relaxed);
    }

    /// Notes that yields return at once.
    fn forget(&self) {
        self.pause.store(FEWEST.as_nanos() as u64, Ordering::Relaxed);
    }
}

#[cfg(not(loom))]
fn since_start() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whether other programs keep the processors busy, as far as a yield has shown.
#[cfg(not(loom))]
pub(super) fn is_crowded() -> bool {
    CROWD.is_known()
}

#[cfg(loom)]
pub(super) fn is_crowded() -> bool {
    false
}

/// Loom has no notion of time, so this does not wait: every order of events is explored anyway.
#[cfg(loom)]
pub(crate) fn wait_briefly(ready: impl Fn() -> bool) -> bool {
    ready()
}

/// Spins, then yields, until `ready` or until it is time to sleep; returns whether it is ready.
#[cfg(not(loom))]
pub(crate) fn wait_briefly(ready: impl Fn() -> bool) -> bool {
    // The clock is read once per batch of spins: reading it costs as much as a spin.
    for _ in 0..32 {
        if ready() {
            return true;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    let mut yielded = false;
    loop {
        for _ in 0..16 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let waited = start.elapsed();
        if waited > SPIN + YIELD {
            if yielded {
                CROWD.forget();
            }
            return ready();
        }
        if waited > SPIN {
            if !yielded && CROWD.is_known() {
                return ready();
            }
            yielded = true;
            std::thread::yield_now();
            if start.elapsed().saturating_sub(waited) > LONG_YIELD {
                CROWD.note();
                return ready();
            }
        }
    }
}
