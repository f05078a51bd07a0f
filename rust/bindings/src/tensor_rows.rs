//! Rows of the tensor table, as Python gives them.

use llamacpu_model::TensorInfo;

/// A row of the tensor table: name, type number, shape (fastest-varying first), file, offset, size in bytes.
pub(crate) type TensorRow = (String, u32, Vec<u64>, usize, u64, u64);

/// The same as native entries.
pub(crate) fn tensor_infos(rows: Vec<TensorRow>) -> Vec<TensorInfo> {
    let info =
        |(name, ggml_type, shape, file, offset, nbytes)| TensorInfo { name, ggml_type, shape, file, offset, nbytes };
    rows.into_iter().map(info).collect()
}
