//! `llamacpu._native.kernels`: the kernels on NumPy arrays. `llamacpu.kernels` gives them their defaults and documents them.
//!
//! Operands are copied before the GIL is released, because another Python thread may write into its arrays at any time.

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use llamacpu_kernels::Error;
use llamacpu_kernels::activation;
use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, KvLayout, PAGE_TOKENS, Visible};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix};
use llamacpu_kernels::rope::Rope;
use llamacpu_kernels::threads::Pool;

use crate::config::rope_config_from;
use crate::kv_type::kv_type_from;
use crate::outside::{detached, released};

/// Multiplications that take long enough for signal handlers to be run meanwhile.
const LONG: usize = 1 << 24;

type Floats<'py> = PyReadonlyArrayDyn<'py, f32>;
type Output<'py> = PyResult<Bound<'py, PyArrayDyn<f32>>>;

/// Every format of the table: name, number in GGUF files, weights in a block, bytes of a block, whether it can be written.
#[pyfunction]
fn formats() -> Vec<(&'static str, u32, usize, usize, bool)> {
    let row = |format: &Format| {
        let info = format.info();
        let mut block = vec![0; info.block_bytes];
        let written = format.quantize(&vec![0.0; info.block_elements], &mut block).is_ok();
        (info.name, info.ggml_id, info.block_elements, info.block_bytes, written)
    };
    Format::all().iter().map(row).collect()
}

/// Rows of weights to blocks.
#[pyfunction]
fn quantize<'py>(py: Python<'py>, x: Floats<'py>, format: &str) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let format = format_named(format)?;
    let (values, shape) = operand("x", x)?;
    let columns = last(&shape)?;
    let row_bytes = format.row_bytes(columns).ok_or_else(|| whole_blocks(format, columns))?;
    let mut bytes = vec![0; values.len() / columns.max(1) * row_bytes];
    let bytes = released(py, || format.quantize(&values, &mut bytes).map(|()| bytes))?;
    shaped(py, bytes, &shape, row_bytes)
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
    x: Floats<'py>,
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
        let context = Context { isa: chosen(isa.as_deref())?, pool: &pool, interrupted: Some(interrupted) };
        let matrix = Matrix::new(format, rows, columns, Bytes::owned(bytes))?;
        let mut output = vec![0.0; tokens * rows];
        let mut jobs = [Job { weights: &matrix, output: &mut output }];
        llamacpu_kernels::matmul::matmul(&context, &input, tokens, &mut InputBuffers::default(), &mut jobs)?;
        Ok::<_, Error>(output)
    })?;
    shaped(py, output, &shape, rows)
}

/// Root mean square normalization of every row.
#[pyfunction]
fn rms_norm<'py>(py: Python<'py>, x: Floats<'py>, weight: Floats<'py>, epsilon: f32, isa: Option<&str>) -> Output<'py> {
    let (input, shape) = operand("x", x)?;
    let (weight, weight_shape) = operand("weight", weight)?;
    if weight_shape != [last(&shape)?] {
        let message = format!("x has rows of {}, weight the shape {weight_shape:?}; expected the same", last(&shape)?);
        return Err(PyValueError::new_err(message));
    }
    let mut output = vec![0.0; input.len()];
    let output = single(py, isa, |context| {
        llamacpu_kernels::norm::rms_norm(context, &input, &weight, epsilon, &mut output).map(|()| output)
    })?;
    shaped(py, output, &shape, weight.len())
}

/// `silu(gate) * up`.
#[pyfunction]
fn swiglu<'py>(py: Python<'py>, gate: Floats<'py>, up: Floats<'py>, isa: Option<&str>) -> Output<'py> {
    let (mut gate, shape) = operand("gate", gate)?;
    let (up, up_shape) = operand("up", up)?;
    if shape != up_shape {
        let message = format!("gate has the shape {shape:?}, up {up_shape:?}; expected the same");
        return Err(PyValueError::new_err(message));
    }
    let gate = single(py, isa, |context| activation::swiglu(context, &mut gate, &up).map(|()| gate))?;
    PyArray1::from_vec(py, gate).reshape(shape)
}

