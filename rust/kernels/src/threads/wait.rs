//! Waiting for an event that is expected soon: at first without the system, then with less and less processor time.

#[cfg(not(loom))]
use std::time::{Duration, Instant};

/// Busy waiting: longer than the serial code between two regions of a step, shorter than a scheduler's time slice.
#[cfg(not(loom))]
const SPIN: Duration = Duration::from_micros(40);
/// Yielding: longer than the work between two steps (sampling, decoding text), so that generation never sleeps.
#[cfg(not(loom))]
const YIELD: Duration = Duration::from_millis(2);

/// Loom has no notion of time, so this does not wait: every order of events is explored anyway.
#[cfg(loom)]
pub(super) fn wait_briefly(ready: impl Fn() -> bool) -> bool {
    ready()
}

/// Spins, then yields, until `ready` or until it is time to sleep; returns whether it is ready.
#[cfg(not(loom))]
pub(super) fn wait_briefly(ready: impl Fn() -> bool) -> bool {
    // The clock is read once per batch of spins: reading it costs as much as a spin.
    for _ in 0..32 {
        if ready() {
            return true;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    loop {
        for _ in 0..16 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let waited = start.elapsed();
        if waited > SPIN {
            std::thread::yield_now();
        }
        if waited > SPIN + YIELD {
            return ready();
        }
    }
}
