//! Buffers of the threads that run the pieces of a product.

use std::cell::Cell;

use crate::Error;
use crate::mapping::AlignedBytes;

/// Buffers of one thread, reused from piece to piece.
pub(super) struct PieceBuffers {
    /// Bytes of a panel.
    pub(super) quants: AlignedBytes,
    /// Scales of a panel.
    pub(super) scales: AlignedBytes,
    /// Groups of rows that are packed on the fly, because the matrix is not resident.
    pub(super) packed: AlignedBytes,
    /// Results of groups that are incomplete or unfinished.
    pub(super) results: AlignedBytes,
    /// Quants and scales of a few decompressed blocks.
    pub(super) decompressed: [AlignedBytes; 2],
}

thread_local! {
    static BUFFERS: Cell<Option<PieceBuffers>> = const { Cell::new(None) };
}

/// Makes a buffer at least `len` bytes long; the contents are undefined.
fn grow(buffer: &mut AlignedBytes, len: usize) -> Result<(), Error> {
    if buffer.len() < len {
        *buffer = AlignedBytes::zeroed(len)?;
    }
    Ok(())
}

impl PieceBuffers {
    /// Runs `work` with this thread's buffers. `sizes` are their minimum sizes in bytes: panel bytes, panel scales, packed,
    /// results, decompressed quants, decompressed scales.
    pub(super) fn with(sizes: [usize; 6], work: impl FnOnce(&mut Self)) -> Result<(), Error> {
        let mut buffers = match BUFFERS.take() {
            Some(buffers) => buffers,
            None => Self {
                quants: AlignedBytes::zeroed(0)?,
                scales: AlignedBytes::zeroed(0)?,
                packed: AlignedBytes::zeroed(0)?,
                results: AlignedBytes::zeroed(0)?,
                decompressed: [AlignedBytes::zeroed(0)?, AlignedBytes::zeroed(0)?],
            },
        };
        grow(&mut buffers.quants, sizes[0])?;
        grow(&mut buffers.scales, sizes[1])?;
        grow(&mut buffers.packed, sizes[2])?;
        grow(&mut buffers.results, sizes[3])?;
        grow(&mut buffers.decompressed[0], sizes[4])?;
        grow(&mut buffers.decompressed[1], sizes[5])?;
        work(&mut buffers);
        BUFFERS.set(Some(buffers));
        Ok(())
    }
}
