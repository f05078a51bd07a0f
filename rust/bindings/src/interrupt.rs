//! Stopping long work from any thread: `CancelToken`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// A single reason to stop.
struct Limit {
    cancelled: AtomicBool,
    deadline: Option<Instant>,
}

impl Limit {
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What stopped a token, as a value shared between threads; 0 if nothing has.
const CANCELLED: u8 = 1;
const TIMEOUT: u8 = 2;

/// A flag that stops a running step, set from any thread or by a timeout. A token made with a parent is cancelled along
/// with it; cancelling the token does not affect the parent.
#[pyclass(frozen, module = "llamacpu._native")]
#[derive(Clone)]
pub(crate) struct CancelToken {
    /// The token's own limit, and those of its parents.
    limits: Vec<Arc<Limit>>,
    /// Set by whichever thread first sees that a limit has been reached, and fixed from then on.
    reason: Arc<AtomicU8>,
}

impl CancelToken {
    fn reached(&self) -> u8 {
        let known = self.reason.load(Ordering::Acquire);
        if known != 0 {
            return known;
        }
        let seen = if self.limits.iter().any(|limit| limit.cancelled()) {
            CANCELLED
        } else if self.limits.iter().any(|limit| limit.late()) {
            TIMEOUT
        } else {
            return 0;
        };
        self.reason.compare_exchange(0, seen, Ordering::AcqRel, Ordering::Acquire).map_or_else(|first| first, |_| seen)
    }
}

#[pymethods]
impl CancelToken {
    /// `timeout` in seconds from now; `None` for no limit.
    #[new]
    #[pyo3(signature = (timeout=None, parent=None))]
    fn new(timeout: Option<f64>, parent: Option<&Bound<'_, Self>>) -> PyResult<Self> {
        let deadline = match timeout {
            None => None,
            // A deadline too far away to be represented never comes.
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
        Ok(Self { limits, reason: Arc::new(AtomicU8::new(0)) })
    }

    /// Stops every step that was given this token or a child of it, or will be.
    fn cancel(&self) {
        // `new` puts the token's own limit first.
        if let Some(own) = self.limits.first() {
            own.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `cancel` has been called or the timeout has expired, here or at a parent.
    #[getter]
    pub(crate) fn cancelled(&self) -> bool {
        self.reached() != 0
    }

    /// What stopped it, here or at a parent: "cancelled" or "timeout", whichever was seen first; `None` while nothing has.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        match self.reached() {
            CANCELLED => Some("cancelled"),
            TIMEOUT => Some("timeout"),
            _ => None,
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CancelToken>()
}
