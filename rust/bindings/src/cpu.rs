//! The data behind `llamacpu doctor`: instruction sets, kernels, threads, memory bandwidth, peak product throughput.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::{Feature, Isa};
use llamacpu_kernels::matmul;
use llamacpu_kernels::threads::{Pool, default_threads, read_bandwidth};

use crate::outside::{attached, detached};

/// Maximum duration of a measurement.
const MEASURED_TIME: Duration = Duration::from_millis(500);

/// Facts about this processor and what is chosen for it.
#[pyfunction]
fn cpu_facts(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let chosen = attached(py, Isa::chosen)?;
    let threads = default_threads();
    let facts = PyDict::new(py);
    facts.set_item("architecture", std::env::consts::ARCH)?;
    facts.set_item("available", Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>())?;
    facts.set_item("chosen", chosen.name())?;
    facts.set_item("chosen_features", chosen.features().map(Feature::name).collect::<Vec<_>>())?;
    facts.set_item("processor_features", Isa::detected().map(Feature::name).collect::<Vec<_>>())?;
    facts.set_item("threads", threads.count)?;
    facts.set_item("threads_reason", threads.why)?;
    Ok(facts)
}

/// Measured read bandwidth in GB/s (10^9 bytes per second) over a buffer of `bytes`, with `threads` threads.
#[pyfunction]
#[pyo3(signature = (bytes=256 << 20, threads=None))]
fn memory_bandwidth(py: Python<'_>, bytes: usize, threads: Option<usize>) -> PyResult<f64> {
    detached(py, None, true, move |interrupted| {
        let isa = Isa::chosen()?;
        let pool = Pool::new(threads.unwrap_or_else(|| default_threads().count))?;
        let context = Context { isa, pool: &pool, interrupted: Some(interrupted), observer: None };
        read_bandwidth(&context, bytes, MEASURED_TIME)
    })
}

/// Measured peak of the chosen instruction set's integer dot products, in billions of multiplications a second.
#[pyfunction]
#[pyo3(signature = (threads=None))]
fn product_peak(py: Python<'_>, threads: Option<usize>) -> PyResult<f64> {
    detached(py, None, true, move |interrupted| {
        let isa = Isa::chosen()?;
        let pool = Pool::new(threads.unwrap_or_else(|| default_threads().count))?;
        let context = Context { isa, pool: &pool, interrupted: Some(interrupted), observer: None };
        matmul::product_peak(&context, MEASURED_TIME)
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cpu_facts, module)?)?;
    module.add_function(wrap_pyfunction!(memory_bandwidth, module)?)?;
    module.add_function(wrap_pyfunction!(product_peak, module)?)
}
