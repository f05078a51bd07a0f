//! The matrices of low-rank changes: the large one arranged for its kernel, both in as few bytes as their numbers need.

use std::ops::Range;
use std::sync::Arc;

use crate::Error;
use crate::formats::Format;
use crate::mapping::{AlignedBytes, Bytes};
use crate::math::{LANES, float_to_half, half_to_float, prefetch};
use crate::matmul::Matrix;
use crate::memory::room;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A rows × rank matrix in blocks of 16 rows: `[block][rank][row]`, as floats, or in 16 bits if those of one kind represent the
/// same numbers.
#[derive(Debug)]
pub struct UpMatrix {
    rows: usize,
    rank: usize,
    kind: Kind,
    bytes: Bytes,
}

/// How a number is stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Half,
    Brain,
}

/// The vectors of a matrix: 16 rows of one column each.
pub(super) enum Vectors<'a> {
    Floats(&'a [[u8; 4 * LANES]]),
    Halves(&'a [[u8; 2 * LANES]]),
    Brains(&'a [[u8; 2 * LANES]]),
}

impl Kind {
    /// The smallest kind that represents all numbers.
    fn of(values: &[f32]) -> Self {
        if values.iter().copied().all(is_brain) {
            Self::Brain
        } else if values.iter().copied().all(is_half) {
            Self::Half
        } else {
            Self::Float
        }
    }

    /// Bytes of a number.
    fn size(self) -> usize {
        if self == Self::Float { 4 } else { 2 }
    }

    /// The numbers as bytes.
    fn bytes(self, count: usize, numbers: impl Iterator<Item = f32>) -> Result<Vec<u8>, Error> {
        let mut all = room(count.saturating_mul(self.size()), "adapters")?;
        match self {
            Self::Float => numbers.for_each(|number| all.extend(number.to_le_bytes())),
            Self::Half => numbers.for_each(|number| all.extend(float_to_half(number).to_le_bytes())),
            Self::Brain => numbers.for_each(|number| all.extend(&number.to_le_bytes()[2..])),
        }
        Ok(all)
    }
}

impl UpMatrix {
    /// Arranges the matrix, given as rows × rank.
    ///
    /// # Errors
    /// `Error::Shape` if the number of elements is not that of the matrix; `Error::Memory` if memory is short.
    pub fn new(rows: usize, rank: usize, values: &[f32]) -> Result<Self, Error> {
        if rows.checked_mul(rank) != Some(values.len()) {
            return Err(Error::Shape(format!("{} numbers for a {rows} × {rank} matrix", values.len())));
        }
        let blocks = rows.div_ceil(LANES);
        let at = |block: usize, k: usize, lane: usize| {
            let row = block * LANES + lane;
            if row < rows { values[row * rank + k] } else { 0.0 }
        };
        let vectors = (0..blocks).flat_map(|block| (0..rank).map(move |k| (block, k)));
        let numbers = vectors.flat_map(|(block, k)| (0..LANES).map(move |lane| at(block, k, lane)));
        let kind = Kind::of(values);
        let bytes = Bytes::owned(kind.bytes(blocks * rank * LANES, numbers)?);
        Ok(Self { rows, rank, kind, bytes })
    }

    /// Number of rows: outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Size in memory in bytes.
    pub fn nbytes(&self) -> usize {
        self.bytes.len()
    }

    /// Prefetches some rows into the second-level cache.
    pub(crate) fn prefetch(&self, rows: Range<usize>) {
        let row_bytes = self.rank * self.kind.size();
        prefetch(&self.bytes, rows.start / LANES * LANES * row_bytes..rows.end.next_multiple_of(LANES) * row_bytes);
    }

    pub(super) fn vectors(&self) -> Vectors<'_> {
        match self.kind {
            Kind::Float => Vectors::Floats(self.bytes.as_chunks().0),
            Kind::Half => Vectors::Halves(self.bytes.as_chunks().0),
            Kind::Brain => Vectors::Brains(self.bytes.as_chunks().0),
        }
    }
}

/// The small matrix of a low-rank change, rows × columns, in the smallest format of plain weights that represents the same
/// numbers.
///
/// # Errors
/// `Error::Shape` if the number of elements is not that of the matrix; `Error::Memory` if memory is short.
pub fn down_matrix(rows: usize, columns: usize, values: &[f32]) -> Result<Matrix, Error> {
    let kind = Kind::of(values);
    let format = match kind {
        Kind::Float => Format::F32,
        Kind::Half => Format::F16,
        Kind::Brain => Format::BF16,
    };
    Matrix::new(format, rows, columns, Bytes::owned(kind.bytes(values.len(), values.iter().copied())?))
}

/// Pairs of matrices, the small one before the large one, moved one after the other into memory of their own: aligned, and in
/// huge pages, since a decoded token reads all of it. A small matrix that follows itself stays one.
///
/// # Errors
/// `Error::Memory` if memory is short.
pub fn gather(pairs: &[(Arc<Matrix>, &UpMatrix)]) -> Result<Vec<(Arc<Matrix>, UpMatrix)>, Error> {
    let mut parts: Vec<&Bytes> = room(2 * pairs.len(), "adapters")?;
    for (index, (down, up)) in pairs.iter().enumerate() {
        let known = index > 0 && Arc::ptr_eq(down, &pairs[index - 1].0);
        parts.extend((!known).then_some(down.bytes()));
        parts.push(&up.bytes);
    }
    let padded = |bytes: &Bytes| bytes.len().next_multiple_of(LINE);
    let mut memory = AlignedBytes::mapped(parts.iter().map(|bytes| padded(bytes)).sum(), "adapters")?;
    let mut rest = &mut memory[..];
    for bytes in parts {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(padded(bytes));
        own[..bytes.len()].copy_from_slice(bytes);
        rest = others;
    }
    let memory = Bytes::aligned(memory);
    let mut start = 0;
    let mut next = |bytes: &Bytes| {
        let part = memory.slice(start, bytes.len());
        start += padded(bytes);
        part
    };
    let mut moved: Vec<(Arc<Matrix>, UpMatrix)> = room(pairs.len(), "adapters")?;
    for (index, (old, up)) in pairs.iter().enumerate() {
        let down = match moved.last() {
            Some((last, _)) if Arc::ptr_eq(old, &pairs[index - 1].0) => Arc::clone(last),
            _ => Arc::new(Matrix::new(old.format(), old.rows(), old.columns(), next(old.bytes())?)?),
        };
        let &&UpMatrix { rows, rank, kind, ref bytes } = up;
        moved.push((down, UpMatrix { rows, rank, kind, bytes: next(bytes)? }));
    }
    Ok(moved)
}

/// Whether bf16 represents the number exactly.
fn is_brain(value: f32) -> bool {
    value.to_bits().trailing_zeros() >= 16
}

/// Whether half precision represents the number exactly.
fn is_half(value: f32) -> bool {
    half_to_float(float_to_half(value)).to_bits() == value.to_bits()
}
