//! `llamacpu._native.Adapter` and `Steering`: what sessions go through in addition to the model.

use std::sync::Arc;

use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_model::{AdapterPair, AdapterUse, Adapters};

use crate::files::{File, sources};
use crate::lists::copy_of;
use crate::outside::{attached, detached};
use crate::tensor_rows::{TensorRow, tensor_infos};

/// The low-rank changes of an adapter file, in memory.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct Adapter(Arc<llamacpu_model::Adapter>);

#[pymethods]
impl Adapter {
    /// Bytes in memory.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }
}

/// Vectors that are added to the residual stream after layers.
#[pyclass(frozen, module = "llamacpu._native")]
pub(crate) struct Steering(Arc<llamacpu_model::Steering>);

/// The tensor of the model, those of the adapter, and the factor of their product.
pub(crate) type PairRow = (String, String, String, f32);

/// Reads an adapter.
pub(crate) fn adapter(
    py: Python<'_>,
    model: Arc<llamacpu_model::Model>,
    files: Vec<Bound<'_, File>>,
    tensors: Vec<TensorRow>,
    pairs: Vec<PairRow>,
) -> PyResult<Adapter> {
    let files = sources(py, files)?;
    let tensors = tensor_infos(tensors);
    let pairs: Vec<_> =
        pairs.into_iter().map(|(base, down, up, factor)| AdapterPair { base, down, up, factor }).collect();
    let adapter =
        detached(py, None, true, move |interrupted| model.adapter(&files, &tensors, &pairs, Some(interrupted)))?;
    Ok(Adapter(Arc::new(adapter)))
}

/// Adds up the vectors of each layer.
pub(crate) fn steering(
    py: Python<'_>,
    model: &llamacpu_model::Model,
    vectors: Vec<(usize, Bound<'_, PyArray1<f32>>)>,
) -> PyResult<Steering> {
    let numbers = vectors.into_iter().map(|(layer, vector)| {
        let vector = vector.readonly();
        let numbers = vector.as_slice().map_err(|_| PyValueError::new_err("the vectors must be contiguous"))?;
        Ok((layer, copy_of(numbers)?))
    });
    let vectors = numbers.collect::<PyResult<Vec<_>>>()?;
    attached(py, || model.steering(&vectors)).map(|steering| Steering(Arc::new(steering)))
}

/// The adapters and control vectors of a session.
pub(crate) fn adapters(
    low_rank: Vec<(Bound<'_, Adapter>, f32, usize)>,
    steering: Option<&Bound<'_, Steering>>,
) -> Adapters {
    let low_rank = low_rank.into_iter().map(|(adapter, scale, from)| AdapterUse {
        adapter: Arc::clone(&adapter.get().0),
        scale,
        from,
    });
    Adapters { low_rank: low_rank.collect(), steering: steering.map(|steering| Arc::clone(&steering.get().0)) }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Adapter>()?;
    module.add_class::<Steering>()
}
