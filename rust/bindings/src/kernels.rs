//! `llamacpu._native.kernels`: the kernels on NumPy arrays. `llamacpu.kernels` supplies their defaults and documents them.
//!
//! Operands are copied before the GIL is released, because another Python thread may write to its arrays at any time.

mod attention;
mod conversion;
mod operands;

use numpy::{PyArray1, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use llamacpu_kernels::Error;
use llamacpu_kernels::activation::{self, Activation};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix};
use llamacpu_kernels::norm::{Norm, NormKind};
use llamacpu_kernels::rope::Rope;
use llamacpu_kernels::threads::Pool;

use self::operands::{FloatArray, LONG, Output, chosen, columns_of, format_named, last, operand, shaped};
use crate::config::rope_config_from;
use crate::outside::{detached, released};

/// Names of the activation functions between the products of a network.
const ACTIVATIONS: [(&str, Activation); 8] = [
    ("silu", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_tanh", Activation::GeluTanh),
    ("gelu_sigmoid", Activation::GeluSigmoid),
    ("relu", Activation::Relu),
    ("relu_squared", Activation::ReluSquared),
    ("sigmoid", Activation::Sigmoid),
    ("tanh", Activation::Tanh),
];

/// Every format of the table: name, number in GGUF files, weights in a block, bytes of a block.
#[pyfunction]
fn formats() -> Vec<(&'static str, u32, usize, usize)> {
    let row = |format: &Format| {
        let info = format.info();
        (info.name, info.ggml_id, info.block_elements, info.block_bytes)
    };
    Format::all().iter().map(row).collect()
}

/// Blocks to rows of weights.
#[pyfunction]
fn dequantize<'py>(py: Python<'py>, data: PyReadonlyArrayDyn<'py, u8>, format: &str) -> Output<'py> {
    let format = format_named(format)?;
    let (bytes, shape) = operand("data", data)?;
    let columns = columns_of(format, last(&shape)?)?;
    let mut values = vec![0.0; bytes.len() / last(&shape)?.max(1) * columns];
    let values = released(py, || format.dequantize(&bytes, &mut values).map(|()| values))?;
    shaped(py, values, &shape, columns)
}

/// Activations (tokens × columns) times a matrix (rows of blocks): tokens × rows.
#[pyfunction]
fn matmul<'py>(
    py: Python<'py>,
    x: FloatArray<'py>,
    weights: PyReadonlyArrayDyn<'py, u8>,
    format: &str,
    threads: usize,
    isa: Option<&str>,
) -> Output<'py> {
    let format = format_named(format)?;
    let (input, shape) = operand("x", x)?;
    let (bytes, weights_shape) = operand("weights", weights)?;
    let &[rows, row_bytes] = weights_shape.as_slice() else {
        return Err(PyValueError::new_err(format!(
            "weights have the shape {weights_shape:?}; expected rows × bytes of a row"
        )));
    };
    let (columns, width) = (columns_of(format, row_bytes)?, last(&shape)?);
    if columns != width {
        let message = format!("x has rows of {width}, the weights rows of {columns}; expected the same");
        return Err(PyValueError::new_err(message));
    }
    let tokens = input.len().checked_div(columns).unwrap_or(0);
    let isa = isa.map(str::to_owned);
    let long = rows.saturating_mul(columns).saturating_mul(tokens) > LONG;
    let output = detached(py, None, long, move |interrupted| {
        let pool = Pool::new(threads)?;
        let context =
            Context { isa: chosen(isa.as_deref())?, pool: &pool, interrupted: Some(interrupted), observer: None };
        let matrix = Matrix::new(format, rows, columns, Bytes::owned(bytes))?;
        let mut output = vec![0.0; tokens * rows];
        let mut jobs = [Job { weights: &matrix, output: &mut output }];
        llamacpu_kernels::matmul::matmul(&context, &input, tokens, &mut InputBuffers::default(), &mut jobs)?;
        Ok::<_, Error>(output)
    })?;
    shaped(py, output, &shape, rows)
}

/// Normalization of every row: by mean and variance, or by the root mean square.
#[pyfunction]
fn norm<'py>(
    py: Python<'py>,
    x: FloatArray<'py>,
    mean: bool,
    weight: Option<FloatArray<'py>>,
    bias: Option<FloatArray<'py>>,
    epsilon: f32,
    isa: Option<&str>,
) -> Output<'py> {
    let (input, shape) = operand("x", x)?;
    let size = last(&shape)?;
    let row = |name: &str, row: Option<FloatArray<'py>>| {
        let Some(row) = row else { return Ok(None) };
        let (numbers, row_shape) = operand(name, row)?;
        if row_shape != [size] {
            let message = format!("x has rows of {size}, {name} the shape {row_shape:?}; expected the same");
            return Err(PyValueError::new_err(message));
        }
        Ok(Some(numbers))
    };
    let (weight, bias) = (row("weight", weight)?, row("bias", bias)?);
    let mut output = vec![0.0; input.len()];
    let output = single(py, isa, |context| {
        let kind = if mean { NormKind::MeanAndVariance } else { NormKind::RootMeanSquare };
        let norm = Norm { kind, size, weight: weight.as_deref(), bias: bias.as_deref(), epsilon };
        norm.apply(context, &input, &mut output).map(|()| output)
    })?;
    shaped(py, output, &shape, size)
}

