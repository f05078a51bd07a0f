//! `llamacpu._native.PictureEncoder` and `PictureEncoding`: from pixels to rows for a language model.

use std::sync::{Arc, Mutex, PoisonError};

use numpy::{PyArray2, PyArray4, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use llamacpu_model::{Encoding, Pixels, VisionConfig};

use crate::config::settings_from;
use crate::errors::raise;
use crate::files::{File, sources};
use crate::interrupt::CancelToken;
use crate::lists::{array, copy_of};
use crate::opened::Opened;
use crate::outside::{attached, detached, released};
use crate::tensor_rows::{TensorRow, tensor_infos};

/// Mapped, shape-checked weights of an encoder and the threads that run them.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct PictureEncoder {
    open: Opened<llamacpu_model::PictureEncoder>,
}

impl PictureEncoder {
    fn get(&self, py: Python<'_>) -> PyResult<Arc<llamacpu_model::PictureEncoder>> {
        self.open
            .get()
            .ok_or_else(|| raise(py, "LlamaCpuError", "the vision encoder has been closed; open it again to use it"))
    }
}

#[pymethods]
impl PictureEncoder {
    /// Maps the files and finds every weight that the configuration asks for.
    #[new]
    #[pyo3(signature = (files, config, tensors, threads=None))]
    fn new(
        py: Python<'_>,
        files: Vec<Bound<'_, File>>,
        config: &Bound<'_, PyMapping>,
        tensors: Vec<TensorRow>,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let config = settings_from(config, VisionConfig::take)?;
        let files = sources(py, files)?;
        let tensors = tensor_infos(tensors);
        let encoder = detached(py, None, true, move |interrupted| {
            llamacpu_model::PictureEncoder::open(&files, config, &tensors, threads, Some(interrupted))
        })?;
        Ok(Self { open: Opened::new(Arc::new(encoder)) })
    }

    /// Begins to encode a picture: float32[tiles, height, width, 3], normalized.
    fn begin(
        &self,
        py: Python<'_>,
        pixels: &Bound<'_, PyArray4<f32>>,
        arrangement: usize,
    ) -> PyResult<PictureEncoding> {
        let encoder = self.get(py)?;
        let shape = pixels.shape().to_vec();
        if shape[3] != 3 {
            return Err(PyValueError::new_err(format!("pixels of {} values; expected red, green and blue", shape[3])));
        }
        let values = pixels.readonly();
        let values = values.as_slice().map_err(|_| PyValueError::new_err("the pixels must be contiguous"))?;
        let pixels =
            Pixels { values: copy_of(values)?, tiles: shape[0], height: shape[1], width: shape[2], arrangement };
        let width = encoder.config().row_length();
        let encoding = released(py, || Encoding::new(encoder, pixels))?;
        Ok(PictureEncoding { width, state: Arc::new(Mutex::new(Some(encoding))) })
    }

    /// Number of threads in use.
    #[getter]
    fn threads(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.threads())
    }

    /// Bytes of the matrices.
    #[getter]
    fn weight_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.weight_bytes())
    }

    /// Releases the weights.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.open.close(py)
    }

    /// Whether `close` has been called.
    #[getter]
    fn closed(&self) -> bool {
        self.open.is_closed()
    }
}

/// A picture that is being encoded.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct PictureEncoding {
    width: usize,
    /// `None` once the rows have been taken, after an error, and while a stage runs.
    state: Arc<Mutex<Option<Encoding>>>,
}

impl PictureEncoding {
    fn take(&self) -> PyResult<Encoding> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.take().ok_or_else(|| {
            PyRuntimeError::new_err("the encoding of the picture has ended, or another thread runs it; begin a new one")
        })
    }
}

#[pymethods]
impl PictureEncoding {
    /// Runs the next stage; returns the number of completed stages and of all stages. An error ends the encoding.
    #[pyo3(signature = (cancel=None))]
    fn advance(&self, py: Python<'_>, cancel: Option<&Bound<'_, CancelToken>>) -> PyResult<(usize, usize)> {
        let mut encoding = self.take()?;
        let encoding = detached(py, cancel.map(Bound::get), true, move |interrupted| {
            encoding.advance(Some(interrupted))?;
            Ok::<_, llamacpu_model::Error>(encoding)
        })?;
        let stages = encoding.stages();
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(encoding);
        Ok(stages)
    }

    /// The number of completed stages, and of all stages.
    #[getter]
    fn stages(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        let encoding = self.take()?;
        let stages = encoding.stages();
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(encoding);
        attached(py, || Ok::<_, llamacpu_model::Error>(stages))
    }

    /// The rows, float32[rows, width], once all stages are done; ends the encoding.
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let encoding = self.take()?;
        let (done, all) = encoding.stages();
        if done < all {
            return Err(PyRuntimeError::new_err(format!(
                "{done} of {all} stages of the picture are done; advance first"
            )));
        }
        let rows = encoding.into_rows();
        let shape = [rows.len() / self.width, self.width];
        array(py, rows)?.reshape(shape)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PictureEncoder>()?;
    module.add_class::<PictureEncoding>()
}
