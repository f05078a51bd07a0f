//! The threads of one process, and how a region of work reaches them.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::placement::{Placement, UNKNOWN, current_processor};
use super::share::{Interrupted, Line, Poll, Share, StopOnPanic, Work, alone, next_piece};
use super::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Builder, Condvar, JoinHandle, Mutex, UnsafeCell, sequential, spawn,
};
use super::turn::Turn;
use super::wait::{is_crowded, wait_briefly};
use crate::Error;

/// `state` is `epoch << 32 | OPEN | active workers`.
const OPEN: u64 = 1 << 31;
const ACTIVE: u64 = OPEN - 1;

#[cfg(not(loom))]
thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}
#[cfg(loom)]
loom::thread_local! {
    static INSIDE: Cell<bool> = Cell::new(false);
}

/// Whether this thread is working on a piece of some region.
pub(super) fn inside_region() -> bool {
    INSIDE.with(Cell::get)
}

/// The state shared by the caller and the workers.
struct CrewState {
    state: Line<AtomicU64>,
    finished: Line<AtomicUsize>,
    /// Set by the turn's holder while no worker is active; read by workers that have joined.
    work: UnsafeCell<Option<Work<'static>>>,
    shares: Box<[Share]>,
    stopping: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleeping_workers: AtomicUsize,
    caller_asleep: AtomicBool,
    /// Where the caller of the last region ran, as far as that matters.
    callers_processor: AtomicUsize,
    lock: Mutex<()>,
    work_is_there: Condvar,
    work_is_done: Condvar,
}

// SAFETY: `work` is the only part that is not Sync; it is written while no worker is active (state word) and the writer
// holds the turn, and what it points to is Sync.
unsafe impl Sync for CrewState {}
// SAFETY: as above; the reference inside may be sent because its target is Sync.
unsafe impl Send for CrewState {}

/// The workers of one process.
pub(super) struct Crew {
    process: u32,
    shared: Arc<CrewState>,
    turn: Turn,
    workers: Vec<JoinHandle<()>>,
}

/// Marks this thread as inside a region until dropped.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.with(|inside| inside.set(true));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

