//! A matrix of weights: the bytes of the file, and their packed form once it has been needed.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::formats::{Format, GROUP_ROWS, Layout};
use crate::mapping::{AlignedBytes, Bytes};
use crate::math::prefetch;
use crate::processes::{PerProcess, Published};
use crate::shared::SharedSlice;

/// Bytes packed at a time before the file's pages are released: the most that is in memory twice.
const STAGE: usize = 16 << 20;

/// A rows × columns matrix of weights in one format, shared by threads. `columns` is the length of the input of a product,
/// the first dimension of a GGUF tensor.
#[derive(Debug)]
pub struct Matrix {
    format: Format,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    /// Multiplies every weight.
    factor: f32,
    bytes: Bytes,
    /// Sizes of the packed form; none for plain weights.
    layout: Option<Layout>,
    packed: Published<AlignedBytes>,
    /// Held while the weights are being packed; a child process forked meanwhile packs them itself.
    packing: PerProcess<Mutex<()>>,
    resident: AtomicBool,
    /// Whether rows are looked up in the file's bytes even after the weights have been packed.
    looked_up: AtomicBool,
}

impl Matrix {
    /// Creates a matrix over the bytes of a tensor.
    ///
    /// # Errors
    /// `Error::Shape` if the size of the bytes does not match the matrix exactly.
    pub fn new(format: Format, rows: usize, columns: usize, bytes: Bytes) -> Result<Self, Error> {
        let info = format.info();
        let row_bytes = format.row_bytes(columns).ok_or_else(|| {
            Error::Shape(format!(
                "rows of {columns} weights do not consist of whole {} blocks of {}; the tensor's shape or type is wrong",
                info.name, info.block_elements
            ))
        })?;
        if rows.checked_mul(row_bytes) != Some(bytes.len()) {
            return Err(Error::Shape(format!(
                "{} bytes given for a {rows} × {columns} matrix of {}; expected rows × {row_bytes}",
                bytes.len(),
                info.name
            )));
        }
        let layout = match info.packing {
            None => None,
            Some(packing) => Layout::new(packing, info.compression, columns)
                .filter(|layout| rows.div_ceil(GROUP_ROWS).checked_mul(layout.group_bytes).is_some())
                .map_or_else(
                    || Err(Error::Shape(format!("a {rows} × {columns} matrix is too large for this machine"))),
                    |layout| Ok(Some(layout)),
                )?,
        };
        Ok(Self {
            format,
            rows,
            columns,
            row_bytes,
            factor: 1.0,
            bytes,
            layout,
            packed: Published::new(),
            packing: PerProcess::default(),
            resident: AtomicBool::new(true),
            looked_up: AtomicBool::new(false),
        })
    }

    /// The same matrix times a factor, as files of NVFP4 store one for each matrix: weights that are read are multiplied by it,
    /// and so are the results of products, once they are complete.
    #[must_use]
    pub fn scaled(mut self, factor: f32) -> Self {
        self.factor *= factor;
        self
    }

    /// What weights and results are multiplied by.
    pub fn factor(&self) -> f32 {
        self.factor
    }

    /// Number of rows: outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of a product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether the weights are quantized, rather than plain floats.
    pub fn is_quantized(&self) -> bool {
        self.layout.is_some()
    }

    /// Size in the file in bytes.
    pub fn nbytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the weights in the file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Dequantizes one row, straight from the file's bytes (embedding lookup). For packed weights, call `keep_rows` first.
    ///
    /// # Errors
    /// `Error::Shape` if there is no such row, or `out` is not `columns` long.
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<(), Error> {
        if row >= self.rows || out.len() != self.columns {
            return Err(Error::Shape(format!(
                "row {row} into room for {} numbers asked of a {} × {} matrix",
                out.len(),
                self.rows,
                self.columns
            )));
        }
        self.format.dequantize(self.source(row, 1), out)?;
        self.multiply(out);
        Ok(())
    }

    /// Multiplies weights or results by the factor.
    pub(super) fn multiply(&self, numbers: &mut [f32]) {
        if self.factor != 1.0 {
            for number in numbers {
                *number *= self.factor;
            }
        }
    }

    /// Dequantizes `out.len()` weights of a row from column `first` on, straight from the file's bytes; both are whole blocks,
    /// and `keep_rows` has been called.
    ///
    /// # Errors
    /// `Error::Shape` if that is not inside the matrix, or not whole blocks.
    pub(crate) fn part(&self, isa: Isa, row: usize, first: usize, out: &mut [f32]) -> Result<(), Error> {
        let (start, len) = (self.format.row_bytes(first), self.format.row_bytes(out.len()));
        match (start, len) {
            (Some(start), Some(len)) if row < self.rows && start + len <= self.row_bytes => {
                (self.format.info().dequantize_on)(isa, &self.source(row, 1)[start..start + len], out);
                self.multiply(out);
                Ok(())
            }
            _ => Err(Error::Shape(format!(
                "{} weights from {first} on of row {row} asked of a {} × {} matrix of {}; expected whole blocks inside it",
                out.len(),
                self.rows,
                self.columns,
                self.format.info().name
            ))),
        }
    }

