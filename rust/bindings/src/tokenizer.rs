//! The tokenizer and its streaming decoder.
#![expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted by value")]

use std::borrow::Cow;
use std::sync::Arc;

use llamacpu_text::{Error, Family, Index, TextStream, Tokens, index_strings};
use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::gguf::Buffer;
use crate::outside::{attached, released};

/// Text to token ids and back, built from the arrays of a GGUF file. BOS and EOS are added in Python.
#[pyclass(frozen, module = "llamacpu._native")]
struct Tokenizer {
    inner: Arc<llamacpu_text::Tokenizer>,
}

/// Position of the first length prefix, and number of strings.
type StringArray = (u64, u64);

#[pymethods]
impl Tokenizer {
    /// A SentencePiece-style vocabulary (`llama`).
    #[staticmethod]
    #[pyo3(signature = (buffer, tokens, kinds, scores, unknown, space_prefix, strips_right_except))]
    fn sentence_piece(
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        tokens: StringArray,
        kinds: Option<PyReadonlyArray1<'_, i32>>,
        scores: Option<PyReadonlyArray1<'_, f32>>,
        unknown: Option<u32>,
        space_prefix: bool,
        strips_right_except: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let buffer = Buffer::of(buffer)?;
        let data = &*unchanging(py, &buffer, &[tokens])?;
        let (kinds, scores) = (copied(kinds)?, copied(scores)?);
        let (kinds, scores) = (kinds.as_deref(), scores.as_deref());
        let strips_right_except = strips_right_except.as_deref();
        let family = Family::SentencePiece { scores, unknown, space_prefix };
        Self::build(py, || {
            let texts = &index(data, tokens)?;
            llamacpu_text::Tokenizer::new(Tokens { data, texts, kinds, strips_right_except }, family)
        })
    }

    /// A byte-level BPE vocabulary (`gpt2`).
    #[staticmethod]
    fn byte_pair(
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        tokens: StringArray,
        kinds: Option<PyReadonlyArray1<'_, i32>>,
        merges: StringArray,
        pre: &str,
        strips_right_except: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let buffer = Buffer::of(buffer)?;
        let data = &*unchanging(py, &buffer, &[tokens, merges])?;
        let kinds = copied(kinds)?;
        let kinds = kinds.as_deref();
        let strips_right_except = strips_right_except.as_deref();
        Self::build(py, || {
            let (texts, merges) = (&index(data, tokens)?, &index(data, merges)?);
            let tokens = Tokens { data, texts, kinds, strips_right_except };
            llamacpu_text::Tokenizer::new(tokens, Family::BytePair { merges, pre })
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
    fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        parse_special: bool,
        space_first: bool,
    ) -> PyResult<Vec<u32>> {
        let bytes = if let Ok(text) = text.cast::<PyString>() {
            text.to_str()?.as_bytes()
        } else if let Ok(bytes) = text.cast::<PyBytes>() {
            bytes.as_bytes()
        } else {
            return Err(PyTypeError::new_err(format!("a text is str or bytes, not {}", text.get_type().name()?)));
        };
        released(py, || self.inner.encode(bytes, parse_special, space_first))
    }

    /// The bytes of a sequence of ids.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<i64>,
        special: bool,
        stand_alone: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = released(py, || self.inner.decode(&ids, special, stand_alone))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// A decoder for ids that come one by one.
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

/// The bytes of the header that hold some string arrays: the file's own, or a copy of what Python may change while the
/// tokenizer is built without the GIL.
fn unchanging<'a>(py: Python<'_>, buffer: &'a Buffer<'_>, arrays: &[StringArray]) -> PyResult<Cow<'a, [u8]>> {
    let data = buffer.bytes()?;
    if buffer.fixed() {
        return Ok(Cow::Borrowed(data));
    }
    let ends = arrays.iter().map(|array| index(data, *array).map(|index| index.end));
    let end = attached(py, || ends.collect::<Result<Vec<_>, _>>())?.into_iter().max().unwrap_or(0);
    Ok(Cow::Owned(data[..usize::try_from(end).unwrap_or(usize::MAX).min(data.len())].to_vec()))
}

/// The numbers of an array, which Python may change afterwards.
fn copied<T: numpy::Element + Copy>(array: Option<PyReadonlyArray1<'_, T>>) -> PyResult<Option<Vec<T>>> {
    Ok(array.map(|array| array.as_slice().map(<[T]>::to_vec)).transpose()?)
}

fn index(data: &[u8], (start, count): StringArray) -> Result<Index, Error> {
    index_strings(data, start, count)
}

/// Turns ids that come one by one into text, never half a character at a time.
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

    /// What is left at the end: U+FFFD for half a character.
    fn flush(&mut self) -> String {
        self.text.flush()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()?;
    module.add_class::<StreamDecoder>()
}
