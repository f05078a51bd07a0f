//! Attention on NumPy arrays.

use std::ops::Range;

use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_kernels::Error;
use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, KvLayout, KvType, PAGE_TOKENS, Visible};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::threads::Pool;

use super::operands::{FloatArray, LONG, Output, chosen, operand};
use crate::kv_type::kv_type_from;
use crate::outside::detached;

/// Attention of the last tokens of a sequence: queries (n × heads × key size), keys (m × kv heads × key size) and values (m × kv
/// heads × value size) of all m ≥ n tokens, stored as `kv_type` in between. Without values, the first `value_size` numbers of
/// the keys. `seen` says what the queries see: "causal", "all", or "window" or "chunk" of `span` positions.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the arguments of `llamacpu.kernels.attention`")]
pub(super) fn attention<'py>(
    py: Python<'py>,
    queries: FloatArray<'py>,
    keys: FloatArray<'py>,
    values: Option<FloatArray<'py>>,
    value_size: usize,
    scale: f32,
    seen: &str,
    span: usize,
    soft_cap: Option<f32>,
    sinks: Option<FloatArray<'py>>,
    bias: Option<FloatArray<'py>>,
    slopes: Option<FloatArray<'py>>,
    kv_type: &str,
    threads: usize,
    isa: Option<&str>,
) -> Output<'py> {
    // Not for caches of sessions.
    let kv_type = if kv_type == "i16" { KvType::I16 } else { kv_type_from(kv_type)? };
    let (queries, query_shape) = operand("queries", queries)?;
    let (keys, key_shape) = operand("keys", keys)?;
    let latent = values.is_none();
    let (values, value_shape) = match values {
        Some(values) => operand("values", values)?,
        None => (Vec::new(), [&key_shape[..key_shape.len().saturating_sub(1)], &[value_size]].concat()),
    };
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
    let sinks = shaped_as("sinks", sinks, &[heads])?;
    let bias = shaped_as("bias", bias, &[heads, new, tokens])?;
    let slopes = shaped_as("slopes", slopes, &[heads])?;
    let visible: Visible<'static> = match seen {
        "causal" => Visible::Causal,
        "all" => Visible::All,
        "window" => Visible::Window(span),
        "chunk" => Visible::Chunk(span),
        _ => return Err(PyValueError::new_err(format!("{seen:?} is seen; expected causal, all, window or chunk"))),
    };
    let layout = KvLayout { kv_type, kv_heads, key_size, value_size, latent };
    let mut output = vec![0.0; new * heads * value_size];
    let isa = isa.map(str::to_owned);
    let long = queries.len().saturating_mul(tokens) > LONG;
    let output = detached(py, None, long, move |interrupted| {
        let pool = Pool::new(threads)?;
        let context =
            Context { isa: chosen(isa.as_deref())?, pool: &pool, interrupted: Some(interrupted), observer: None };
        let mut pages = vec![vec![0u8; layout.layer_bytes()]; tokens.div_ceil(PAGE_TOKENS)];
        let (key_row, value_row) = (kv_heads * key_size, kv_heads * layout.stored_value_size());
        for token in 0..tokens {
            let row = |row: usize| -> Range<usize> { token * row..(token + 1) * row };
            let page = &mut pages[token / PAGE_TOKENS];
            layout.write(context.isa, page, token % PAGE_TOKENS, &keys[row(key_row)], &values[row(value_row)])?;
        }
        let pages: Vec<&[u8]> = pages.iter().map(Vec::as_slice).collect();
        let first_position = tokens - new;
        let (queries, output_part) = (&queries[..], &mut output[..]);
        let bias = bias.as_deref();
        let item = AttentionItem { queries, first_position, pages: &pages, output: output_part, visible, bias };
        let config = AttentionConfig { heads, scale, soft_cap, sinks: sinks.as_deref(), slopes: slopes.as_deref() };
        llamacpu_kernels::attention::attention(&context, &layout, &config, &mut [item])?;
        Ok::<_, Error>(output)
    })?;
    PyArray1::from_vec(py, output).reshape(vec![new, heads, value_size])
}

/// The elements of an array that may be absent.
fn shaped_as(name: &str, array: Option<FloatArray<'_>>, expected: &[usize]) -> PyResult<Option<Vec<f32>>> {
    let Some(array) = array else { return Ok(None) };
    let (numbers, shape) = operand(name, array)?;
    if shape != expected {
        return Err(PyValueError::new_err(format!("{name} has the shape {shape:?}; expected {expected:?}")));
    }
    Ok(Some(numbers))
}
