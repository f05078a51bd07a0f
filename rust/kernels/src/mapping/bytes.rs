//! Parts of a file or of memory.

use std::ops::Deref;
use std::sync::Arc;

use super::{AlignedBytes, Mapping};
use crate::Error;

/// A range of the bytes of a file, or bytes in memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bytes {
    source: Source,
    start: usize,
    len: usize,
}

#[derive(Clone, Debug)]
enum Source {
    File(Arc<Mapping>),
    Memory(Arc<Vec<u8>>),
    Aligned(Arc<AlignedBytes>),
}

impl Bytes {
    /// `len` bytes of the file from `offset` on.
    ///
    /// # Errors
    /// `Error::Shape` if the range is not inside the file.
    pub fn of_file(map: &Arc<Mapping>, offset: u64, len: u64) -> Result<Self, Error> {
        let whole = Self { source: Source::File(Arc::clone(map)), start: 0, len: map.len() };
        match (usize::try_from(offset), usize::try_from(len)) {
            (Ok(offset), Ok(len)) => whole.slice(offset, len),
            _ => Err(outside(offset, len, map.len())),
        }
    }

    /// Bytes in memory.
    pub fn owned(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { source: Source::Memory(Arc::new(bytes)), start: 0, len }
    }

    /// Bytes in aligned memory.
    pub fn aligned(bytes: AlignedBytes) -> Self {
        let len = bytes.len();
        Self { source: Source::Aligned(Arc::new(bytes)), start: 0, len }
    }

    /// A part of these bytes.
    ///
    /// # Errors
    /// `Error::Shape` if the range is not inside them.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Self, Error> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(outside(offset as u64, len as u64, self.len));
        }
        Ok(Self { source: self.source.clone(), start: self.start + offset, len })
    }

    /// The file that holds the bytes, and the offset of the first of them; `None` for bytes in memory.
    pub fn place(&self) -> Option<(&Arc<Mapping>, usize)> {
        match &self.source {
            Source::File(map) => Some((map, self.start)),
            Source::Memory(_) | Source::Aligned(_) => None,
        }
    }

    /// Checks that the bytes are still those of the file as it was opened; see [`Mapping::check`].
    ///
    /// # Errors
    /// `Error::Changed` if the file became shorter or was written to.
    pub fn check(&self) -> Result<(), Error> {
        match &self.source {
            Source::File(map) => map.check(),
            Source::Memory(_) | Source::Aligned(_) => Ok(()),
        }
    }

    /// Whether the system reads discarded bytes from a file again.
    pub fn is_mapped(&self) -> bool {
        matches!(&self.source, Source::File(map) if map.is_mapped())
    }

    /// Lets the system take back the memory of these bytes' pages; the next access reads them from the file again.
    /// Affects only whole pages inside the range, never adjacent bytes. Has no effect on copies and bytes in memory, or where
    /// the system has no such call.
    pub fn release(&self) {
        if let Source::File(map) = &self.source {
            map.release(self.start, self.len, false);
        }
    }

    /// Declares that the bytes will be needed soon, so that the system reads a mapped file ahead.
    pub fn read_ahead(&self) {
        if let Source::File(map) = &self.source {
            map.advise_needed(self.start, self.len);
        }
    }

    /// Like `release`, for bytes that are never read again: a copy also returns its memory, and then contains zeros there.
    pub fn discard(&self) {
        if let Source::File(map) = &self.source {
            map.release(self.start, self.len, true);
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::File(map) => map,
            Source::Memory(bytes) => bytes,
            Source::Aligned(bytes) => bytes,
        };
        &all[self.start..self.start + self.len]
    }
}

fn outside(offset: u64, len: u64, available: usize) -> Error {
    Error::Shape(format!(
        "{len} bytes at offset {offset} do not fit into {available} bytes; the file is shorter than its header says"
    ))
}
