//! Bytes that live in a mapped file or in memory of our own. The only module that knows how mapping works.

mod aligned;

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use aligned::{AlignedBytes, Plain};
use memmap2::Mmap;

use crate::Error;

/// A file mapped for reading, shared by everything that points into it.
///
/// As with every mapped file, the process receives a signal if somebody shortens the file while it is in use: replace
/// model files by renaming a new one over them, not by overwriting.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
}

impl Mapping {
    /// Maps the whole file.
    ///
    /// # Errors
    /// `Error::File` if it cannot be opened or mapped, or is empty or not a regular file.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let failed =
            |what: &str, error: std::io::Error| Error::File(format!("cannot {what} {}: {error}", path.display()));
        let file = File::open(path).map_err(|error| failed("open", error))?;
        let about = file.metadata().map_err(|error| failed("look at", error))?;
        if !about.is_file() {
            return Err(Error::File(format!("{} is not a regular file; a model file was expected", path.display())));
        }
        if about.len() == 0 {
            return Err(Error::File(format!("{} is empty; a model file was expected", path.display())));
        }
        // SAFETY: the map is read-only and private to this value; that nobody shortens the file is the documented duty
        // of whoever manages model files, as for every program that maps them.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| failed("map", error))?;
        Ok(Arc::new(Self { map }))
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the file has no bytes (it always has: `open` refuses empty files).
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Says that the file will be read from front to back. A hint: failure has no effect but speed.
    pub fn advise_sequential(&self) {
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Sequential);
    }

    /// Says that a range will be needed soon. A hint: failure, or a range outside the file, has no effect.
    pub fn advise_needed(&self, offset: usize, len: usize) {
        #[cfg(unix)]
        if offset.checked_add(len).is_some_and(|end| end <= self.len()) {
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, offset, len);
        }
        #[cfg(not(unix))]
        let _ = (offset, len);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// A range of a mapped file, or bytes in memory; cheap to clone.
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
}

impl Bytes {
    /// `len` bytes of the file from `offset`.
    ///
    /// # Errors
    /// `Error::Shape` if the range does not lie inside the file.
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

    /// A part of these bytes.
    ///
    /// # Errors
    /// `Error::Shape` if the range does not lie inside them.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Self, Error> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(outside(offset as u64, len as u64, self.len));
        }
        Ok(Self { source: self.source.clone(), start: self.start + offset, len })
    }

    /// Lets the system take back the memory of these bytes' pages; the next access reads them from the file again.
    /// Touches only whole pages inside the range, so neighbours are not affected. No effect on bytes in memory and
    /// where the system has no such call.
    pub fn release(&self) {
        #[cfg(target_os = "linux")]
        if let Source::File(map) = &self.source {
            let page = page_size();
            let first = self.start.div_ceil(page) * page;
            let end = (self.start + self.len) / page * page;
            if first < end {
                // SAFETY: dropping pages of a read-only file map changes no byte that anybody can see: a later access
                // reads the same file again.
                let _ =
                    unsafe { map.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, end - first) };
            }
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::File(map) => map,
            Source::Memory(bytes) => bytes,
        };
        &all[self.start..self.start + self.len]
    }
}

fn outside(offset: u64, len: u64, available: usize) -> Error {
    Error::Shape(format!(
        "{len} bytes at offset {offset} do not fit into {available} bytes; the file is shorter than its header says"
    ))
}

/// Size of a memory page in bytes.
#[cfg(target_os = "linux")]
fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

#[cfg(test)]
mod tests;
