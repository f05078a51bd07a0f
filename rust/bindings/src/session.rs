//! `llamacpu._native.Session`: one conversation.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::adapters::{Adapter, Steering, adapters};
use crate::kv_type::kv_type_name;
use crate::lists::list;
use crate::outside::{attached, released};
use crate::saved_pictures::{SavedRow, saved_rows};

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

    /// Number of tokens that have been processed; during a step, the number before it.
    #[getter]
    fn position(&self, py: Python<'_>) -> PyResult<usize> {
        attached(py, || self.0.position())
    }

    /// The tokens that have been processed; during a step, those before it.
    #[getter]
    fn tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let tokens = attached(py, || self.0.tokens())?;
        list(py, &tokens)
    }

    /// Declares the tokens after the first `tokens` ones a second text.
    fn set_first_part(&self, tokens: usize) {
        self.0.set_first_part(tokens);
    }

    /// How keys and values are stored.
    #[getter]
    fn kv_type(&self) -> &'static str {
        kv_type_name(self.0.kv_type())
    }

    /// The keys and values of page `index`, as `Model.restore` takes them.
    fn page<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        not_in_its_handler(&self.0)?;
        let page = released(py, || self.0.page(index))?;
        PyBytes::new_with(py, page.len(), |bytes| {
            bytes.copy_from_slice(&page);
            Ok(())
        })
    }

    /// What `Model.restore` is told of the pictures among the tokens.
    fn saved_pictures(&self, py: Python<'_>) -> PyResult<Vec<SavedRow>> {
        not_in_its_handler(&self.0)?;
        attached(py, || saved_rows(&self.0))
    }

    /// Bytes of keys and values, including pages shared with forks; during a step, the size before it.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<usize> {
        attached(py, || self.0.nbytes())
    }

    /// A second conversation with the same past; the memory of the past is shared.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        not_in_its_handler(&self.0)?;
        attached(py, || self.0.fork()).map(Self::new)
    }

    /// Sets the control vectors and the adapters, each with its scale and the position from which it applies. Forgets
    /// tokens that were computed with others; returns how many are left.
    #[pyo3(signature = (low_rank, steering=None))]
    fn set_adapters(
        &self,
        py: Python<'_>,
        low_rank: Vec<(Bound<'_, Adapter>, f32, usize)>,
        steering: Option<&Bound<'_, Steering>>,
    ) -> PyResult<usize> {
        not_in_its_handler(&self.0)?;
        let adapters = adapters(low_rank, steering);
        attached(py, || self.0.set_adapters(adapters))
    }

    /// Declares that the tokens of a restored session were computed with these.
    #[pyo3(signature = (low_rank, steering=None))]
    fn declare_adapters(
        &self,
        py: Python<'_>,
        low_rank: Vec<(Bound<'_, Adapter>, f32, usize)>,
        steering: Option<&Bound<'_, Steering>>,
    ) -> PyResult<()> {
        let adapters = adapters(low_rank, steering);
        attached(py, || self.0.declare_adapters(adapters))
    }

    /// The largest position, up to `tokens`, to which the session can be truncated without recomputing tokens.
    fn resume_point(&self, py: Python<'_>, tokens: usize) -> PyResult<usize> {
        not_in_its_handler(&self.0)?;
        attached(py, || self.0.resume_point(tokens))
    }

    /// Forgets all but the first `tokens` tokens.
    fn truncate(&self, py: Python<'_>, tokens: usize) -> PyResult<()> {
        not_in_its_handler(&self.0)?;
        released(py, || self.0.truncate(tokens))
    }
}

thread_local! {
    /// The sessions that this thread is stepping: more than those of one step only inside a signal handler.
    static STEPPED: RefCell<Vec<Arc<llamacpu_model::Session>>> = const { RefCell::new(Vec::new()) };
}

/// Records that the calling thread is stepping some sessions, until it is dropped.
pub(crate) struct Stepped(usize);

impl Stepped {
    /// Raises a RuntimeError if this thread is already stepping one of them, which means that a signal handler is calling.
    pub(crate) fn by_this_thread<'a>(
        sessions: impl Iterator<Item = &'a Arc<llamacpu_model::Session>> + Clone,
    ) -> PyResult<Self> {
        sessions.clone().try_for_each(not_in_its_handler)?;
        Ok(STEPPED.with_borrow_mut(|stepped| {
            let before = stepped.len();
            stepped.extend(sessions.cloned());
            Self(before)
        }))
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        STEPPED.with_borrow_mut(|stepped| stepped.truncate(self.0));
    }
}

fn not_in_its_handler(session: &Arc<llamacpu_model::Session>) -> PyResult<()> {
    if STEPPED.with_borrow(|stepped| stepped.iter().any(|other| Arc::ptr_eq(other, session))) {
        return Err(PyRuntimeError::new_err(
            "the session is being stepped by this thread, in whose signal handler this is called; note what is to be done \
             and do it after the step, or fork the session before it starts",
        ));
    }
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Session>()
}
