//! Conversion of rows of weights from one block format to another: checks, and the division of the work among threads.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::formats::{Format, Rows};
use crate::mapping::SourceFile;
use crate::math::{Kernel, Lanes, dispatch};
use crate::memory;
use crate::shared::Pieces;

/// Number of weights in a piece of work: enough for handing it over to cost nothing, few enough to stay in the cache.
const PIECE: usize = 16 * 1024;

/// Rows that are converted.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file: `len` bytes from `start` on. Every thread reads the pieces that it converts, so that they are in its cache.
    File {
        /// The file.
        file: &'a SourceFile,
        /// Its first byte that is read.
        start: u64,
        /// How many bytes are read.
        len: usize,
    },
}

impl Stored<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File { len, .. } => *len,
        }
    }
}

thread_local! {
    /// A piece as it is stored, and its weights.
    static BUFFERS: Cell<(Vec<u8>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// A conversion of rows of one format to another.
#[derive(Debug, Clone, Copy)]
pub struct Conversion<'a> {
    /// Format of the input.
    pub from: Format,
    /// Format of the output.
    pub to: Format,
    /// Weights in a row: whole blocks of both.
    pub columns: usize,
    /// How much an error in each column counts: one number for each, none of them negative. Only the ratios matter.
    pub importance: Option<&'a [f32]>,
}

impl Conversion<'_> {
    /// Converts rows of blocks. The result is the same for any number of threads and instruction set.
    ///
    /// # Errors
    /// `Error::Shape` if `input` and `output` are not as many rows, or the importance is not one finite number for each
    /// column; `Error::Unsupported` for weights that the output cannot hold: infinite or NaN ones, or too large ones;
    /// `Error::File` if the file cannot be read; `Error::Memory`; `Error::Cancelled` if the context was interrupted.
    pub fn run(&self, context: &Context, input: Stored, output: &mut [u8]) -> Result<(), Error> {
        let (input_row, output_row) = (self.row_bytes(self.from)?, self.row_bytes(self.to)?);
        let rows = input.len() / input_row;
        if rows * input_row != input.len() || output.len() != rows * output_row {
            return Err(Error::Shape(format!(
                "{} bytes of {} to {} bytes of {}, with {input_row} and {output_row} bytes a row; expected as many whole rows",
                input.len(),
                self.from.info().name,
                output.len(),
                self.to.info().name
            )));
        }
        let importance = self.importance.map(|importance| normalized(importance, self.columns)).transpose()?;
        let piece_rows = (PIECE / self.columns).max(1);
        let output = Pieces::new(output, piece_rows * output_row);
        let first_error = Mutex::new(None::<(usize, Error)>);
        context.for_each(output.count(), &|piece| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let output = unsafe { output.get(piece) };
            let first = piece * piece_rows;
            let bytes = (first * input_row, output.len() / output_row * input_row);
            if let Err((row, error)) = self.piece(context.isa, input, bytes, importance.as_deref(), output) {
                let mut found = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                if found.as_ref().is_none_or(|(other, _)| first + row < *other) {
                    *found = Some((first + row, error));
                }
            }
        })?;
        first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Converts `bytes` (the first one, and how many) of the input. An error comes with its row in the piece.
    fn piece(
        &self,
        isa: Isa,
        input: Stored,
        (start, len): (usize, usize),
        importance: Option<&[f32]>,
        output: &mut [u8],
    ) -> Result<(), (usize, Error)> {
        let (mut stored, mut values) = BUFFERS.take();
        let result = (|| {
            let input = match input {
                Stored::Bytes(bytes) => &bytes[start..start + len],
                Stored::File { file, start: first, .. } => {
                    let stored = sized(&mut stored, len, 0)?;
                    file.read(first + start as u64, stored).map_err(|error| (0, error))?;
                    &*stored
                }
            };
            let values =
                sized(&mut values, output.len() / self.to.info().block_bytes * self.to.info().block_elements, 0.0)?;
            (self.from.info().dequantize_on)(isa, input, values);
            if let Some((at, value)) = refused(isa, self.to, values) {
                return Err((at / self.columns, self.too_large(start, at, value)));
            }
            (self.to.info().quantize)(isa, &Rows { values, columns: self.columns, importance }, output);
            Ok(())
        })();
        BUFFERS.set((stored, values));
        result
    }

    /// The error for a weight of the piece that begins with byte `start`.
    fn too_large(&self, start: usize, at: usize, value: f32) -> Error {
        let info = self.from.info();
        let first = start / info.block_bytes * info.block_elements;
        Error::Unsupported(format!(
            "the weight in row {}, column {} is {value}; {} holds finite numbers of at most {:e}",
            (first + at) / self.columns,
            at % self.columns,
            self.to.info().name,
            largest(self.to)
        ))
    }

    fn row_bytes(&self, format: Format) -> Result<usize, Error> {
        let info = format.info();
        format.row_bytes(self.columns).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Error::Shape(format!(
                "rows of {} weights in {}; expected a multiple of {}",
                self.columns, info.name, info.block_elements
            ))
        })
    }
}

/// The importance of the columns with a mean of 1: products with it neither overflow nor vanish, and a column that was never
/// used still counts a little.
fn normalized(importance: &[f32], columns: usize) -> Result<Vec<f32>, Error> {
    if importance.len() != columns {
        return Err(Error::Shape(format!(
            "an importance of {} columns for rows of {columns}; expected one number for each column",
            importance.len()
        )));
    }
    if let Some(column) = importance.iter().position(|value| !value.is_finite() || *value < 0.0) {
        return Err(Error::Shape(format!(
            "the importance of column {column} is {}; expected a finite number of at least 0",
            importance[column]
        )));
    }
    let mean = importance.iter().map(|value| f64::from(*value)).sum::<f64>() / columns as f64;
    if mean == 0.0 {
        return Ok(vec![1.0; columns]);
    }
    Ok(importance.iter().map(|value| (f64::from(*value) / mean).max(1e-7) as f32).collect())
}

/// The largest magnitude of a weight that this format can hold: beyond it the scale of a block would be infinite.
fn largest(format: Format) -> f32 {
    const HALF: f32 = 65504.0;
    match format {
        Format::F32 | Format::MXFP4 => f32::MAX,
        Format::BF16 => f32::from_bits(0x7f7f_0000),
        // The largest scale times the largest quant.
        Format::NVFP4 => 6.0 * 448.0,
        Format::Q4_0 => 8.0 * HALF,
        Format::Q5_0 => 16.0 * HALF,
        Format::Q8_0 => 127.0 * HALF,
        _ => HALF,
    }
}

/// The first weight that this format cannot hold, and its index.
fn refused(isa: Isa, format: Format, values: &[f32]) -> Option<(usize, f32)> {
    let largest = largest(format);
    if dispatch(isa, AllWithin { values, largest }) {
        return None;
    }
    values.iter().position(|value| value.is_nan() || value.abs() > largest).map(|at| (at, values[at]))
}

/// Whether no magnitude is larger, or NaN.
struct AllWithin<'a> {
    values: &'a [f32],
    largest: f32,
}

impl Kernel for AllWithin<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) -> bool {
        self.values.iter().fold(true, |all, value| all & (value.abs() <= self.largest))
    }
}

/// The first `len` elements of a buffer, which hold leftovers of earlier use.
fn sized<T: Clone>(buffer: &mut Vec<T>, len: usize, value: T) -> Result<&mut [T], (usize, Error)> {
    memory::grow(buffer, len, value, "pieces of weights").map_err(|error| (0, error))?;
    Ok(&mut buffer[..len])
}
