//! The large matrix of a low-rank change, arranged for its kernel.

use crate::Error;
use crate::formats::Format;
use crate::mapping::Bytes;
use crate::math::{LANES, float_to_half, half_to_float};
use crate::matmul::Matrix;
use crate::memory::{grow, room};

/// A rows × rank matrix in blocks of 16 rows: `[block][rank][row]`, as floats, or as halves if these represent the same numbers.
#[derive(Debug)]
pub struct UpMatrix {
    rows: usize,
    rank: usize,
    numbers: Numbers,
}

#[derive(Debug)]
pub(super) enum Numbers {
    Floats(Vec<[f32; LANES]>),
    Halves(Vec<[u8; 2 * LANES]>),
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
        let numbers = if values.iter().copied().all(is_half) {
            let mut halves = room(blocks * rank, "adapters")?;
            halves.extend(vectors.map(|(block, k)| {
                let mut bytes = [0; 2 * LANES];
                for (lane, bytes) in bytes.chunks_exact_mut(2).enumerate() {
                    bytes.copy_from_slice(&float_to_half(at(block, k, lane)).to_le_bytes());
                }
                bytes
            }));
            Numbers::Halves(halves)
        } else {
            let mut floats = Vec::new();
            grow(&mut floats, blocks * rank, [0.0; LANES], "adapters")?;
            for (numbers, (block, k)) in floats.iter_mut().zip(vectors) {
                numbers.iter_mut().enumerate().for_each(|(lane, number)| *number = at(block, k, lane));
            }
            Numbers::Floats(floats)
        };
        Ok(Self { rows, rank, numbers })
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
        match &self.numbers {
            Numbers::Floats(floats) => 4 * LANES * floats.len(),
            Numbers::Halves(halves) => 2 * LANES * halves.len(),
        }
    }

    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }
}

/// The small matrix of a low-rank change, rows × columns, in the smallest format of plain weights that represents the same
/// numbers.
///
/// # Errors
/// `Error::Shape` if the number of elements is not that of the matrix; `Error::Memory` if memory is short.
pub fn down_matrix(rows: usize, columns: usize, values: &[f32]) -> Result<Matrix, Error> {
    let (format, bytes) = if values.iter().all(|value| value.to_bits().trailing_zeros() >= 16) {
        (Format::BF16, bytes_of(values, |value| [value.to_le_bytes()[2], value.to_le_bytes()[3]])?)
    } else if values.iter().copied().all(is_half) {
        (Format::F16, bytes_of(values, |value| float_to_half(value).to_le_bytes())?)
    } else {
        (Format::F32, bytes_of(values, f32::to_le_bytes)?)
    };
    Matrix::new(format, rows, columns, Bytes::owned(bytes))
}

fn bytes_of<const N: usize>(values: &[f32], bytes: impl Fn(f32) -> [u8; N]) -> Result<Vec<u8>, Error> {
    let mut all = room(values.len().saturating_mul(N), "adapters")?;
    all.extend(values.iter().flat_map(|&value| bytes(value)));
    Ok(all)
}

/// Whether half precision represents the number exactly.
fn is_half(value: f32) -> bool {
    half_to_float(float_to_half(value)).to_bits() == value.to_bits()
}
