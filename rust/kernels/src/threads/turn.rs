//! First come, first served: the order in which callers start regions. (A plain mutex lets a busy caller overtake forever.)

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::sync::{AtomicUsize, Condvar, Mutex, sequential};
use super::wait::wait_briefly;

/// A fair lock.
pub(super) struct Turn {
    next: AtomicUsize,
    serving: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

/// Held while it is the caller's turn.
pub(super) struct Held<'a>(&'a Turn);

impl Default for Turn {
    fn default() -> Self {
        let [next, serving, sleepers] = std::array::from_fn(|_| AtomicUsize::new(0));
        Self { next, serving, sleepers, lock: Mutex::new(()), changed: Condvar::new() }
    }
}

impl Turn {
    /// Waits in line.
    pub(super) fn take(&self) -> Held<'_> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let ready = || self.serving.load(Ordering::SeqCst) == ticket;
        if !wait_briefly(ready) {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            sequential();
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            while !ready() {
                guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.serving.fetch_add(1, Ordering::SeqCst);
        sequential();
        if self.0.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.0.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.changed.notify_all();
        }
    }
}
