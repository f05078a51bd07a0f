//! The tensor table of the files, and validated access to matrices and vectors by name.

use std::collections::HashMap;
use std::sync::Arc;

use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::{Bytes, Mapping};
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::memory;

use crate::Error;
use crate::error::zeroed;

/// GGUF's number of the type of 32-bit integers.
const I32: u32 = 26;

/// One entry of the tensor table, as read from the header.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Name, unique across all files.
    pub name: String,
    /// GGUF type number.
    pub ggml_type: u32,
    /// Dimensions, fastest-varying first.
    pub shape: Vec<u64>,
    /// Index of the file that holds the data.
    pub file: usize,
    /// Offset of the first byte in that file.
    pub offset: u64,
    /// Size in bytes.
    pub nbytes: u64,
}

/// A matrix of the model that adapters can change: a tensor, or a part of one.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Name of the tensor.
    pub(crate) tensor: String,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Where its rows begin in a tensor that holds several matrices.
    pub(crate) first_row: usize,
    /// Index in a stack of matrices.
    pub(crate) part: usize,
    /// Whether the tensor has these rows as columns.
    pub(crate) transposed: bool,
}

/// The table by name, recording what has been read.
pub(crate) struct Tensors<'a> {
    files: &'a [Arc<Mapping>],
    by_name: HashMap<&'a str, (&'a TensorInfo, bool)>,
    slots: Vec<Slot>,
}

impl<'a> Tensors<'a> {
    /// Indexes the table; a duplicate name is an error.
    pub(crate) fn new(files: &'a [Arc<Mapping>], infos: &'a [TensorInfo]) -> Result<Self, Error> {
        let mut by_name = HashMap::new();
        by_name.try_reserve(infos.len()).map_err(|_| Error::Memory {
            bytes: infos.len().saturating_mul(size_of::<(&str, (&TensorInfo, bool))>()),
            purpose: "the tensor table",
        })?;
        for info in infos {
            if by_name.insert(info.name.as_str(), (info, false)).is_some() {
                return Err(Error::Model(format!("the tensor {:?} occurs twice; expected unique names", info.name)));
            }
        }
        Ok(Self { files, by_name, slots: Vec::new() })
    }

    /// Declares a matrix that adapters can change; returns its number.
    pub(crate) fn slot(&mut self, tensor: &str, (rows, columns): (usize, usize), place: (usize, usize)) -> usize {
        let (first_row, part) = place;
        self.slots.push(Slot { tensor: tensor.to_owned(), rows, columns, first_row, part, transposed: false });
        self.slots.len() - 1
    }

    /// The same for the transpose of some rows of a tensor.
    pub(crate) fn transposed_slot(&mut self, tensor: &str, size: (usize, usize), first_row: usize) -> usize {
        let slot = self.slot(tensor, size, (first_row, 0));
        self.slots[slot].transposed = true;
        slot
    }

    /// Everything that was declared.
    pub(crate) fn into_slots(self) -> Vec<Slot> {
        self.slots
    }

    /// The dimensions of a tensor that has at most three, fastest-varying first.
    pub(crate) fn shape(&self, name: &str) -> Result<[usize; 3], Error> {
        let Some((info, _)) = self.by_name.get(name) else {
            return Err(Error::Model(format!("the tensor {name:?} is missing; the file is incomplete")));
        };
        let mut shape = [1; 3];
        let sizes = trimmed(&info.shape);
        for (index, &size) in sizes.iter().enumerate() {
            let place = shape.get_mut(index).filter(|_| size > 0).zip(usize::try_from(size).ok());
            let Some((place, size)) = place else {
                return Err(Error::Model(format!("the tensor {name:?} has the shape {sizes:?}; expected a matrix")));
            };
            *place = size;
        }
        Ok(shape)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The tensors that were not used, sorted by name.
    pub(crate) fn unread(&self) -> Vec<&'a TensorInfo> {
        let mut unread: Vec<_> = self.by_name.values().filter(|(_, read)| !read).map(|(info, _)| *info).collect();
        unread.sort_by(|left, right| left.name.cmp(&right.name));
        unread
    }

