//! Threads that do long work on behalf of Python's main thread, which meanwhile runs signal handlers.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use llamacpu_kernels::memory;

type Job = Box<dyn FnOnce() + Send>;

/// Threads kept for later calls; a call inside a signal handler needs one more than the call that it interrupts.
const KEPT: usize = 2;

/// A thread that runs one job after another.
struct Worker {
    process: u32,
    jobs: Option<Sender<Job>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Left behind in the parent process, perhaps with a lock of the channel held.
            std::mem::forget(self.jobs.take());
        }
    }
}

thread_local! {
    /// Thread-local, so that no lock is shared with another thread.
    static IDLE: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
}

/// Work that is running on another thread.
pub(crate) struct StandIn<R> {
    process: u32,
    worker: Option<Worker>,
    outcome: Receiver<R>,
}

/// The outcome of waiting.
pub(crate) enum Waited<R> {
    /// The work is done.
    Done(R),
    /// The work is still running.
    NotYet(StandIn<R>),
    /// This is a child process, and the work continues only in its parent.
    LeftBehind,
}

impl<R: Send + 'static> StandIn<R> {
    /// Gives `work` to an idle thread or to a new one. If the system refuses a new thread, the work runs here and now.
    pub(crate) fn start(work: impl FnOnce() -> R + Send + 'static) -> Self {
        let (sender, outcome) = channel();
        let job: Job = Box::new(move || {
            // Nobody is waiting any more only if the process is ending.
            let _ = sender.send(work());
        });
        let process = std::process::id();
        let worker = idle(process).or_else(|| spawn(process));
        // A worker ends only with its process, so it accepts every job.
        let refused = match worker.as_ref().and_then(|worker| worker.jobs.as_ref()) {
            Some(jobs) => jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            job();
        }
        Self { process, worker, outcome }
    }
}

impl<R> StandIn<R> {
    /// Waits for the work to end, for at most `pause`.
    pub(crate) fn wait(self, pause: Duration) -> Waited<R> {
        if self.process != std::process::id() {
            // A thread that does not exist here may have held the locks inside.
            std::mem::forget(self);
            return Waited::LeftBehind;
        }
        match self.outcome.recv_timeout(pause) {
            Ok(outcome) => {
                if let Some(worker) = self.worker {
                    IDLE.with_borrow_mut(|idle| {
                        if idle.len() < KEPT {
                            idle.push(worker);
                        }
                    });
                }
                Waited::Done(outcome)
            }
            Err(RecvTimeoutError::Timeout) => Waited::NotYet(self),
            // Jobs catch panics, so a thread never ends in the middle of one.
            Err(RecvTimeoutError::Disconnected) => Waited::LeftBehind,
        }
    }
}

/// An idle thread of this process.
fn idle(process: u32) -> Option<Worker> {
    IDLE.with_borrow_mut(|idle| {
        idle.retain(|worker| worker.process == process);
        idle.pop()
    })
}

fn spawn(process: u32) -> Option<Worker> {
    let (jobs, received) = channel::<Job>();
    let work = move || received.into_iter().for_each(|job| job());
    let spawned = memory::spawn(Builder::new().name("llamacpu-main".to_owned()), work);
    spawned.ok().map(|_| Worker { process, jobs: Some(jobs) })
}
