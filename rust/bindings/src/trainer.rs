//! `llamacpu._native.Trainer`: LoRA adapters on a model.
#![expect(clippy::needless_pass_by_value, reason = "extracted arguments are passed by value")]

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_model::{Batch, Error, Interrupted, OptimizerStep, Trainable};

use crate::interrupt::CancelToken;
use crate::lists::{array, copy_of};
use crate::model::Model;
use crate::outside::{attached, detached, released};

/// Parameters, first and second moments, and the number of optimizer steps.
type State<'py> = (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>, u64);

/// The matrices that can have an adapter: name, rows, columns.
#[pyfunction]
fn trainable(py: Python<'_>, model: &Bound<'_, Model>) -> PyResult<Vec<Trainable>> {
    let model = model.get().get(py)?;
    attached(py, || llamacpu_model::trainable(&model))
}

/// What the memory of a trainer follows from.
#[pyclass(frozen, module = "llamacpu._native")]
struct TrainerShape(llamacpu_model::TrainerShape);

#[pymethods]
impl TrainerShape {
    /// Adapters of rank `rank` on the matrices `targets`, for steps of at most `tokens` tokens.
    #[new]
    #[pyo3(signature = (targets, rank, tokens, kept_layers=0, exact=false))]
    fn new(targets: Vec<String>, rank: usize, tokens: usize, kept_layers: usize, exact: bool) -> Self {
        Self(llamacpu_model::TrainerShape { targets, rank, tokens, kept_layers, exact })
    }
}

/// The most bytes that a trainer of this shape allocates.
#[pyfunction]
fn training_nbytes(py: Python<'_>, model: &Bound<'_, Model>, shape: &Bound<'_, TrainerShape>) -> PyResult<usize> {
    let model = model.get().get(py)?;
    attached(py, || llamacpu_model::training_nbytes(&model, &shape.get().0))
}

/// The most bytes of weights that are in memory during training, for a model whose file has `of_file` bytes of them.
#[pyfunction]
fn training_weights_nbytes(py: Python<'_>, model: &Bound<'_, Model>, of_file: usize, exact: bool) -> PyResult<usize> {
    let model = model.get().get(py)?;
    attached(py, || Ok::<_, Error>(llamacpu_model::training_weights_nbytes(&model, of_file, exact)))
}

/// Adapters, their gradients and moments.
#[pyclass(frozen, module = "llamacpu._native")]
struct Trainer {
    /// Never waited for: whoever finds it in use gets an error.
    native: Arc<Mutex<llamacpu_model::Trainer>>,
    nbytes: usize,
    names: Vec<Trainable>,
}

/// The trainer, unless a step is running.
fn hold(trainer: &Mutex<llamacpu_model::Trainer>) -> Result<MutexGuard<'_, llamacpu_model::Trainer>, Error> {
    trainer.try_lock().or_else(|error| match error {
        TryLockError::Poisoned(held) => Ok(held.into_inner()),
        TryLockError::WouldBlock => Err(Error::Busy(
            "the trainer is in the middle of another call: wait for it, or make a trainer for every thread".to_owned(),
        )),
    })
}

/// What a trainer does with a batch: the sum of its losses, and how many there are.
type BatchWork = fn(&mut llamacpu_model::Trainer, &Batch, Option<Interrupted>) -> Result<(f64, usize), Error>;

impl Trainer {
    /// Runs work on a batch.
    fn on_batch<'py>(
        &self,
        py: Python<'py>,
        [tokens, segments, targets]: [PyReadonlyArray1<'py, i32>; 3],
        cancel: Option<&Bound<'py, CancelToken>>,
        work: BatchWork,
    ) -> PyResult<(f64, usize)> {
        let [tokens, segments, targets] =
            [numbers("tokens", &tokens)?, numbers("segments", &segments)?, numbers("targets", &targets)?];
        let trainer = Arc::clone(&self.native);
        detached(py, cancel.map(Bound::get), true, move |interrupted| {
            let batch = Batch { tokens: &tokens, segments: &segments, targets: &targets };
            work(&mut *hold(&trainer)?, &batch, Some(interrupted))
        })
    }
}

/// A copy of the numbers, which another Python thread could change.
fn numbers<T: numpy::Element + Copy>(name: &str, values: &PyReadonlyArray1<'_, T>) -> PyResult<Vec<T>> {
    let values = values.as_slice().map_err(|_| {
        PyValueError::new_err(format!("{name} is not contiguous in memory; pass numpy.ascontiguousarray({name})"))
    })?;
    copy_of(values)
}

