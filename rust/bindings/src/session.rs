//! `llamacpu._native.Session`: one conversation.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::IntoPython;
use crate::interrupt::detached;
use crate::kv_type::kv_type_name;

/// Tokens and their keys and values; continued by `Model.step`.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct Session(Arc<llamacpu_model::Session>);

impl Session {
    pub(crate) fn new(session: llamacpu_model::Session) -> Self {
        Self(Arc::new(session))
    }

    pub(crate) fn inner(&self) -> Arc<llamacpu_model::Session> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Session {
    /// The most tokens that the session may hold.
    #[getter]
    fn context(&self) -> usize {
        self.0.context()
    }

    /// Number of tokens that have been processed; waits for a running step.
    #[getter]
    fn position(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.position())
    }

    /// The tokens that have been processed; waits for a running step.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> Vec<u32> {
        py.detach(|| self.0.tokens())
    }

    /// How keys and values are stored; waits for a running step.
    #[getter]
    fn kv_type(&self, py: Python<'_>) -> &'static str {
        kv_type_name(py.detach(|| self.0.kv_type()))
    }

    /// The keys and values of page `index`, as `Model.restore` takes them.
    fn page<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let page = py.detach(|| self.0.page(index)).map_err(|error| error.into_python(py))?;
        PyBytes::new_with(py, page.len(), |bytes| {
            bytes.copy_from_slice(&page);
            Ok(())
        })
    }

    /// Bytes of keys and values, pages shared with forks included; waits for a running step.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.nbytes())
    }

    /// A second conversation with the same past; the memory of the past is shared.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        self.0.fork().map(Self::new).map_err(|error| error.into_python(py))
    }

    /// Forgets all but the first `tokens` tokens.
    fn truncate(&self, py: Python<'_>, tokens: usize) -> PyResult<()> {
        detached(py, None, |_| self.0.truncate(tokens))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Session>()
}