    /// A `rows` × `columns` matrix, times its factor if it has one.
    pub(crate) fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> Result<Matrix, Error> {
        let (format, bytes) = self.bytes(name, &[columns, rows])?;
        let factors = self.factors(name, 1)?;
        Ok(Matrix::new(format, rows, columns, bytes)?.scaled(factors[0]))
    }

    /// The factors of `count` matrices in a tensor `NAME.weight`: those of `NAME.scale`, one for each or one for all, which come
    /// with NVFP4 (but with any type after converting the weights to it). What else has been read as `NAME.scale` is no such
    /// tensor. Programs that round activations to four bits as well have an `input_scale`, without which they are more exact.
    fn factors(&mut self, name: &str, count: usize) -> Result<Vec<f32>, Error> {
        let mut factors = zeroed(Some(count), "weights")?;
        factors.fill(1.0);
        let Some(stem) = name.strip_suffix(".weight") else { return Ok(factors) };
        if let Some((_, read)) = self.by_name.get_mut(format!("{stem}.input_scale").as_str()) {
            *read = true;
        }
        let scale = format!("{stem}.scale");
        let Some((info, false)) = self.by_name.get(scale.as_str()) else { return Ok(factors) };
        let single = trimmed(&info.shape).is_empty();
        let found = self.vector(&scale, if single { 1 } else { count })?;
        if let Some(factor) = found.iter().find(|factor| !factor.is_finite()) {
            return Err(Error::Model(format!(
                "the tensor {scale:?} has the element {factor}; expected finite numbers"
            )));
        }
        for (factor, found) in factors.iter_mut().zip(found.iter().cycle()) {
            *factor = *found;
        }
        Ok(factors)
    }

    /// The `rows` kernels of a convolution of which none overlaps another, as a matrix: the elements of a kernel in the
    /// order of `sides`, fastest-varying first. The file may have joined their dimensions.
    pub(crate) fn kernel(&mut self, name: &str, sides: [usize; 3], rows: usize) -> Result<Matrix, Error> {
        let columns = sides.iter().product();
        let flat = self.by_name.get(name).is_some_and(|(info, _)| trimmed(&info.shape).len() <= 2);
        let shape = [sides[0], sides[1], sides[2], rows];
        let (format, bytes) = if flat { self.bytes(name, &[columns, rows])? } else { self.bytes(name, &shape)? };
        Ok(Matrix::new(format, rows, columns, bytes)?)
    }

    /// `count` groups of matrices stored consecutively in one tensor; the matrices of a group have `parts` rows each.
    pub(crate) fn stack(
        &mut self,
        name: &str,
        columns: usize,
        parts: &[usize],
        count: usize,
    ) -> Result<Vec<Matrix>, Error> {
        let bytes = self.bytes(name, &[columns, parts.iter().sum(), count])?;
        cut(bytes, columns, parts, &self.factors(name, count)?)
    }

    /// The same for a two-dimensional tensor.
    pub(crate) fn fused(
        &mut self,
        name: &str,
        columns: usize,
        parts: &[usize],
        count: usize,
    ) -> Result<Vec<Matrix>, Error> {
        let rows = parts.iter().sum::<usize>().saturating_mul(count);
        let bytes = self.bytes(name, &[columns, rows])?;
        cut(bytes, columns, parts, &self.factors(name, count)?)
    }

