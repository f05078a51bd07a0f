//! Distribution of a region's pieces among the workers, and when to stop.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::sync::{AtomicBool, AtomicU64};
use crate::Error;

/// The function that is called for each piece.
pub(super) type Work<'a> = &'a (dyn Fn(usize) + Sync + 'a);
/// A function that returns whether the caller wants to stop, if it can be interrupted.
pub(super) type Interrupted<'a> = Option<&'a (dyn Fn() -> bool + Sync)>;

/// How often the caller checks whether it should stop.
const POLL: Duration = Duration::from_millis(1);

/// Keeps data that one worker writes often on a different cache line from data that other workers read.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

/// A share of the pieces: `first << 32 | end`. The owner takes from the front, thieves from the back.
pub(super) type Share = Line<AtomicU64>;

/// Runs all pieces on the calling thread.
pub(super) fn alone(pieces: usize, interrupted: Interrupted, work: Work) -> Result<(), Error> {
    let mut poll = Poll::new(interrupted);
    for piece in 0..pieces {
        if poll.stop() {
            return Err(Error::Cancelled);
        }
        work(piece);
    }
    Ok(())
}

/// The next piece of the worker's own share, or the last piece of another worker's.
pub(super) fn next_piece(shares: &[Share], worker: usize) -> Option<usize> {
    let own = take(&shares[worker], true);
    own.or_else(|| (1..shares.len()).find_map(|other| take(&shares[(worker + other) % shares.len()], false)))
}

fn take(share: &Share, front: bool) -> Option<usize> {
    let mut packed = share.0.load(Ordering::Relaxed);
    loop {
        let (first, end) = (packed >> 32, packed & 0xffff_ffff);
        if first >= end {
            return None;
        }
        let (rest, piece) = if front { ((first + 1) << 32 | end, first) } else { (packed - 1, end - 1) };
        match share.0.compare_exchange_weak(packed, rest, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(piece as usize),
            Err(now) => packed = now,
        }
    }
}

/// Tells the other workers to stop if a piece panics.
pub(super) struct StopOnPanic<'a>(pub(super) &'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Checks at the start, and then at most once per [`POLL`], whether to stop.
pub(super) struct Poll<'a> {
    interrupted: Interrupted<'a>,
    asked: Option<Instant>,
    pub(super) stopped: bool,
}

impl<'a> Poll<'a> {
    pub(super) fn new(interrupted: Interrupted<'a>) -> Self {
        Self { interrupted, asked: None, stopped: false }
    }

    pub(super) fn stop(&mut self) -> bool {
        if let Some(interrupted) = self.interrupted
            && !self.stopped
            && self.asked.is_none_or(|asked| asked.elapsed() >= POLL)
        {
            self.stopped = interrupted();
            self.asked = Some(Instant::now());
        }
        self.stopped
    }
}
