//! The one place where the GIL is released: long work runs here, can be stopped from Python, and ends in a Python
//! exception whatever happens.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::errors::{IntoPython, raise};

/// How often Python is asked for signals.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// While another Python thread computes, asking takes milliseconds: at most this part of the time is spent on it.
const POLL_SHARE: u32 = 20;
/// But signals never wait longer.
const POLL_LIMIT: Duration = Duration::from_millis(100);

/// One reason to stop.
struct Limit {
    cancelled: AtomicBool,
    deadline: Option<Instant>,
}

impl Limit {
    fn reached(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A flag that stops a running step from any thread, or when its time is over. A token made with a parent is cancelled
/// with it too; cancelling it leaves the parent alone.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct CancelToken {
    /// Its own, and those of its parents.
    limits: Vec<Arc<Limit>>,
}

#[pymethods]
impl CancelToken {
    /// `timeout` in seconds from now; `None` for no limit.
    #[new]
    #[pyo3(signature = (timeout=None, parent=None))]
    fn new(timeout: Option<f64>, parent: Option<&Bound<'_, Self>>) -> PyResult<Self> {
        let deadline = match timeout {
            None => None,
            // A time too far away to be counted never comes.
            Some(seconds) if seconds >= 0.0 => {
                Duration::try_from_secs_f64(seconds).ok().and_then(|time| Instant::now().checked_add(time))
            }
            Some(seconds) => {
                let message = format!("a timeout of {seconds} seconds: expected a number that is not negative");
                return Err(pyo3::exceptions::PyValueError::new_err(message));
            }
        };
        let own = Arc::new(Limit { cancelled: AtomicBool::new(false), deadline });
        let limits = std::iter::once(own).chain(parent.iter().flat_map(|parent| parent.get().limits.clone())).collect();
        Ok(Self { limits })
    }

    /// Stops every step that was given this token or a child of it, now and later.
    fn cancel(&self) {
        // `new` puts the token's own limit first.
        if let Some(own) = self.limits.first() {
            own.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `cancel` has been called or the time is over, here or at a parent.
    #[getter]
    pub(crate) fn cancelled(&self) -> bool {
        self.limits.iter().any(|limit| limit.reached())
    }
}

/// Runs `work` without the GIL. `work` is given the question whether it should stop: the answer is yes once `token` is
/// cancelled or, on Python's main thread, a signal handler has raised (Ctrl-C). A panic becomes `LlamaCpuError`.
pub(crate) fn detached<T: Send, E: IntoPython + Send>(
    py: Python<'_>,
    token: Option<&CancelToken>,
    work: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Result<T, E> + Send,
) -> PyResult<T> {
    let signals = Signals::new(py)?;
    let outcome = py.detach(|| {
        let interrupted = || token.is_some_and(CancelToken::cancelled) || signals.raised();
        catch_unwind(AssertUnwindSafe(|| work(&interrupted)))
    });
    if let Some(error) = signals.error() {
        return Err(error);
    }
    match outcome {
        Ok(result) => result.map_err(|error| error.into_python(py)),
        Err(panic) => {
            let message = format!("internal error, please report it: {}", panic_message(panic.as_ref()));
            Err(raise(py, "LlamaCpuError", &message))
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Python's signal handlers, run now and then from inside long work.
struct Signals {
    state: Mutex<SignalState>,
}

struct SignalState {
    /// When to ask next; `None` on other threads than the main one, where Python runs no handlers.
    next: Option<Instant>,
    error: Option<PyErr>,
}

impl Signals {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let threading = py.import("threading")?;
        let main = threading.call_method0("main_thread")?.getattr("ident")?;
        let here = threading.call_method0("get_ident")?;
        let next = if main.eq(here)? { Instant::now().checked_add(POLL_INTERVAL) } else { None };
        Ok(Self { state: Mutex::new(SignalState { next, error: None }) })
    }

    /// Whether a handler has raised; asks Python when it is time.
    fn raised(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.error.is_some() {
            return true;
        }
        let start = Instant::now();
        if state.next.is_none_or(|next| start < next) {
            return false;
        }
        state.error = Python::attach(|py| py.check_signals().err());
        let pause = (start.elapsed() * POLL_SHARE).clamp(POLL_INTERVAL, POLL_LIMIT);
        state.next = Instant::now().checked_add(pause);
        state.error.is_some()
    }

    fn error(self) -> Option<PyErr> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).error
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CancelToken>()
}
