//! The tokenizer and its streaming decoder.
#![expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted by value")]

use std::borrow::Cow;
use std::sync::Arc;

use llamacpu_text::{Error, Family, TextStream, Tokens, WhiteSpace, index_strings};
use numpy::PyReadonlyArray1;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::gguf::Buffer;
use crate::lists::{copy_of, integers, list};
use crate::outside::{attached, released};

/// Text to token ids and back, built from the arrays of a GGUF file. BOS and EOS are added in Python.
#[pyclass(frozen, module = "llamacpu._native")]
struct Tokenizer {
    inner: Arc<llamacpu_text::Tokenizer>,
}

/// The bytes of a string array as stored in a file, and the number of strings.
type StringArray<'py> = (Bound<'py, PyAny>, u64);

#[pymethods]
impl Tokenizer {
    /// A SentencePiece-style vocabulary (`llama`).
    #[staticmethod]
    #[pyo3(signature = (tokens, kinds, scores, unknown, space_prefix, strips_right_except))]
    fn sentence_piece(
        py: Python<'_>,
        tokens: StringArray<'_>,
        kinds: Option<PyReadonlyArray1<'_, i32>>,
        scores: Option<PyReadonlyArray1<'_, f32>>,
        unknown: Option<u32>,
        space_prefix: bool,
        strips_right_except: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let (buffer, count) = (Buffer::of(&tokens.0)?, tokens.1);
        let data = &*unchanging(&buffer)?;
        let (kinds, scores) = (copied(kinds)?, copied(scores)?);
        let (kinds, scores) = (kinds.as_deref(), scores.as_deref());
        let strips_right_except = strips_right_except.as_deref();
        let family = Family::SentencePiece { scores, unknown, space_prefix };
        Self::build(py, || {
            let texts = &index_strings(data, 0, count)?;
            llamacpu_text::Tokenizer::new(Tokens { data, texts, kinds, strips_right_except }, family)
        })
    }

