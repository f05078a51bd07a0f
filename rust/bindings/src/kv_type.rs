//! Names for the ways in which keys and values are stored.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_kernels::attention::KvType;

/// The storage type with this name.
pub(crate) fn kv_type_from(name: &str) -> PyResult<KvType> {
    match name {
        "f32" => Ok(KvType::F32),
        "f16" => Ok(KvType::F16),
        "q8_0" => Ok(KvType::Q8_0),
        other => Err(PyValueError::new_err(format!("kv_type is {other:?}; expected \"f32\", \"f16\" or \"q8_0\""))),
    }
}

/// The name that `kv_type_from` accepts.
pub(crate) fn kv_type_name(kv_type: KvType) -> &'static str {
    match kv_type {
        KvType::F32 => "f32",
        KvType::F16 => "f16",
        KvType::I16 => "i16",
        KvType::Q8_0 => "q8_0",
    }
}
