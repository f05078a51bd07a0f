//! What stops long work from any thread: `CancelToken`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

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
#[derive(Clone)]
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

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CancelToken>()
}
