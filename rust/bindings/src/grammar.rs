//! Grammars in GBNF and the tokens that they allow.
#![expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted by value")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llamacpu_text::grammar::{Matcher, Rules, TokenReference, Trie};
use numpy::{PyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::interrupt::{CancelToken, detached};

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
        let rules = detached(py, None, |_| Rules::parse(text, root))?;
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

/// The tokens of a vocabulary as a tree of their bytes.
#[pyclass(frozen, module = "llamacpu._native")]
struct TokenTrie {
    trie: Arc<Trie>,
}

#[pymethods]
impl TokenTrie {
    /// `texts` of all tokens; `named` are ids of those without a text that can be written; `ends` end a text.
    #[new]
    fn new(py: Python<'_>, texts: Vec<Bound<'_, PyBytes>>, named: Vec<u32>, ends: Vec<u32>) -> PyResult<Self> {
        let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
        let trie = detached(py, None, |_| Trie::new(texts, &named, &ends))?;
        Ok(Self { trie: Arc::new(trie) })
    }
}

/// A grammar and one text that is written under it.
#[pyclass(frozen, module = "llamacpu._native")]
struct GrammarMatcher {
    matcher: Mutex<Matcher>,
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
        let matcher = detached(py, cancel, |interrupted| Matcher::new(rules, trie, &references, interrupted))?;
        Ok(Self { matcher: Mutex::new(matcher) })
    }

    /// The text goes on by a token.
    #[pyo3(signature = (id, cancel=None))]
    fn consume(&self, py: Python<'_>, id: u32, cancel: Option<&CancelToken>) -> PyResult<()> {
        detached(py, cancel, |interrupted| self.locked().consume(id, &interrupted))
    }

    /// The text goes on by these bytes; false if the grammar forbids that.
    #[pyo3(signature = (text, cancel=None))]
    fn feed(&self, py: Python<'_>, text: &[u8], cancel: Option<&CancelToken>) -> PyResult<bool> {
        detached(py, cancel, |interrupted| self.locked().feed(text, &interrupted))
    }

    /// Sets the logits of tokens that cannot come next to minus infinity, in place; logits behind the vocabulary, too.
    #[pyo3(signature = (logits, cancel=None))]
    fn mask(
        &self,
        py: Python<'_>,
        mut logits: PyReadwriteArray1<'_, f32>,
        cancel: Option<&CancelToken>,
    ) -> PyResult<()> {
        let bits = detached(py, cancel, |interrupted| self.locked().allowed(&interrupted))?;
        let logits = logits
            .as_slice_mut()
            .map_err(|_| PyValueError::new_err("logits must be contiguous; numpy.ascontiguousarray makes them so"))?;
        for (place, logits) in logits.chunks_mut(64).enumerate() {
            let mut word = bits.get(place).copied().unwrap_or(0);
            if word == u64::MAX {
                continue;
            }
            for logit in logits {
                if word & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
                word >>= 1;
            }
        }
        Ok(())
    }

    /// The ids of the tokens that may come next, ascending.
    #[pyo3(signature = (cancel=None))]
    fn allowed<'py>(&self, py: Python<'py>, cancel: Option<&CancelToken>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let bits = detached(py, cancel, |interrupted| self.locked().allowed(&interrupted))?;
        let set = |id: &i64| bits[*id as usize / 64] >> (id % 64) & 1 != 0;
        Ok(PyArray1::from_iter(py, (0..64 * bits.len() as i64).filter(set)))
    }

    /// Whether the text so far is one of the grammar's.
    #[getter]
    fn accepting(&self, py: Python<'_>) -> bool {
        py.detach(|| self.locked().accepting())
    }

    /// Whether the text is one of the grammar's and no token but one that ends it may come next.
    #[pyo3(signature = (cancel=None))]
    fn stopped(&self, py: Python<'_>, cancel: Option<&CancelToken>) -> PyResult<bool> {
        detached(py, cancel, |interrupted| self.locked().stopped(&interrupted))
    }
}

impl GrammarMatcher {
    fn locked(&self) -> MutexGuard<'_, Matcher> {
        self.matcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Grammar>()?;
    module.add_class::<TokenTrie>()?;
    module.add_class::<GrammarMatcher>()
}