    /// A BPE vocabulary with a list of merges (`gpt2`).
    #[staticmethod]
    #[pyo3(signature = (tokens, kinds, merges, pre, strips_right_except, white_space="kept"))]
    fn byte_pair(
        py: Python<'_>,
        tokens: StringArray<'_>,
        kinds: Option<PyReadonlyArray1<'_, i32>>,
        merges: StringArray<'_>,
        pre: &str,
        strips_right_except: Option<Vec<String>>,
        white_space: &str,
    ) -> PyResult<Self> {
        let white_space = match white_space {
            "kept" => WhiteSpace::Kept,
            "dropped" => WhiteSpace::Dropped,
            "dropped, lowercase" => WhiteSpace::DroppedAndLowercase,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "there is no way to treat white space called {white_space:?}"
                )));
            }
        };
        let (buffer, count) = (Buffer::of(&tokens.0)?, tokens.1);
        let (merge_buffer, merge_count) = (Buffer::of(&merges.0)?, merges.1);
        let (data, merges) = (&*unchanging(&buffer)?, &*unchanging(&merge_buffer)?);
        let kinds = copied(kinds)?;
        let kinds = kinds.as_deref();
        let strips_right_except = strips_right_except.as_deref();
        Self::build(py, || {
            let texts = &index_strings(data, 0, count)?;
            let index = &index_strings(merges, 0, merge_count)?;
            let tokens = Tokens { data, texts, kinds, strips_right_except };
            llamacpu_text::Tokenizer::new(tokens, Family::BytePair { data: merges, merges: index, pre, white_space })
        })
    }

    /// A WordPiece vocabulary (`bert`).
    #[staticmethod]
    fn word_piece(
        py: Python<'_>,
        tokens: StringArray<'_>,
        kinds: Option<PyReadonlyArray1<'_, i32>>,
        unknown: Option<u32>,
        lowercase: bool,
        strip_accents: bool,
    ) -> PyResult<Self> {
        let (buffer, count) = (Buffer::of(&tokens.0)?, tokens.1);
        let data = &*unchanging(&buffer)?;
        let kinds = copied(kinds)?;
        let kinds = kinds.as_deref();
        Self::build(py, || {
            let texts = &index_strings(data, 0, count)?;
            let tokens = Tokens { data, texts, kinds, strips_right_except: None };
            llamacpu_text::Tokenizer::new(tokens, Family::WordPiece { unknown, lowercase, strip_accents })
        })
    }

    /// A Unigram vocabulary (`t5`).
    #[staticmethod]
    fn unigram(
        py: Python<'_>,
        tokens: StringArray<'_>,
        kinds: Option<PyReadonlyArray1<'_, i32>>,
        scores: Option<PyReadonlyArray1<'_, f32>>,
        unknown: Option<u32>,
        charsmap: Option<&[u8]>,
        space_prefix: bool,
        merges_spaces: bool,
    ) -> PyResult<Self> {
        let (buffer, count) = (Buffer::of(&tokens.0)?, tokens.1);
        let data = &*unchanging(&buffer)?;
        let (kinds, scores) = (copied(kinds)?, copied(scores)?);
        let (kinds, scores) = (kinds.as_deref(), scores.as_deref());
        let family = Family::Unigram { scores, unknown, charsmap, space_prefix, merges_spaces };
        Self::build(py, || {
            let texts = &index_strings(data, 0, count)?;
            llamacpu_text::Tokenizer::new(Tokens { data, texts, kinds, strips_right_except: None }, family)
        })
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocabulary_size()
    }

    #[getter]
    fn adds_bos(&self) -> bool {
        self.inner.adds_bos()
    }

    #[getter]
    fn endings(&self) -> Vec<u32> {
        self.inner.endings().to_vec()
    }

    /// The id of the token whose text in the file is `text`.
    fn token(&self, text: &str) -> Option<u32> {
        self.inner.token(text)
    }

    /// The text of a token as the file has it.
    fn piece(&self, py: Python<'_>, id: i64) -> PyResult<String> {
        attached(py, || self.inner.piece(id))
    }

    /// Whether a token is of the control kind.
    fn is_control(&self, id: u32) -> bool {
        self.inner.kind(id) == llamacpu_text::Kind::Control
    }

    /// The ids of a text.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'py, PyAny>,
        parse_special: bool,
        space_first: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let bytes = if let Ok(text) = text.cast::<PyString>() {
            text.to_str()?.as_bytes()
        } else if let Ok(bytes) = text.cast::<PyBytes>() {
            bytes.as_bytes()
        } else {
            return Err(PyTypeError::new_err(format!("a text is str or bytes, not {}", text.get_type().name()?)));
        };
        let ids = released(py, || self.inner.encode(bytes, parse_special, space_first))?;
        list(py, &ids)
    }

    /// The bytes of a sequence of ids.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        special: bool,
        stand_alone: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let ids = integers(ids)?;
        let bytes = released(py, || self.inner.decode(&ids, special, stand_alone))?;
        PyBytes::new_with(py, bytes.len(), |out| {
            out.copy_from_slice(&bytes);
            Ok(())
        })
    }

    /// A decoder for a stream of ids.
    fn stream(&self, special: bool) -> StreamDecoder {
        StreamDecoder { tokenizer: Arc::clone(&self.inner), special, text: TextStream::default() }
    }
}

impl Tokenizer {
    fn build(py: Python<'_>, make: impl FnOnce() -> Result<llamacpu_text::Tokenizer, Error> + Send) -> PyResult<Self> {
        let inner = released(py, make)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// The bytes of a string array: the file's own, or a copy if Python may change them while the tokenizer is built
/// without the GIL.
fn unchanging<'a>(buffer: &'a Buffer<'_>) -> PyResult<Cow<'a, [u8]>> {
    let data = buffer.bytes()?;
    Ok(if buffer.fixed() { Cow::Borrowed(data) } else { Cow::Owned(copy_of(data)?) })
}

/// A copy of the elements of an array, which Python may change afterwards.
fn copied<T: numpy::Element + Copy>(array: Option<PyReadonlyArray1<'_, T>>) -> PyResult<Option<Vec<T>>> {
    array.map(|array| copy_of(array.as_slice()?)).transpose()
}

/// Turns a stream of ids into text, never returning part of a character.
#[pyclass(module = "llamacpu._native")]
struct StreamDecoder {
    tokenizer: Arc<llamacpu_text::Tokenizer>,
    special: bool,
    text: TextStream,
}

#[pymethods]
impl StreamDecoder {
    /// The text that this id completes.
    fn push(&mut self, py: Python<'_>, id: i64) -> PyResult<String> {
        let mut bytes = Vec::new();
        attached(py, || {
            self.tokenizer.decode_into(id, self.special, &mut bytes)?;
            Ok::<_, Error>(self.text.push(&bytes))
        })
    }

    /// The rest of the text at the end: U+FFFD for an incomplete character.
    fn flush(&mut self) -> String {
        self.text.flush()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()?;
    module.add_class::<StreamDecoder>()
}