    /// Gives back the file's pages after [`Matrix::part`] has read some rows, if products use packed weights: they are not
    /// to be in memory twice. The next access reads the file again.
    ///
    /// # Errors
    /// `Error::Shape` if there are no such rows.
    pub(crate) fn release_rows(&self, rows: Range<usize>) -> Result<(), Error> {
        if self.packed.get().is_some() {
            self.bytes.slice(rows.start * self.row_bytes, rows.len() * self.row_bytes)?.release();
        }
        Ok(())
    }

    /// Prefetches what [`Matrix::part`] will read; rows that do not exist are ignored.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: usize, first: usize, count: usize) {
        let info = self.format.info();
        let start = row * self.row_bytes + first / info.block_elements * info.block_bytes;
        prefetch(&self.bytes, start..start + count.div_ceil(info.block_elements) * info.block_bytes);
    }

    /// Sets whether the packed weights may stay in memory (the default). If not, every product packs what it needs, piece by
    /// piece: slow for few tokens, but without extra memory. Has no effect on weights that are already packed.
    pub fn resident(&self, resident: bool) {
        self.resident.store(resident, Ordering::Relaxed);
    }

    /// Whether the packed weights may stay in memory.
    pub fn is_resident(&self) -> bool {
        self.resident.load(Ordering::Relaxed)
    }

    /// Memory that products occupy permanently, in bytes: the packed form, or the file's bytes for plain weights.
    pub fn resident_bytes(&self) -> usize {
        self.layout.map_or(self.nbytes(), |layout| self.groups() * layout.group_bytes)
    }

    /// Lets the system read ahead the file's bytes if the next product will read them, that is, if the weights are not resident.
    pub fn read_ahead(&self) {
        if !self.is_resident() {
            self.bytes.read_ahead();
        }
    }

    /// Declares that `row` will be called even after the weights have been packed: a copy of the file then keeps these bytes.
    pub fn keep_rows(&self) {
        self.looked_up.store(true, Ordering::Relaxed);
    }

    /// Whether rows can be looked up: not in a copy of a file whose bytes were given back when the weights were packed.
    pub fn has_rows(&self) -> bool {
        self.packed.get().is_none() || self.looked_up.load(Ordering::Relaxed) || self.bytes.is_mapped()
    }

    /// Packs the weights if they are to be resident and have not been packed yet.
    pub(super) fn prepare(&self, context: &Context) -> Result<(), Error> {
        let Some(layout) = self.layout else { return Ok(()) };
        if self.packed.get().is_some() || !self.is_resident() || self.bytes.is_empty() {
            return Ok(());
        }
        // One caller packs while others wait. A caller that fails leaves nothing behind.
        let _turn = self.packing.get().lock().unwrap_or_else(PoisonError::into_inner);
        if self.packed.get().is_some() {
            return Ok(());
        }
        let groups = self.groups();
        let mut packed = AlignedBytes::mapped(groups * layout.group_bytes, "packed weights")?;
        let out = SharedSlice::new(&mut packed);
        let stage = (STAGE / layout.group_bytes).max(1);
        for first in (0..groups).step_by(stage) {
            let count = stage.min(groups - first);
            context.for_each(count, &|group| {
                let group = first + group;
                // SAFETY: every group is one piece, and the ranges of groups do not overlap.
                let out = unsafe { out.part(group * layout.group_bytes, layout.group_bytes) };
                self.pack(context.isa, group, layout, out);
            })?;
            // A page shared by two stages is read again by the second one, so releasing it loses nothing.
            let start = first * GROUP_ROWS * self.row_bytes;
            let end = self.bytes.len().min((first + count) * GROUP_ROWS * self.row_bytes);
            self.bytes.slice(start, end - start)?.release();
        }
        // Weights packed from a file that changed meanwhile must be discarded.
        self.bytes.check()?;
        if !self.looked_up.load(Ordering::Relaxed) {
            self.bytes.discard();
        }
        self.packed.set(packed);
        Ok(())
    }

    /// Number of groups of 16 rows; the last one may have fewer.
    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP_ROWS)
    }

    /// Sizes of the packed form; none for plain weights.
    pub(super) fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// A packed group, if the packed weights are in memory.
    pub(super) fn packed_group(&self, group: usize, layout: Layout) -> Option<&[u8]> {
        self.packed_from(group, layout).map(|packed| &packed[..layout.group_bytes])
    }

    /// A packed group and all that follow it, if the packed weights are in memory.
    pub(super) fn packed_from(&self, group: usize, layout: Layout) -> Option<&[u8]> {
        self.packed.get().map(|packed| &packed[group * layout.group_bytes..])
    }

    /// Packs one group.
    pub(super) fn pack(&self, isa: Isa, group: usize, layout: Layout, out: &mut [u8]) {
        let rows = GROUP_ROWS.min(self.rows - group * GROUP_ROWS);
        (self.format.info().pack)(isa, self.source(group * GROUP_ROWS, rows), rows, layout, out);
    }

    /// The file's bytes of some rows.
    pub(super) fn source(&self, row: usize, rows: usize) -> &[u8] {
        &self.bytes[row * self.row_bytes..][..rows * self.row_bytes]
    }
}
