//! The only place where native work is run for Python: with the panic guard; without the GIL if it takes long; and on a
//! separate thread if it takes longer than Python's main thread may be unresponsive, so that signal handlers run
//! outside every lock.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use llamacpu_kernels::memory;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::{IntoPython, raise};
use crate::interrupt::CancelToken;
use crate::stand_in::{StandIn, Waited};

/// How often Python is polled for signals.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// While another Python thread computes, polling takes milliseconds: at most 1/`POLL_SHARE` of the time is spent on it.
const POLL_SHARE: u32 = 20;
/// However, signals never wait longer than this.
const POLL_LIMIT: Duration = Duration::from_millis(100);

/// Polled periodically by long work to find out whether it should stop.
pub(crate) type Interrupted<'a> = &'a (dyn Fn() -> bool + Sync);

type Outcome<T, E> = Result<Result<T, E>, Box<dyn Any + Send>>;

/// Runs work that finishes immediately, with the GIL held. A panic becomes `LlamaCpuError`, as everywhere here.
pub(crate) fn attached<T, E: IntoPython>(py: Python<'_>, work: impl FnOnce() -> Result<T, E>) -> PyResult<T> {
    ready(py)?;
    finished(py, guarded(work))
}

/// Runs work that takes a few milliseconds at most, without the GIL.
pub(crate) fn released<T: Send, E: IntoPython + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    ready(py)?;
    let outcome = py.detach(|| guarded(work));
    finished(py, outcome)
}

/// Runs `work` without the GIL. `work` receives a function that returns whether it should stop: true once `token` is
/// cancelled or a signal handler has raised (Ctrl-C). Python runs its handlers on its main thread only: there, work
/// that is expected to be `long` goes to a stand-in thread, while the main thread waits and holds nothing. A handler
/// may therefore use models, and sessions other than those that are being stepped.
pub(crate) fn detached<T: Send + 'static, E: IntoPython + Send + 'static>(
    py: Python<'_>,
    token: Option<&CancelToken>,
    long: bool,
    work: impl FnOnce(Interrupted) -> Result<T, E> + Send + 'static,
) -> PyResult<T> {
    let token = token.cloned();
    if !long || !on_main_thread(py)? {
        return released(py, move || work(&|| token.as_ref().is_some_and(CancelToken::cancelled)));
    }
    ready(py)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let work = move || {
        let interrupted = || stopped.load(Ordering::Relaxed) || token.as_ref().is_some_and(CancelToken::cancelled);
        guarded(|| work(&interrupted))
    };
    let (outcome, error) = py.detach(|| wait_for(StandIn::start(work), &stop));
    match (error, outcome) {
        (Some(error), _) => Err(error),
        (None, Some(outcome)) => finished(py, outcome),
        (None, None) => Err(PyRuntimeError::new_err(
            "this process was forked by a signal handler in the middle of a step: the child cannot finish the step; \
             leave the handler by os._exit, or fork outside of it",
        )),
    }
}

/// Waits, letting Python run its signal handlers periodically. Returns the result of the work, unless the thread that
/// does it was left behind in the parent process, and the exception that a handler raised, if any.
fn wait_for<R>(mut stand_in: StandIn<R>, stop: &AtomicBool) -> (Option<R>, Option<PyErr>) {
    let mut error = None;
    let mut pause = POLL_INTERVAL;
    loop {
        match stand_in.wait(pause) {
            Waited::Done(outcome) => return (Some(outcome), error),
            Waited::LeftBehind => return (None, error),
            Waited::NotYet(again) => stand_in = again,
        }
        if error.is_none() {
            let start = Instant::now();
            error = Python::attach(|py| py.check_signals().err());
            pause = (start.elapsed() * POLL_SHARE).clamp(POLL_INTERVAL, POLL_LIMIT);
            stop.store(error.is_some(), Ordering::Relaxed);
        }
    }
}

/// Raises a MemoryError if the process has no memory left for small allocations, which cannot fail in any other way.
fn ready(py: Python<'_>) -> PyResult<()> {
    memory::ready().map_err(|error| error.into_python(py))
}

fn on_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    main.eq(threading.call_method0("get_ident")?)
}

fn guarded<T, E>(work: impl FnOnce() -> Result<T, E>) -> Outcome<T, E> {
    catch_unwind(AssertUnwindSafe(work))
}

fn finished<T, E: IntoPython>(py: Python<'_>, outcome: Outcome<T, E>) -> PyResult<T> {
    match outcome {
        Ok(result) => result.map_err(|error| error.into_python(py)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            Err(raise(py, "LlamaCpuError", &format!("internal error, please report it: {text}")))
        }
    }
}