impl Crew {
    /// Starts `threads - 1` workers, or as many as the system allows, and then returns the error that prevented more.
    pub(super) fn start(threads: usize) -> (Self, Option<std::io::Error>) {
        let shared = Arc::new(CrewState {
            state: Line(AtomicU64::new(0)),
            finished: Line(AtomicUsize::new(0)),
            work: UnsafeCell::new(None),
            shares: (0..threads).map(|_| Line(AtomicU64::new(0))).collect(),
            stopping: AtomicBool::new(false),
            panic: Mutex::new(None),
            sleeping_workers: AtomicUsize::new(0),
            caller_asleep: AtomicBool::new(false),
            callers_processor: AtomicUsize::new(UNKNOWN),
            lock: Mutex::new(()),
            work_is_there: Condvar::new(),
            work_is_done: Condvar::new(),
        });
        let mut workers = Vec::with_capacity(threads - 1);
        let mut refused = None;
        for worker in 1..threads {
            let shared = Arc::clone(&shared);
            let builder = Builder::new().name(format!("llamacpu-{worker}"));
            match spawn(builder, move || shared.serve(worker)) {
                Ok(handle) => workers.push(handle),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        (Self { process: std::process::id(), shared, turn: Turn::default(), workers }, refused)
    }

    /// Whether this process started the workers.
    pub(super) fn belongs_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Runs `work(worker)` once for each of `threads` workers, concurrently as far as the workers exist.
    pub(super) fn run_on_all(&self, threads: usize, work: Work) {
        let _turn = self.turn.take();
        self.region(true, work, &|| {
            work(0);
            (self.workers.len() + 1..threads).for_each(work);
        });
    }

    /// Runs `work(piece)` once for each piece, unless interrupted.
    pub(super) fn share(&self, pieces: usize, interrupted: Interrupted, work: Work) -> Result<(), Error> {
        if self.workers.is_empty() || pieces <= 1 || inside_region() {
            if inside_region() && pieces > 1 {
                return Err(Error::Unsupported(
                    "a parallel region was started inside a parallel region; start it from the outer caller".into(),
                ));
            }
            return alone(pieces, interrupted, work);
        }
        let Ok(count) = u32::try_from(pieces) else {
            return Err(Error::Shape(format!("{pieces} pieces of parallel work; expected at most {}", u32::MAX)));
        };
        let _turn = self.turn.take();
        let threads = self.workers.len() as u64 + 1;
        for (worker, share) in self.shared.shares.iter().enumerate().take(threads as usize) {
            let bound = |w: u64| w * u64::from(count) / threads;
            let worker = worker as u64;
            share.0.store(bound(worker) << 32 | bound(worker + 1), Ordering::Relaxed);
        }
        let stop = AtomicBool::new(false);
        let shares = &self.shared.shares[..threads as usize];
        let take_pieces = |worker: usize, poll: &mut dyn FnMut() -> bool| {
            let stopper = StopOnPanic(&stop);
            while let Some(piece) = next_piece(shares, worker) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if poll() {
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
                work(piece);
            }
            std::mem::forget(stopper);
        };
        let cancelled = Cell::new(false);
        self.region(false, &|worker| take_pieces(worker, &mut || false), &|| {
            let mut poll = Poll::new(interrupted);
            take_pieces(0, &mut || poll.stop());
            cancelled.set(poll.stopped);
        });
        if cancelled.get() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Opens a region for the workers, does the caller's part, closes it and waits for the workers that joined (or for all
    /// workers, with `all`). Panics with the first panic of any of them. The caller holds the turn.
    fn region(&self, all: bool, work: Work, own: &dyn Fn()) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; this function does not return before every worker that took the reference
        // has left the region, and clears it then.
        let lasting: Work<'static> = unsafe { std::mem::transmute::<Work, Work<'static>>(work) };
        // SAFETY: the region is closed and no worker is active, so there is no reader; the turn excludes other writers.
        shared.work.with_mut(|work| unsafe { *work = Some(lasting) });
        shared.finished.0.store(0, Ordering::Relaxed);
        let processor = if is_crowded() { current_processor() } else { UNKNOWN };
        shared.callers_processor.store(processor, Ordering::Relaxed);
        let epoch = (shared.state.0.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        shared.state.0.store(epoch << 32 | OPEN, Ordering::SeqCst);
        sequential();
        if shared.sleeping_workers.load(Ordering::SeqCst) > 0 {
            drop(shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            shared.work_is_there.notify_all();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _inside = Inside::enter();
            own();
        }));
        if all {
            shared.wait_for(|| shared.finished.0.load(Ordering::SeqCst) == self.workers.len());
        }
        shared.state.0.fetch_and(!OPEN, Ordering::SeqCst);
        shared.wait_for(|| shared.state.0.load(Ordering::SeqCst) & ACTIVE == 0);
        // SAFETY: as above: closed, and no worker is active.
        shared.work.with_mut(|work| unsafe { *work = None });
        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = outcome.err().or(theirs) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.work_is_there.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of the work, so it ends normally; there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl CrewState {
    /// The main loop of a worker.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        let mut placement = Placement::of_worker();
        while let Some(state) = self.next_region(seen, &mut placement) {
            seen = state >> 32;
            if !self.join(state) {
                continue;
            }
            // SAFETY: joining was granted while the region was open, so the caller has set `work` before and waits for
            // this worker to leave before it changes it.
            let work = self.work.with(|work| unsafe { *work });
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let _inside = Inside::enter();
                if let Some(work) = work {
                    work(worker);
                }
            }));
            if let Err(payload) = outcome {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
            self.finished.0.fetch_add(1, Ordering::SeqCst);
            self.state.0.fetch_sub(1, Ordering::SeqCst);
            sequential();
            if self.caller_asleep.load(Ordering::SeqCst) {
                drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
                self.work_is_done.notify_all();
            }
        }
    }

    /// Waits for a region other than `seen`; `None` when the pool ends.
    fn next_region(&self, seen: u64, placement: &mut Placement) -> Option<u64> {
        let state = || self.state.0.load(Ordering::SeqCst);
        let ready = || state() >> 32 != seen || self.stopping.load(Ordering::SeqCst);
        if !wait_briefly(ready) {
            placement.exclude(self.callers_processor.load(Ordering::Relaxed), self.shares.len() - 1);
            self.sleeping_workers.fetch_add(1, Ordering::SeqCst);
            sequential();
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            while !ready() {
                guard = self.work_is_there.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            self.sleeping_workers.fetch_sub(1, Ordering::SeqCst);
        }
        (!self.stopping.load(Ordering::SeqCst)).then(state)
    }

    /// Enters the region seen in `state`, unless it has been closed.
    fn join(&self, mut state: u64) -> bool {
        let epoch = state >> 32;
        while state >> 32 == epoch && state & OPEN != 0 {
            match self.state.0.compare_exchange_weak(state, state + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Lets the caller wait for its workers.
    fn wait_for(&self, done: impl Fn() -> bool) {
        if wait_briefly(&done) {
            return;
        }
        self.caller_asleep.store(true, Ordering::SeqCst);
        sequential();
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !done() {
            guard = self.work_is_done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.caller_asleep.store(false, Ordering::SeqCst);
    }
}