#[pymethods]
impl Trainer {
    /// Allocates adapters and buffers; the product of an adapter is multiplied by `alpha / rank`.
    #[new]
    #[pyo3(signature = (model, shape, alpha, seed=0))]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, Model>,
        shape: &Bound<'_, TrainerShape>,
        alpha: f32,
        seed: u64,
    ) -> PyResult<Self> {
        let model = model.get().get(py)?;
        let shape = &shape.get().0;
        let trainer = released(py, || llamacpu_model::Trainer::new(model, shape, alpha, seed))?;
        let (nbytes, names) = (trainer.nbytes(), trainer.names());
        Ok(Self { native: Arc::new(Mutex::new(trainer)), nbytes, names })
    }

    /// Forward and backward: the sum of the losses, and the number of targets.
    #[pyo3(signature = (tokens, segments, targets, cancel=None))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, i32>,
        segments: PyReadonlyArray1<'py, i32>,
        targets: PyReadonlyArray1<'py, i32>,
        cancel: Option<&Bound<'py, CancelToken>>,
    ) -> PyResult<(f64, usize)> {
        self.on_batch(py, [tokens, segments, targets], cancel, llamacpu_model::Trainer::step)
    }

    /// Forward only.
    #[pyo3(signature = (tokens, segments, targets, cancel=None))]
    fn loss<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, i32>,
        segments: PyReadonlyArray1<'py, i32>,
        targets: PyReadonlyArray1<'py, i32>,
        cancel: Option<&Bound<'py, CancelToken>>,
    ) -> PyResult<(f64, usize)> {
        self.on_batch(py, [tokens, segments, targets], cancel, llamacpu_model::Trainer::loss)
    }

    /// Updates the parameters and clears the gradients; the norm of the gradients.
    #[pyo3(signature = (learning_rate, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0, clip_norm=None, divide_by=1.0))]
    fn optimizer_step(
        &self,
        py: Python<'_>,
        learning_rate: f64,
        betas: (f64, f64),
        epsilon: f64,
        weight_decay: f64,
        clip_norm: Option<f64>,
        divide_by: f64,
    ) -> PyResult<f64> {
        let settings = OptimizerStep { learning_rate, betas, epsilon, weight_decay, clip_norm, divide_by };
        released(py, || hold(&self.native)?.optimizer_step(&settings))
    }

    /// Sets all gradients to 0.
    fn clear_gradients(&self, py: Python<'_>) -> PyResult<()> {
        released(py, || {
            hold(&self.native)?.clear_gradients();
            Ok::<_, Error>(())
        })
    }

    /// The parameters in order: name, rows, columns.
    #[getter]
    fn names(&self) -> Vec<Trainable> {
        self.names.clone()
    }

    /// The accumulated gradients.
    fn gradients<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let trainer = attached(py, || hold(&self.native))?;
        array(py, copy_of(trainer.gradients())?)
    }

    /// The parameters.
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let trainer = attached(py, || hold(&self.native))?;
        array(py, copy_of(trainer.parameters())?)
    }

    /// Sets all parameters.
    fn set_parameters(&self, py: Python<'_>, values: PyReadonlyArray1<'_, f32>) -> PyResult<()> {
        let values = numbers("values", &values)?;
        released(py, || hold(&self.native)?.set_parameters(&values))
    }

    /// Parameters, moments, and the number of optimizer steps.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<State<'py>> {
        let trainer = attached(py, || hold(&self.native))?;
        let (first, second, steps) = trainer.moments();
        let (first, second) = (array(py, copy_of(first)?)?, array(py, copy_of(second)?)?);
        Ok((array(py, copy_of(trainer.parameters())?)?, first, second, steps))
    }

    /// Continues from what `state` returned.
    fn restore(
        &self,
        py: Python<'_>,
        parameters: PyReadonlyArray1<'_, f32>,
        first_moments: PyReadonlyArray1<'_, f32>,
        second_moments: PyReadonlyArray1<'_, f32>,
        steps: u64,
    ) -> PyResult<()> {
        let parameters = numbers("parameters", &parameters)?;
        let first = numbers("first_moments", &first_moments)?;
        let second = numbers("second_moments", &second_moments)?;
        released(py, || hold(&self.native)?.restore(&parameters, (&first, &second), steps))
    }

    /// Bytes that the trainer holds.
    #[getter]
    fn nbytes(&self) -> usize {
        self.nbytes
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(trainable, module)?)?;
    module.add_function(wrap_pyfunction!(training_nbytes, module)?)?;
    module.add_function(wrap_pyfunction!(training_weights_nbytes, module)?)?;
    module.add_class::<TrainerShape>()?;
    module.add_class::<Trainer>()
}
