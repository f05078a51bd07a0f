//! GBNF grammars and the tokens that they allow.
#![expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted by value")]

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use llamacpu_text::Error;
use llamacpu_text::grammar::{Matcher, Rules, TokenReference, Trie, forbid_others};
use numpy::{PyArray1, PyReadwriteArray1};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::IntoPython;
use crate::interrupt::CancelToken;
use crate::outside::{Interrupted, attached, detached, released};
use crate::pace::Pace;

/// A grammar in GBNF, read and checked.
#[pyclass(frozen, module = "llamacpu._native")]
struct Grammar {
    rules: Arc<Rules>,
}

#[pymethods]
impl Grammar {
    /// The grammar whose texts are those of the rule `root`.
    #[new]
    fn new(py: Python<'_>, text: &str, root: &str) -> PyResult<Self> {
        let rules = released(py, || Rules::parse(text, root))?;
        Ok(Self { rules: Arc::new(rules) })
    }

    /// The tokens that the grammar names: an id or a text each.
    #[getter]
    fn references(&self) -> Vec<(Option<u32>, Option<String>)> {
        let references = self.rules.references().iter();
        let pairs = references.map(|reference| match reference {
            TokenReference::Id(id) => (Some(*id), None),
            TokenReference::Text(text) => (None, Some(text.clone())),
        });
        pairs.collect()
    }
}

/// The tokens of a vocabulary as a trie over their bytes.
#[pyclass(frozen, module = "llamacpu._native")]
struct TokenTrie {
    trie: Arc<Trie>,
}

#[pymethods]
impl TokenTrie {
    /// `texts` of all tokens; `named` are ids of those without text that can be generated; `ends` end a text.
    #[new]
    fn new(py: Python<'_>, texts: Vec<Bound<'_, PyBytes>>, named: Vec<u32>, ends: Vec<u32>) -> PyResult<Self> {
        let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
        let trie = released(py, || Trie::new(texts, &named, &ends))?;
        Ok(Self { trie: Arc::new(trie) })
    }
}

/// A grammar, and one text that is generated under it.
#[pyclass(frozen, module = "llamacpu._native")]
struct GrammarMatcher {
    /// Nothing waits for it: a signal handler would wait for the call that it interrupts, a forked child for a lost thread.
    matcher: Arc<Mutex<Matcher>>,
    pace: Pace,
}

/// The ways in which a call to a matcher can fail.
enum Failure {
    Busy,
    Text(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Text(error)
    }
}

impl IntoPython for Failure {
    fn into_python(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Busy => PyRuntimeError::new_err(
                "the matcher is in the middle of another call, of another thread or of the one that a signal handler \
                 interrupts; use one matcher for each text",
            ),
            Self::Text(error) => error.into_python(py),
        }
    }
}

#[pymethods]
impl GrammarMatcher {
    /// `references` are the ids of the tokens that the grammar names.
    #[new]
    #[pyo3(signature = (grammar, trie, references, cancel=None))]
    fn new(
        py: Python<'_>,
        grammar: &Bound<'_, Grammar>,
        trie: &Bound<'_, TokenTrie>,
        references: Vec<u32>,
        cancel: Option<&CancelToken>,
    ) -> PyResult<Self> {
        let (rules, trie) = (Arc::clone(&grammar.get().rules), Arc::clone(&trie.get().trie));
        let matcher =
            detached(py, cancel, true, move |interrupted| Matcher::new(rules, trie, &references, interrupted))?;
        Ok(Self { matcher: Arc::new(Mutex::new(matcher)), pace: Pace::default() })
    }

    /// Begins another text under the grammar, reusing what was computed for the last one.
    #[pyo3(signature = (cancel=None))]
    fn restart(&self, py: Python<'_>, cancel: Option<&CancelToken>) -> PyResult<()> {
        self.call(py, cancel, |matcher, interrupted| matcher.restart(&interrupted))
    }

    /// Extends the text by a token.
    #[pyo3(signature = (id, cancel=None))]
    fn consume(&self, py: Python<'_>, id: u32, cancel: Option<&CancelToken>) -> PyResult<()> {
        self.call(py, cancel, move |matcher, interrupted| matcher.consume(id, &interrupted))
    }

    /// Extends the text by these bytes; false, with the state unchanged, if the grammar forbids it.
    #[pyo3(signature = (text, cancel=None))]
    fn feed(&self, py: Python<'_>, text: &[u8], cancel: Option<&CancelToken>) -> PyResult<bool> {
        let text = text.to_vec();
        self.call(py, cancel, move |matcher, interrupted| matcher.feed(&text, &interrupted))
    }

    /// Sets the logits of tokens that cannot come next to minus infinity, in place, and those after the vocabulary.
    #[pyo3(signature = (logits, cancel=None))]
    fn mask(
        &self,
        py: Python<'_>,
        mut logits: PyReadwriteArray1<'_, f32>,
        cancel: Option<&CancelToken>,
    ) -> PyResult<()> {
        let bits = self.call(py, cancel, |matcher, interrupted| matcher.allowed(&interrupted))?;
        let logits = logits
            .as_slice_mut()
            .map_err(|_| PyValueError::new_err("logits must be contiguous; numpy.ascontiguousarray makes them so"))?;
        forbid_others(&bits, logits);
        Ok(())
    }

    /// The ids of the tokens that may come next, ascending.
    #[pyo3(signature = (cancel=None))]
    fn allowed<'py>(&self, py: Python<'py>, cancel: Option<&CancelToken>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let bits = self.call(py, cancel, |matcher, interrupted| matcher.allowed(&interrupted))?;
        let set = |id: &i64| bits[*id as usize / 64] >> (id % 64) & 1 != 0;
        Ok(PyArray1::from_iter(py, (0..64 * bits.len() as i64).filter(set)))
    }

    /// Whether the text so far is a complete text of the grammar.
    #[getter]
    fn accepting(&self, py: Python<'_>) -> PyResult<bool> {
        attached(py, || Ok::<_, Failure>(held(&self.matcher)?.accepting()))
    }

    /// Whether the text is complete and only a token that ends it may come next.
    #[pyo3(signature = (cancel=None))]
    fn stopped(&self, py: Python<'_>, cancel: Option<&CancelToken>) -> PyResult<bool> {
        self.call(py, cancel, |matcher, interrupted| matcher.stopped(&interrupted))
    }
}

impl GrammarMatcher {
    /// Runs `work`, on the calling thread if calls have been quick so far.
    fn call<T: Send + 'static>(
        &self,
        py: Python<'_>,
        cancel: Option<&CancelToken>,
        work: impl FnOnce(&mut Matcher, Interrupted) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        let (matcher, start) = (Arc::clone(&self.matcher), Instant::now());
        let outcome = detached(py, cancel, self.pace.is_long(1), move |interrupted| {
            Ok::<_, Failure>(work(&mut *held(&matcher)?, interrupted)?)
        });
        self.pace.note(1, start.elapsed());
        outcome
    }
}

/// Locks the matcher, unless another call holds it.
fn held(matcher: &Mutex<Matcher>) -> Result<MutexGuard<'_, Matcher>, Failure> {
    match matcher.try_lock() {
        Ok(matcher) => Ok(matcher),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(Failure::Busy),
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Grammar>()?;
    module.add_class::<TokenTrie>()?;
    module.add_class::<GrammarMatcher>()
}
