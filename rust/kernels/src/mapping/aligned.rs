//! Zeroed memory aligned for vector loads, in huge pages if it is large.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::Error;

/// Alignment of every buffer in bytes: one cache line, one 512-bit vector.
const ALIGNMENT: usize = 64;
/// Size of a huge page on x86-64, and on aarch64 with 4 KB pages.
const HUGE: usize = 2 << 20;
/// Working memory of at least this size is mapped.
const MAPPED: usize = 64 << 10;

/// One aligned unit of small buffers.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Unit(#[expect(dead_code, reason = "only seen as part of a slice of bytes")] [u8; ALIGNMENT]);

/// A buffer that starts as zeros, 64-byte aligned. Large ones are mapped: they take memory only as they are written, and return
/// it to the system when they are dropped. From 2 MB on they are aligned to 2 MB and, on Linux, in huge pages, which halve the
/// cost of address translation in a weight stream.
pub struct AlignedBytes {
    memory: Memory,
    len: usize,
}

enum Memory {
    Small(Vec<Unit>),
    Mapped { map: MmapMut, start: usize },
}

/// Number types for which any bytes are a valid value.
///
/// # Safety
/// Implement it only for types without padding, without invalid values, and with an alignment of at most 64.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($number:ty)*) => { $(
        // SAFETY: integers and floats have no padding and no invalid values, and an alignment of at most 8.
        unsafe impl Plain for $number {}
    )* };
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

impl AlignedBytes {
    /// `len` bytes of zeros, for working memory.
    ///
    /// # Errors
    /// `Error::Memory` if the system refuses that much memory.
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        const PURPOSE: &str = "working memory";
        if len >= MAPPED {
            return Self::mapped(len, PURPOSE);
        }
        let units = len.div_ceil(ALIGNMENT);
        let mut small = Vec::new();
        small.try_reserve_exact(units).map_err(|_| Error::Memory { bytes: len, purpose: PURPOSE })?;
        small.resize(units, Unit([0; ALIGNMENT]));
        Ok(Self { memory: Memory::Small(small), len })
    }

    /// `len` bytes of zeros that are long-lived and return to the system, whatever their size: pages of the heap stay with the
    /// process as long as anything after them is in use. `purpose` is for the error message.
    ///
    /// # Errors
    /// `Error::Memory` if the system refuses that much memory.
    pub fn mapped(len: usize, purpose: &'static str) -> Result<Self, Error> {
        let refused = || Error::Memory { bytes: len, purpose };
        if len == 0 {
            return Ok(Self::default());
        }
        if len < HUGE {
            let map = MmapMut::map_anon(len).map_err(|_| refused())?;
            return Ok(Self { memory: Memory::Mapped { map, start: 0 }, len });
        }
        let mapped = len.checked_add(HUGE).filter(|size| isize::try_from(*size).is_ok()).ok_or_else(refused)?;
        let map = MmapMut::map_anon(mapped).map_err(|_| refused())?;
        let start = map.as_ptr().align_offset(HUGE);
        if start > HUGE {
            return Err(refused());
        }
        // Requested before the first access, so that the first page fault brings in a whole huge page. Only where the buffer
        // fills huge pages: the last one would otherwise waste 1 MB on average, for every matrix of a model.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, start, len / HUGE * HUGE);
        Ok(Self { memory: Memory::Mapped { map, start }, len })
    }

    /// Returns the whole pages inside a range to the system, where it can take them; they must not be read again.
    #[cfg_attr(not(unix), expect(clippy::unused_self, reason = "only Unix takes parts of a map back"))]
    pub(super) fn release(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if let Memory::Mapped { map, start: first } = &self.memory {
            let (from, end) = super::pages::whole_pages(first + start, len);
            if from < end && start + len <= self.len {
                #[cfg(target_os = "linux")]
                let advice = memmap2::UncheckedAdvice::DontNeed;
                #[cfg(not(target_os = "linux"))]
                let advice = memmap2::UncheckedAdvice::Free;
                // SAFETY: the range lies inside the map, and the callers of `Bytes::discard` guarantee that nobody reads
                // it again.
                let _ = unsafe { map.unchecked_advise_range(advice, from, end - from) };
            }
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    /// The buffer as a slice of numbers; trailing bytes that do not fill a whole number are left out.
    pub fn view<T: Plain>(&self) -> &[T] {
        let count = self.len / size_of::<T>();
        // SAFETY: the buffer is 64-byte aligned, `count` numbers fit into it, it is initialized (zeroed at first), and
        // `Plain` promises that any bytes are valid numbers.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), count) }
    }

    /// The buffer as a mutable slice of numbers.
    pub fn view_mut<T: Plain>(&mut self) -> &mut [T] {
        let count = self.len / size_of::<T>();
        // SAFETY: as in `view`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), count) }
    }
}

impl Default for AlignedBytes {
    /// An empty buffer.
    fn default() -> Self {
        Self { memory: Memory::Small(Vec::new()), len: 0 }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: `Unit` is 64 bytes without padding, so the units are one run of initialized bytes of at least `len`.
            Memory::Small(units) => unsafe { std::slice::from_raw_parts(units.as_ptr().cast(), self.len) },
            Memory::Mapped { map, start } => &map[*start..*start + self.len],
        }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
            Memory::Small(units) => unsafe { std::slice::from_raw_parts_mut(units.as_mut_ptr().cast(), self.len) },
            Memory::Mapped { map, start } => &mut map[*start..*start + self.len],
        }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AlignedBytes({} bytes)", self.len)
    }
}