/// `activation(x)`, or `activation(x) * up`.
#[pyfunction]
fn activate<'py>(
    py: Python<'py>,
    x: FloatArray<'py>,
    up: Option<FloatArray<'py>>,
    name: &str,
    isa: Option<&str>,
) -> Output<'py> {
    let Some((_, function)) = ACTIVATIONS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = ACTIVATIONS.iter().map(|(known, _)| *known).collect();
        return Err(PyValueError::new_err(format!("activation is {name:?}; expected one of {}", known.join(", "))));
    };
    let Some(up) = up else {
        let (mut x, shape) = operand("x", x)?;
        let x = single(py, isa, |context| activation::activate(context, *function, &mut x).map(|()| x))?;
        return PyArray1::from_vec(py, x).reshape(shape);
    };
    with_up(py, x, up, isa, |context, gate, up| activation::gated(context, *function, gate, up))
}

/// `gate * sigmoid(slope * gate) * (up + 1)` of bounded operands.
#[pyfunction]
fn clamped_swiglu<'py>(
    py: Python<'py>,
    gate: FloatArray<'py>,
    up: FloatArray<'py>,
    slope: f32,
    limit: f32,
    isa: Option<&str>,
) -> Output<'py> {
    with_up(py, gate, up, isa, |context, gate, up| activation::clamped_swiglu(context, gate, up, slope, limit))
}

/// `cap * tanh(x / cap)`.
#[pyfunction]
fn soft_cap<'py>(py: Python<'py>, x: FloatArray<'py>, cap: f32, isa: Option<&str>) -> Output<'py> {
    let (mut x, shape) = operand("x", x)?;
    let x = single(py, isa, |context| activation::soft_cap(context, &mut x, cap).map(|()| x))?;
    PyArray1::from_vec(py, x).reshape(shape)
}

/// Applies a function of two arrays of equal shape.
fn with_up<'py>(
    py: Python<'py>,
    gate: FloatArray<'py>,
    up: FloatArray<'py>,
    isa: Option<&str>,
    function: impl Fn(&Context, &mut [f32], &[f32]) -> Result<(), Error> + Send + Sync,
) -> Output<'py> {
    let (mut gate, shape) = operand("gate", gate)?;
    let (up, up_shape) = operand("up", up)?;
    if shape != up_shape {
        let message = format!("gate has the shape {shape:?}, up {up_shape:?}; expected the same");
        return Err(PyValueError::new_err(message));
    }
    let gate = single(py, isa, |context| function(context, &mut gate, &up).map(|()| gate))?;
    PyArray1::from_vec(py, gate).reshape(shape)
}

/// Softmax of every row.
#[pyfunction]
fn softmax<'py>(py: Python<'py>, x: FloatArray<'py>, isa: Option<&str>) -> Output<'py> {
    let (mut values, shape) = operand("x", x)?;
    let columns = last(&shape)?;
    let values = single(py, isa, |context| {
        values.chunks_exact_mut(columns.max(1)).for_each(|row| activation::softmax(context.isa, row));
        Ok(values)
    })?;
    PyArray1::from_vec(py, values).reshape(shape)
}

/// Rotates every head (tokens × heads × size) by its token's position. `settings` has the keys of the model configuration.
#[pyfunction]
fn rope<'py>(
    py: Python<'py>,
    x: FloatArray<'py>,
    positions: Vec<usize>,
    settings: &Bound<'py, PyMapping>,
    factors: Option<Vec<f32>>,
    isa: Option<&str>,
) -> Output<'py> {
    let (mut values, shape) = operand("x", x)?;
    let &[tokens, heads, head_size] = shape.as_slice() else {
        return Err(PyValueError::new_err(format!("x has the shape {shape:?}; expected tokens × heads × head size")));
    };
    if positions.len() != tokens {
        let message = format!("{} positions for {tokens} tokens; expected one each", positions.len());
        return Err(PyValueError::new_err(message));
    }
    let settings = rope_config_from(settings)?.settings(factors);
    let values = single(py, isa, move |context| {
        let rope = Rope::new(&settings)?;
        let mut angles = vec![0.0; settings.size];
        for (row, &position) in values.chunks_exact_mut((heads * head_size).max(1)).zip(&positions) {
            rope.table(position, &mut angles)?;
            rope.apply(context.isa, row, head_size, &angles)?;
        }
        Ok(values)
    })?;
    PyArray1::from_vec(py, values).reshape(shape)
}

/// Runs a kernel on a single thread.
fn single<T: Send>(
    py: Python<'_>,
    isa: Option<&str>,
    work: impl FnOnce(&Context) -> Result<T, Error> + Send,
) -> PyResult<T> {
    released(py, || {
        let pool = Pool::new(1)?;
        work(&Context::new(chosen(isa)?, &pool))
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let kernels = PyModule::new(module.py(), "kernels")?;
    kernels.add_function(wrap_pyfunction!(formats, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(conversion::convert, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(conversion::convert_stored, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(dequantize, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(matmul, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(norm, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(activate, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(clamped_swiglu, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(soft_cap, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(softmax, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(rope, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(attention::attention, &kernels)?)?;
    module.add_submodule(&kernels)
}
