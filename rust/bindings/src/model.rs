//! `llamacpu._native.Model`: memory-mapped weights and the step.

use std::sync::Arc;
use std::time::Instant;

use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMapping};

use llamacpu_kernels::attention::PAGE_TOKENS;
use llamacpu_model::{Interrupted, PAGE_LAYOUT};

use crate::adapters::{self, Adapter, PairRow, Steering};
use crate::config::config_from;
use crate::errors::raise;
use crate::files::{File, load_from, sources};
use crate::interrupt::CancelToken;
use crate::kv_type::kv_type_from;
use crate::lists::{array, copy_of, token_ids};
use crate::opened::Opened;
use crate::outside::{attached, detached, released};
use crate::pace::Pace;
use crate::saved_pictures::{SavedRow, saved_picture};
use crate::session::{Session, Stepped};
use crate::step_parts::{ItemRow, PictureRow, StepPart, picture_rows, step_items, step_parts, wanted_from};
use crate::tensor_rows::{TensorRow, tensor_infos};

/// Logits, rows × vocabulary, and hidden states, places × tokens × width.
type LogitsAndHidden<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray3<f32>>);

/// Logits, rows × vocabulary, and of each matrix: file, offset, number of inputs, sums of their squares.
type LogitsAndSquares<'py> = (Bound<'py, PyArray2<f32>>, Vec<(usize, u64, u64, Bound<'py, PyArray1<f64>>)>);

/// Mapped, shape-checked weights and the threads that run them.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct Model {
    open: Opened<llamacpu_model::Model>,
    pace: Pace,
}

impl Model {
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<Arc<llamacpu_model::Model>> {
        let open = self.open.get();
        open.ok_or_else(|| raise(py, "LlamaCpuError", "the model has been closed; open it again to use it"))
    }

    /// Runs a step, on the calling thread if it is known to be short.
    fn timed<T: Send + 'static>(
        &self,
        py: Python<'_>,
        cancel: Option<&Bound<'_, CancelToken>>,
        parts: Vec<StepPart>,
        work: impl FnOnce(&[StepPart], Interrupted) -> Result<T, llamacpu_model::Error> + Send + 'static,
    ) -> PyResult<T> {
        let tokens = parts.iter().map(|part| part.tokens.len()).sum();
        let stepped = Stepped::by_this_thread(parts.iter().map(|part| &part.session))?;
        let start = Instant::now();
        let outcome = detached(py, cancel.map(Bound::get), self.pace.is_long(tokens), move |interrupted| {
            work(&parts, interrupted)
        });
        drop(stepped);
        self.pace.note(tokens, start.elapsed());
        outcome
    }
}

#[pymethods]
impl Model {
    /// Maps or copies the files and finds every weight that the configuration asks for.
    #[new]
    #[pyo3(signature = (files, config, tensors, threads=None, load="map"))]
    fn new(
        py: Python<'_>,
        files: Vec<Bound<'_, File>>,
        config: &Bound<'_, PyMapping>,
        tensors: Vec<TensorRow>,
        threads: Option<usize>,
        load: &str,
    ) -> PyResult<Self> {
        let config = config_from(config)?;
        let load = load_from(load)?;
        let files = sources(py, files)?;
        let tensors = tensor_infos(tensors);
        let model = detached(py, None, true, move |interrupted| {
            llamacpu_model::Model::open(&files, config, &tensors, (threads, load), Some(interrupted))
        })?;
        Ok(Self { open: Opened::new(Arc::new(model)), pace: Pace::default() })
    }

    /// Keeps weights in at most `bytes` of memory. Products read the rest, whose size is returned, from the file.
    fn limit_memory(&self, py: Python<'_>, bytes: usize) -> PyResult<usize> {
        Ok(self.get(py)?.limit_memory(bytes))
    }

    /// Starts a conversation of at most `context` tokens; keys and values are stored as `kv_type`.
    #[pyo3(signature = (context=None, kv_type="f16"))]
    fn session(&self, py: Python<'_>, context: Option<usize>, kv_type: &str) -> PyResult<Session> {
        let kv_type = kv_type_from(kv_type)?;
        let model = self.get(py)?;
        attached(py, || model.session(context, kv_type)).map(Session::new)
    }

    /// Reads an adapter: its tensors, and for each pair of them the tensor of the model that they change.
    fn adapter(
        &self,
        py: Python<'_>,
        files: Vec<Bound<'_, File>>,
        tensors: Vec<TensorRow>,
        pairs: Vec<PairRow>,
    ) -> PyResult<Adapter> {
        adapters::adapter(py, self.get(py)?, files, tensors, pairs)
    }