    /// A vector of `len` elements, as 32-bit floats.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let (format, bytes) = self.bytes(name, &[len])?;
        let mut values = zeroed(Some(len), "weights")?;
        Matrix::new(format, 1, len, bytes)?.row(0, &mut values)?;
        Ok(values)
    }

    /// A vector that may be missing from the file.
    pub(crate) fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// A table of `rows` × `columns` elements, row-major, as 32-bit floats.
    pub(crate) fn table(&mut self, name: &str, columns: usize, rows: usize) -> Result<Vec<f32>, Error> {
        let matrix = self.matrix(name, columns, rows)?;
        let mut values = zeroed(columns.checked_mul(rows), "weights")?;
        for (row, values) in values.chunks_exact_mut(columns).enumerate() {
            matrix.row(row, values)?;
        }
        Ok(values)
    }

    /// A table of `rows` × `columns` whole numbers of 32 bits, none of them negative.
    pub(crate) fn integers(&mut self, name: &str, columns: usize, rows: usize) -> Result<Vec<u32>, Error> {
        let Some((info, read)) = self.by_name.get_mut(name) else {
            return Err(Error::Model(format!("the tensor {name:?} is missing; the file is incomplete")));
        };
        *read = true;
        let count = columns.checked_mul(rows);
        let sound = info.ggml_type == I32 && trimmed(&info.shape) == trimmed(&[columns as u64, rows as u64]);
        let file = self.files.get(info.file).filter(|_| {
            sound && count.and_then(|count| count.checked_mul(4)).is_some_and(|bytes| bytes as u64 == info.nbytes)
        });
        let Some(file) = file else {
            return Err(Error::Model(format!(
                "the tensor {name:?} has the shape {:?} and type {}; expected {columns} × {rows} 32-bit integers",
                info.shape, info.ggml_type
            )));
        };
        let bytes = Bytes::of_file(file, info.offset, info.nbytes)?;
        let mut numbers = memory::room(count.unwrap_or(0), "weights")?;
        numbers.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)));
        Ok(numbers)
    }

    /// A table that may be missing from the file.
    pub(crate) fn optional_table(
        &mut self,
        name: &str,
        columns: usize,
        rows: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        if self.has(name) { self.table(name, columns, rows).map(Some) } else { Ok(None) }
    }

    /// The format and bytes of the tensor, whose shape must be `shape` (trailing ones are ignored).
    fn bytes(&mut self, name: &str, shape: &[usize]) -> Result<(Format, Bytes), Error> {
        let Some((info, read)) = self.by_name.get_mut(name) else {
            return Err(Error::Model(format!(
                "the tensor {name:?} is missing; the file is incomplete, or one part of a split model is not here"
            )));
        };
        *read = true;
        let wanted: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        if trimmed(&info.shape) != trimmed(&wanted) {
            return Err(Error::Model(format!(
                "the tensor {name:?} has the shape {:?}; the metadata asks for {wanted:?}",
                info.shape
            )));
        }
        let format = Format::from_ggml(info.ggml_type).ok_or_else(|| {
            Error::Model(format!(
                "the tensor {name:?} is stored as type {}, which this version cannot read; quantize the model to another type",
                info.ggml_type
            ))
        })?;
        let rows = shape[1..].iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let nbytes = format.row_bytes(shape[0]).zip(rows).and_then(|(row, rows)| row.checked_mul(rows));
        let nbytes = nbytes.ok_or_else(|| {
            let info = format.info();
            Error::Model(format!(
                "the tensor {name:?} has rows of {} elements; {} stores blocks of {}",
                shape[0], info.name, info.block_elements
            ))
        })?;
        if info.nbytes != nbytes as u64 {
            return Err(Error::Model(format!(
                "the tensor {name:?} has {} bytes; its shape and type ask for {nbytes}",
                info.nbytes
            )));
        }
        let file = self.files.get(info.file).ok_or_else(|| {
            Error::Model(format!(
                "the tensor {name:?} is in file {}, but there are {} files",
                info.file,
                self.files.len()
            ))
        })?;
        Ok((format, Bytes::of_file(file, info.offset, info.nbytes)?))
    }
}

/// Cuts consecutive matrices apart: for each factor, those of `parts` rows. `Tensors::bytes` has checked that rows have a
/// valid size and that the size of the whole tensor does not overflow.
fn cut(
    (format, bytes): (Format, Bytes),
    columns: usize,
    parts: &[usize],
    factors: &[f32],
) -> Result<Vec<Matrix>, Error> {
    let row_bytes = format.row_bytes(columns).unwrap_or(0);
    let mut matrices = memory::room(factors.len().saturating_mul(parts.len()), "the matrices of experts and heads")?;
    let mut start = 0;
    for factor in factors {
        for &rows in parts {
            let part = bytes.slice(start, rows * row_bytes)?;
            matrices.push(Matrix::new(format, rows, columns, part)?.scaled(*factor));
            start += rows * row_bytes;
        }
    }
    Ok(matrices)
}

/// A shape without its trailing ones.
fn trimmed(shape: &[u64]) -> &[u64] {
    let end = shape.iter().rposition(|&size| size != 1).map_or(0, |last| last + 1);
    &shape[..end]
}
