//! A matrix of weights: bytes of the file, and their packed form once it has been needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::formats::{Format, GROUP_ROWS, Layout};
use crate::mapping::{AlignedBytes, Bytes};
use crate::processes::{PerProcess, Published};
use crate::shared::SharedSlice;

/// Bytes packed at a time before the file's pages are given back: the most that lies in memory twice.
const STAGE: usize = 16 << 20;

/// rows × columns weights in one format; shared by threads. `columns` is the length of the input of a product, the first
/// dimension of a GGUF tensor.
#[derive(Debug)]
pub struct Matrix {
    format: Format,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    bytes: Bytes,
    /// Sizes of the packed form; none for plain weights.
    layout: Option<Layout>,
    packed: Published<AlignedBytes>,
    /// Held for as long as packing takes: a child forked meanwhile packs for itself.
    packing: PerProcess<Mutex<()>>,
    resident: AtomicBool,
    /// Whether rows are looked up in the file's bytes after the weights were packed.
    looked_up: AtomicBool,
}

impl Matrix {
    /// A matrix over the bytes of a tensor.
    ///
    /// # Errors
    /// `Error::Shape` if the bytes are not exactly the matrix.
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
            bytes,
            layout,
            packed: Published::new(),
            packing: PerProcess::default(),
            resident: AtomicBool::new(true),
            looked_up: AtomicBool::new(false),
        })
    }

    /// Outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of a product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes in the file.
    pub fn nbytes(&self) -> usize {
        self.bytes.len()
    }

    /// Dequantizes one row, straight from the file's bytes (embedding lookup). Of packed weights only after `keep_rows`.
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
        self.format.dequantize(self.source(row, 1), out)
    }

    /// Whether the weights may be kept packed in memory. If not, every product packs what it needs, piece by piece: slow
    /// for few tokens, but without memory of its own. Default: they may. No effect on weights that are packed already.
    pub fn resident(&self, resident: bool) {
        self.resident.store(resident, Ordering::Relaxed);
    }

    /// Whether they may.
    pub fn is_resident(&self) -> bool {
        self.resident.load(Ordering::Relaxed)
    }

    /// Bytes of memory that products take for good: those of the packed form, or of the file for plain weights.
    pub fn resident_bytes(&self) -> usize {
        self.layout.map_or(self.nbytes(), |layout| self.groups() * layout.group_bytes)
    }

    /// Has the system read the file's bytes ahead, if the next product will read them: those of weights that may not be kept.
    pub fn read_ahead(&self) {
        if !self.is_resident() {
            self.bytes.read_ahead();
        }
    }

    /// Says that `row` will be called, also after the weights were packed: a copy of the file then keeps these bytes.
    pub fn keep_rows(&self) {
        self.looked_up.store(true, Ordering::Relaxed);
    }

    /// Packs the weights if that has not been done and is wanted.
    pub(super) fn prepare(&self, context: &Context) -> Result<(), Error> {
        let Some(layout) = self.layout else { return Ok(()) };
        if self.packed.get().is_some() || !self.is_resident() || self.bytes.is_empty() {
            return Ok(());
        }
        // One caller packs, others wait. A caller that failed leaves nothing behind.
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
            // A page between two stages is read again by the next one: releasing loses nothing.
            let start = first * GROUP_ROWS * self.row_bytes;
            let end = self.bytes.len().min((first + count) * GROUP_ROWS * self.row_bytes);
            self.bytes.slice(start, end - start)?.release();
        }
        // What was packed from a file that changed meanwhile must not stay.
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

    /// A packed group, if the weights are kept packed.
    pub(super) fn packed_group(&self, group: usize, layout: Layout) -> Option<&[u8]> {
        self.packed_from(group, layout).map(|packed| &packed[..layout.group_bytes])
    }

    /// A packed group and all that follow it, if the weights are kept packed.
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
