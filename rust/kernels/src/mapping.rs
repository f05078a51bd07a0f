//! Bytes in a memory-mapped file or in allocated memory. The only module that knows how mapping works.

mod aligned;
mod bytes;
mod file;
mod guard;
#[cfg(unix)]
pub(crate) mod pages;

use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;

pub use aligned::{AlignedBytes, Plain};
pub use bytes::Bytes;
pub use file::SourceFile;
use guard::Guard;
use memmap2::{Mmap, MmapOptions};

use crate::Error;

/// Bytes that are read at a time when a file is copied into memory.
const STAGE: usize = 16 << 20;

/// Polled now and then; `true` stops the work.
type Interrupted<'a> = Option<&'a (dyn Fn() -> bool + Sync)>;

/// How the bytes of a model file are brought into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The file is mapped, and the system reads its pages as they are needed; if it cannot be mapped, it is copied.
    Map,
    /// The file is read into allocated memory at once; later changes to the file do not matter.
    Copy,
}

/// The bytes of a file, shared by everything that refers to them.
#[derive(Debug)]
pub struct Mapping {
    memory: Memory,
}

enum Memory {
    /// Fields are dropped in this order, so that no page is unmapped while the guard protects it.
    Map {
        guard: Guard,
        map: Mmap,
        source: Arc<SourceFile>,
    },
    Copy(AlignedBytes),
}

/// A way to map a file.
pub type Mapper = fn(&File) -> std::io::Result<Mmap>;

/// Ways to map a file, best first: pages of a shared map are the system's own copy of the file, but some file systems
/// (network file systems, those in user space) only support private maps, or none.
const MAPPERS: [Mapper; 2] = [shared, private];

/// A shared map.
pub fn shared(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and belongs to its `Mapping`; `check` tells whether anybody wrote to the file, and what
    // becomes of a shortened one is the business of `guard`.
    unsafe { Mmap::map(file) }
}

/// A private map, which is never written to.
pub fn private(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: as in `shared`.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

impl Mapping {
    /// Maps or copies the whole file, as it was when it was opened. `interrupted` is polled while it is copied.
    ///
    /// # Errors
    /// `Error::File` if it cannot be read or is empty, `Error::Changed` if it has changed since it was opened,
    /// `Error::Memory` if there is no memory for a copy, `Error::Cancelled` if `interrupted` returned `true`.
    pub fn of(source: &Arc<SourceFile>, load: Load, interrupted: Interrupted) -> Result<Arc<Self>, Error> {
        let mappers = if load == Load::Map { &MAPPERS[..] } else { &[] };
        Self::with(source, mappers, interrupted)
    }

    /// As `of`, in the first of these ways that works, or as a copy if none does.
    pub fn with(source: &Arc<SourceFile>, mappers: &[Mapper], interrupted: Interrupted) -> Result<Arc<Self>, Error> {
        let path = source.path().display();
        if source.is_empty() {
            return Err(Error::File(format!("{path} is empty; a model file was expected")));
        }
        source.check()?;
        let len = usize::try_from(source.len())
            .map_err(|_| Error::File(format!("{path} has {} bytes, too many for this machine", source.len())))?;
        // A map whose length differs from the checked one belongs to a file that is just being changed.
        let mapped = mappers.iter().find_map(|mapper| mapper(source.file()).ok().filter(|map| map.len() == len));
        let memory = match mapped {
            Some(map) => {
                Memory::Map { guard: Guard::new(map.as_ptr(), len, source.file()), map, source: Arc::clone(source) }
            }
            None => Memory::Copy(copied(source, len, interrupted)?),
        };
        Ok(Arc::new(Self { memory }))
    }

    /// Whether the file is mapped rather than copied.
    pub fn is_mapped(&self) -> bool {
        matches!(self.memory, Memory::Map { .. })
    }

    /// Call this before using the bytes for a while: it makes sure that `check` reports a file that is shortened meanwhile,
    /// where the system can tell.
    pub fn watch(&self) {
        if self.is_mapped() {
            guard::watch();
        }
    }

    /// Call this after using the bytes, before the result is returned: it checks that they were those of the file as it was
    /// opened.
    ///
    /// # Errors
    /// `Error::Changed` if the file became shorter or was written to. Copies do not change.
    pub fn check(&self) -> Result<(), Error> {
        let Memory::Map { guard, source, .. } = &self.memory else { return Ok(()) };
        source.check()?;
        if guard.lost() {
            return Err(Error::Changed(format!(
                "parts of {} could not be read while it was used: it became shorter, or its disk fails; \
                 open the model again",
                source.path().display()
            )));
        }
        Ok(())
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> usize {
        self.deref().len()
    }

    /// Whether the file is empty (never the case, since `of` rejects empty files).
    pub fn is_empty(&self) -> bool {
        self.deref().is_empty()
    }

    /// Declares that a range will be needed soon. This is a hint: failure, or a range outside the file, has no effect.
    pub fn advise_needed(&self, offset: usize, len: usize) {
        #[cfg(unix)]
        if let Memory::Map { map, .. } = &self.memory
            && offset.checked_add(len).is_some_and(|end| end <= map.len())
        {
            let _ = map.advise_range(memmap2::Advice::WillNeed, offset, len);
        }
        #[cfg(not(unix))]
        let _ = (offset, len);
    }

    /// Lets the system take back the whole pages inside a range. In a map they are read from the file again; in a copy they
    /// are lost, and this is done only if `gone` allows it.
    fn release(&self, start: usize, len: usize, gone: bool) {
        #[cfg(target_os = "linux")]
        match &self.memory {
            Memory::Map { map, .. } => {
                let (first, end) = pages::whole_pages(start, len);
                if first < end {
                    // SAFETY: dropping pages of a read-only file map changes no byte that anybody can see: a later access
                    // reads the same file again.
                    let _ =
                        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, end - first) };
                }
            }
            Memory::Copy(bytes) if gone => bytes.release(start, len),
            Memory::Copy(_) => {}
        }
        #[cfg(not(target_os = "linux"))]
        if let (Memory::Copy(bytes), true) = (&self.memory, gone) {
            bytes.release(start, len);
        }
    }
}

/// Reads the file into allocated memory.
fn copied(source: &SourceFile, len: usize, interrupted: Interrupted) -> Result<AlignedBytes, Error> {
    let mut bytes = AlignedBytes::mapped(len, "a copy of the model file (load=\"map\" needs none)")?;
    for (index, part) in bytes.chunks_mut(STAGE).enumerate() {
        if interrupted.is_some_and(|interrupted| interrupted()) {
            return Err(Error::Cancelled);
        }
        source.read((index * STAGE) as u64, part)?;
    }
    source.check()?;
    Ok(bytes)
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Map { map, .. } => map,
            Memory::Copy(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Map { map, .. } => write!(formatter, "Map({} bytes)", map.len()),
            Self::Copy(bytes) => write!(formatter, "Copy({} bytes)", bytes.len()),
        }
    }
}