/// Softmax of every row.
#[pyfunction]
fn softmax<'py>(py: Python<'py>, x: Floats<'py>, isa: Option<&str>) -> Output<'py> {
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
    x: Floats<'py>,
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

/// Causal attention of the last tokens of a sequence: queries (n × heads × key size), keys (m × heads × key size) and
/// values (m × heads × value size) of all m ≥ n tokens, stored as `kv_type` in between.
#[pyfunction]
fn attention<'py>(
    py: Python<'py>,
    queries: Floats<'py>,
    keys: Floats<'py>,
    values: Floats<'py>,
    scale: f32,
    kv_type: &str,
    threads: usize,
    isa: Option<&str>,
) -> Output<'py> {
    let kv_type = kv_type_from(kv_type)?;
    let (queries, query_shape) = operand("queries", queries)?;
    let (keys, key_shape) = operand("keys", keys)?;
    let (values, value_shape) = operand("values", values)?;
    let shapes = (query_shape.as_slice(), key_shape.as_slice(), value_shape.as_slice());
    let fits = match shapes {
        (&[n, heads, key_size], &[m, kv_heads, size], &[count, value_heads, _]) => {
            key_size == size && m == count && kv_heads == value_heads && n <= m && kv_heads > 0 && heads % kv_heads == 0
        }
        _ => false,
    };
    if !fits {
        return Err(PyValueError::new_err(format!(
            "queries, keys and values have the shapes {query_shape:?}, {key_shape:?}, {value_shape:?}; expected \
             n × heads × key size, m × kv heads × key size and m × kv heads × value size with n ≤ m and heads a \
             multiple of kv heads"
        )));
    }
    let (new, heads) = (query_shape[0], query_shape[1]);
    let (tokens, kv_heads, key_size, value_size) = (key_shape[0], key_shape[1], key_shape[2], value_shape[2]);
    let layout = KvLayout { kv_type, kv_heads, key_size, value_size, latent: false };
    let mut output = vec![0.0; new * heads * value_size];
    let isa = isa.map(str::to_owned);
    let long = queries.len().saturating_mul(tokens) > LONG;
    let output = detached(py, None, long, move |interrupted| {
        let pool = Pool::new(threads)?;
        let context = Context { isa: chosen(isa.as_deref())?, pool: &pool, interrupted: Some(interrupted) };
        let mut pages = vec![vec![0u8; layout.layer_bytes()]; tokens.div_ceil(PAGE_TOKENS)];
        let key_rows = keys.chunks_exact((kv_heads * key_size).max(1));
        let value_rows = values.chunks_exact((kv_heads * value_size).max(1));
        for (token, (key, value)) in key_rows.zip(value_rows).enumerate() {
            layout.write(context.isa, &mut pages[token / PAGE_TOKENS], token % PAGE_TOKENS, key, value)?;
        }
        let pages: Vec<&[u8]> = pages.iter().map(Vec::as_slice).collect();
        let first_position = tokens - new;
        let item = AttentionItem {
            queries: &queries,
            first_position,
            pages: &pages,
            output: &mut output,
            visible: Visible::Causal,
            bias: None,
        };
        llamacpu_kernels::attention::attention(&context, &layout, &AttentionConfig::new(heads, scale), &mut [item])?;
        Ok::<_, Error>(output)
    })?;
    PyArray1::from_vec(py, output).reshape(vec![new, heads, value_size])
}

/// Runs a kernel on one thread.
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

fn chosen(isa: Option<&str>) -> Result<Isa, Error> {
    isa.map_or_else(Isa::chosen, Isa::named)
}

fn format_named(name: &str) -> PyResult<Format> {
    Format::named(name).ok_or_else(|| {
        let known: Vec<_> = Format::all().iter().map(|format| format.info().name).collect();
        PyValueError::new_err(format!("format is {name:?}; expected one of {}", known.join(", ")))
    })
}

fn whole_blocks(format: Format, columns: usize) -> PyErr {
    let info = format.info();
    let message = format!("rows of {columns} weights in {}; expected a multiple of {}", info.name, info.block_elements);
    PyValueError::new_err(message)
}

/// Weights in a row of `row_bytes` bytes.
fn columns_of(format: Format, row_bytes: usize) -> PyResult<usize> {
    let info = format.info();
    if row_bytes.is_multiple_of(info.block_bytes) {
        return Ok(row_bytes / info.block_bytes * info.block_elements);
    }
    let message = format!("rows of {row_bytes} bytes in {}; expected a multiple of {}", info.name, info.block_bytes);
    Err(PyValueError::new_err(message))
}

/// A copy of the numbers, and the shape.
#[expect(clippy::needless_pass_by_value, reason = "ends the borrow of the array")]
fn operand<T: numpy::Element + Copy>(name: &str, array: PyReadonlyArrayDyn<'_, T>) -> PyResult<(Vec<T>, Vec<usize>)> {
    if !array.is_c_contiguous() {
        let message = format!("{name} is not contiguous in memory; pass numpy.ascontiguousarray({name})");
        return Err(PyValueError::new_err(message));
    }
    Ok((array.as_slice()?.to_vec(), array.shape().to_vec()))
}

/// The length of a row.
fn last(shape: &[usize]) -> PyResult<usize> {
    shape
        .last()
        .copied()
        .ok_or_else(|| PyValueError::new_err("a single number; expected an array of at least one dimension"))
}

/// An array of the shape `shape`, but with rows of `columns`.
fn shaped<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
    columns: usize,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    PyArray1::from_vec(py, values).reshape(shape)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let kernels = PyModule::new(module.py(), "kernels")?;
    kernels.add_function(wrap_pyfunction!(formats, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(quantize, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(dequantize, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(matmul, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(rms_norm, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(swiglu, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(softmax, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(rope, &kernels)?)?;
    kernels.add_function(wrap_pyfunction!(attention, &kernels)?)?;
    module.add_submodule(&kernels)
}
