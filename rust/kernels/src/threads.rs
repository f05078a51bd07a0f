//! Worker threads: one pool per model, for regions of parallel work that are a few microseconds apart.
//!
//! A region is announced through one atomic word. Idle workers spin for some tens of microseconds (the time between two
//! regions of one step), then yield (the time between two steps), then sleep (between requests). A worker that arrives
//! late in a region of [`Context::for_each`](crate::context::Context::for_each) does not delay it: other workers take its
//! pieces.

mod bandwidth;
pub(crate) mod count;
mod crew;
pub(crate) mod placement;
mod share;
mod sync;
mod turn;
mod wait;

use std::sync::atomic::{AtomicPtr, Ordering};

pub use bandwidth::read_bandwidth;
pub use count::{Threads, default_threads};
use crew::Crew;
pub(crate) use wait::wait_briefly;

use crate::Error;

/// The maximum number of threads in a pool.
pub const MAX_THREADS: usize = 1024;

/// A fixed number of threads that work together; the caller of a region is worker 0.
///
/// Callers on several threads take turns, first come, first served. After `fork` the child process, which has none of
/// its parent's threads, starts its own workers at the next call. Dropping the pool ends its threads.
pub struct Pool {
    threads: usize,
    crew: AtomicPtr<Crew>,
}

impl Pool {
    /// Creates a pool of `threads` workers, including the caller: 1 to [`MAX_THREADS`].
    ///
    /// # Errors
    /// `Error::Shape` for a count out of range, `Error::Unsupported` if the system refuses to start a thread.
    pub fn new(threads: usize) -> Result<Self, Error> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::Shape(format!("{threads} threads asked for; expected 1 to {MAX_THREADS}")));
        }
        let (crew, refused) = Crew::start(threads);
        if let Some(reason) = refused {
            if reason.kind() == std::io::ErrorKind::OutOfMemory {
                return Err(Error::Memory { bytes: (threads - 1) << 21, purpose: "thread stacks" });
            }
            return Err(Error::Unsupported(format!(
                "the system refused to start {threads} threads ({reason}); ask for fewer threads"
            )));
        }
        Ok(Self { threads, crew: AtomicPtr::new(Box::into_raw(Box::new(crew))) })
    }

    /// Number of workers, including the caller.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(worker)` once on every worker, 0 to `threads() - 1`, and returns when all are done.
    ///
    /// # Panics
    /// With the panic of any worker, after all have stopped; and when called from inside a region, which would wait for
    /// itself.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        assert!(!crew::inside_region(), "Pool::run called inside a parallel region; start it from the outer caller");
        self.crew().run_on_all(self.threads, work);
    }

    /// Runs `work(piece)` for every piece; see `Context::for_each`.
    pub(crate) fn share(
        &self,
        pieces: usize,
        interrupted: Option<&(dyn Fn() -> bool + Sync)>,
        work: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Error> {
        self.crew().share(pieces, interrupted, work)
    }

    /// The workers of this process.
    fn crew(&self) -> &Crew {
        let found = self.crew.load(Ordering::Acquire);
        // SAFETY: the pointer comes from Box::into_raw, and a crew is freed only by `drop`, which has exclusive access.
        let crew = unsafe { &*found };
        if crew.belongs_here() { crew } else { self.recreate(found) }
    }

    /// Replaces the workers after `fork`. The parent's crew is left alone: its locks may be held by threads that do not
    /// exist here. If the system refuses some threads, those that did start do all the work.
    #[cold]
    fn recreate(&self, old: *mut Crew) -> &Crew {
        let fresh = Box::into_raw(Box::new(Crew::start(self.threads).0));
        match self.crew.compare_exchange(old, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `fresh` came from Box::into_raw just now and is owned by `self.crew` from here on.
            Ok(_) => unsafe { &*fresh },
            Err(current) => {
                // SAFETY: `fresh` was not published; no other thread has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as in `crew`: published crews live until `drop`.
                unsafe { &*current }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pointer comes from Box::into_raw and `&mut self` proves that no region is running.
        let crew = unsafe { Box::from_raw(*self.crew.get_mut()) };
        if crew.belongs_here() {
            drop(crew);
        } else {
            // Its threads live in the parent process only: there is nothing to join.
            std::mem::forget(crew);
        }
    }
}
