//! What Python opens and closes: a file, a model, a vision encoder.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use crate::outside::released;

/// Something that `close` takes away; whatever still runs keeps its own reference. The lock is held only with the GIL and for
/// the duration of a copy, so a forking thread finds it unlocked.
pub(crate) struct Opened<T>(Mutex<Option<Arc<T>>>);

impl<T: Send + Sync> Opened<T> {
    pub(crate) fn new(inner: Arc<T>) -> Self {
        Self(Mutex::new(Some(inner)))
    }

    /// A reference; `None` after `close`.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // If this was the last reference, it ends threads and unmaps memory.
        released(py, || {
            drop(inner);
            Ok::<_, llamacpu_model::Error>(())
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}