    /// Makes control vectors: pairs of a layer and float32[width].
    fn steering(&self, py: Python<'_>, vectors: Vec<(usize, Bound<'_, PyArray1<f32>>)>) -> PyResult<Steering> {
        adapters::steering(py, &*self.get(py)?, vectors)
    }

    /// Continues the sessions by the tokens, in one pass over the weights. Returns the logits of the wanted rows,
    /// float32[rows, vocabulary], items in order.
    #[pyo3(signature = (items, logits="last", cancel=None))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        items: Vec<ItemRow<'py>>,
        logits: &str,
        cancel: Option<&Bound<'py, CancelToken>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let wanted = wanted_from(logits)?;
        let model = self.get(py)?;
        let parts = step_parts(items)?;
        let vocabulary = model.config().vocab_size;
        let values = self.timed(py, cancel, parts, move |parts, interrupted| {
            model.step(&step_items(parts, wanted), Some(interrupted))
        })?;
        let rows = values.len() / vocabulary;
        array(py, values)?.reshape([rows, vocabulary])
    }

    /// As `step`; returns the logits and the hidden states of every token at `places`, float32[places, tokens, width].
    #[pyo3(signature = (items, places, logits="none", cancel=None))]
    fn step_hidden<'py>(
        &self,
        py: Python<'py>,
        items: Vec<ItemRow<'py>>,
        places: Vec<usize>,
        logits: &str,
        cancel: Option<&Bound<'py, CancelToken>>,
    ) -> PyResult<LogitsAndHidden<'py>> {
        let wanted = wanted_from(logits)?;
        let model = self.get(py)?;
        let parts = step_parts(items)?;
        let (vocabulary, width) = (model.config().vocab_size, model.config().embedding_length);
        let tokens: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let shape = [places.len(), tokens, width];
        let output = self.timed(py, cancel, parts, move |parts, interrupted| {
            model.step_hidden(&step_items(parts, wanted), &places, Some(interrupted))
        })?;
        let rows = output.logits.len() / vocabulary;
        let logits = array(py, output.logits)?.reshape([rows, vocabulary])?;
        Ok((logits, array(py, output.hidden)?.reshape(shape)?))
    }

    /// As `step`, with every token going through all layers; returns the logits and, for every matrix of the files that was
    /// used, its file, its offset, the number of its inputs and the sums of squares of their elements, float64[columns].
    #[pyo3(signature = (items, logits="none", cancel=None))]
    fn step_squares<'py>(
        &self,
        py: Python<'py>,
        items: Vec<ItemRow<'py>>,
        logits: &str,
        cancel: Option<&Bound<'py, CancelToken>>,
    ) -> PyResult<LogitsAndSquares<'py>> {
        let wanted = wanted_from(logits)?;
        let model = self.get(py)?;
        let parts = step_parts(items)?;
        let vocabulary = model.config().vocab_size;
        let (values, squares) = self.timed(py, cancel, parts, move |parts, interrupted| {
            model.step_squares(&step_items(parts, wanted), Some(interrupted))
        })?;
        let rows = values.len() / vocabulary;
        let logits = array(py, values)?.reshape([rows, vocabulary])?;
        let squares = squares.into_iter().map(|one| Ok((one.file, one.offset, one.count, array(py, one.sums)?)));
        Ok((logits, squares.collect::<PyResult<_>>()?))
    }

    /// The classifier's scores for hidden states, float32[rows, width] -> float32[rows, classes].
    fn classify<'py>(
        &self,
        py: Python<'py>,
        states: &Bound<'py, PyArray2<f32>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let model = self.get(py)?;
        let states = states.readonly();
        let states = states.as_slice().map_err(|_| PyValueError::new_err("the states must be contiguous"))?;
        let states = copy_of(states)?;
        let classes = model.config().classes;
        let scores = detached(py, None, false, move |interrupted| model.classify(&states, Some(interrupted)))?;
        let rows = scores.len().checked_div(classes).unwrap_or(0);
        array(py, scores)?.reshape([rows, classes])
    }

    /// Bytes of a page of keys and values, stored as `kv_type`.
    fn page_bytes(&self, py: Python<'_>, kv_type: &str) -> PyResult<usize> {
        let (model, kv_type) = (self.get(py)?, kv_type_from(kv_type)?);
        attached(py, || model.page_bytes(kv_type))
    }

    /// Bytes of keys and values of a session of `tokens` tokens, stored as `kv_type`.
    fn kv_bytes(&self, py: Python<'_>, kv_type: &str, tokens: usize) -> PyResult<usize> {
        let (model, kv_type) = (self.get(py)?, kv_type_from(kv_type)?);
        attached(py, || model.kv_bytes(kv_type, tokens))
    }

    /// Bytes of a page of keys and values that cross-attention sees; 0 for models without.
    fn cross_page_bytes(&self, py: Python<'_>, kv_type: &str) -> PyResult<usize> {
        let (model, kv_type) = (self.get(py)?, kv_type_from(kv_type)?);
        attached(py, || model.cross_page_bytes(kv_type))
    }

    /// Starts a conversation that already has its first tokens; `pages` yields their keys and values as bytes, and
    /// `pictures` is what `Session.saved_pictures` returned.
    #[pyo3(signature = (context, kv_type, tokens, pages, pictures=Vec::new()))]
    fn restore(
        &self,
        py: Python<'_>,
        context: usize,
        kv_type: &str,
        tokens: &Bound<'_, PyAny>,
        pages: &Bound<'_, PyAny>,
        pictures: Vec<SavedRow>,
    ) -> PyResult<Session> {
        let kv_type = kv_type_from(kv_type)?;
        let (model, tokens) = (self.get(py)?, token_ids(tokens)?);
        let pictures: Vec<_> = pictures.into_iter().map(saved_picture).collect();
        let mut restoration = attached(py, || model.restore(Some(context), kv_type, tokens, &pictures))?;
        for page in pages.try_iter()? {
            let page = page?;
            let page = page.cast::<PyBytes>()?.as_bytes();
            released(py, || restoration.push(page))?;
        }
        attached(py, || restoration.finish()).map(Session::new)
    }

    /// What the ids of pictures in the session from position `first` on stand for: index from there, rows, whether they see
    /// each other, and for cross-attention, whose states are not kept, the id of the placeholder.
    fn pictures<'py>(
        &self,
        py: Python<'py>,
        session: &Bound<'py, Session>,
        first: usize,
    ) -> PyResult<Vec<PictureRow<'py>>> {
        picture_rows(py, &session.get().inner(), self.get(py)?.config().picture_row_length(), first)
    }

    /// Computes the keys and values that the session lacks because it was rewound too far.
    fn complete(&self, py: Python<'_>, session: &Bound<'_, Session>) -> PyResult<()> {
        let (model, session) = (self.get(py)?, session.get().inner());
        detached(py, None, true, move |interrupted| model.complete(&session, Some(interrupted)))
    }

    /// Bytes in the file of the parts that `prepare` takes: the layers, then the output matrix.
    fn part_bytes(&self, py: Python<'_>) -> PyResult<Vec<usize>> {
        Ok(self.get(py)?.part_bytes())
    }

    /// Brings one part of the weights into the form that products use.
    #[pyo3(signature = (part, cancel=None))]
    fn prepare(&self, py: Python<'_>, part: usize, cancel: Option<&Bound<'_, CancelToken>>) -> PyResult<()> {
        let model = self.get(py)?;
        detached(py, cancel.map(Bound::get), true, move |interrupted| model.prepare(part, Some(interrupted)))
    }

    /// Releases the weights; sessions of the model cannot be continued afterwards.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.open.close(py)
    }

    /// Whether `close` has been called.
    #[getter]
    fn closed(&self) -> bool {
        self.open.is_closed()
    }

    /// Number of threads in use.
    #[getter]
    fn threads(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.threads())
    }

    /// Why that number.
    #[getter]
    fn threads_reason(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.threads_reason().to_owned())
    }

    /// Name of the instruction set in use.
    #[getter]
    fn isa(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.get(py)?.isa().name())
    }

    /// Names of the tensors that nothing uses.
    #[getter]
    fn unread_tensors(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.get(py)?.unread().to_vec())
    }

    /// Whether all files are mapped and none is copied.
    #[getter]
    fn mapped(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.get(py)?.is_mapped())
    }

    /// Bytes of the matrices that a token goes through (all experts counted).
    #[getter]
    fn weight_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.weight_bytes())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("PAGE_LAYOUT", PAGE_LAYOUT)?;
    module.add("PAGE_TOKENS", PAGE_TOKENS)?;
    module.add_class::<Model>()
}
