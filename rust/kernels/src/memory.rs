//! Handling of memory shortage: growth that reports it, and a reserve for allocations that cannot.
//!
//! Everything that grows with its input is grown here and fails with `Error::Memory`. Small allocations (an error message, a
//! map node, allocations of the libraries below) cannot fail in Rust without ending the process: they are taken from a
//! reserve when the system refuses, and `ready` refuses new work until the reserve is whole again.

pub(crate) mod reserve;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

pub use reserve::Allocator;
use reserve::{RESERVE, fallible, is_ready};

use crate::Error;

/// Bytes that must be free in the heap when work begins.
const SMALL_THINGS: usize = 64 << 10;

/// Makes `vector` at least `len` long; new elements are `value`.
///
/// # Errors
/// `Error::Memory` if the system refuses the memory.
pub fn grow<T: Clone>(vector: &mut Vec<T>, len: usize, value: T, purpose: &'static str) -> Result<(), Error> {
    if vector.len() < len {
        reserve(vector, len - vector.len(), purpose)?;
        vector.resize(len, value);
    }
    Ok(())
}

/// Makes `vector` exactly `len` long; new elements are `value`.
///
/// # Errors
/// `Error::Memory` if the system refuses the memory.
pub fn resize<T: Clone>(vector: &mut Vec<T>, len: usize, value: T, purpose: &'static str) -> Result<(), Error> {
    vector.truncate(len);
    grow(vector, len, value, purpose)
}

/// Makes room for `more` elements.
///
/// # Errors
/// `Error::Memory` if the system refuses the memory.
pub fn reserve<T>(vector: &mut Vec<T>, more: usize, purpose: &'static str) -> Result<(), Error> {
    let bytes = vector.len().saturating_add(more).saturating_mul(size_of::<T>());
    fallible(|| vector.try_reserve(more)).map_err(|_| Error::Memory { bytes, purpose })
}

/// An empty vector with room for `count` elements.
///
/// # Errors
/// `Error::Memory` if the system refuses the memory.
pub fn room<T>(count: usize, purpose: &'static str) -> Result<Vec<T>, Error> {
    let mut vector = Vec::new();
    fallible(|| vector.try_reserve_exact(count)).map_err(|_| {
        let bytes = count.saturating_mul(size_of::<T>());
        Error::Memory { bytes, purpose }
    })?;
    Ok(vector)
}

/// Checks that the reserve is available for work that begins now, and that the heap has room for allocations that cannot
/// fail: the C library ends the process if it has no memory for the thread-local data of a new thread. A reserve that is
/// still partly in use is replaced.
///
/// # Errors
/// `Error::Memory` if the process has no memory left.
pub fn ready() -> Result<(), Error> {
    if heap_has(SMALL_THINGS) && is_ready() {
        Ok(())
    } else {
        Err(Error::Memory { bytes: RESERVE, purpose: "anything" })
    }
}

/// Starts a thread and waits until it runs, so that no one else takes the memory that its start needs.
///
/// # Errors
/// `OutOfMemory` if memory is short, and the errors of the system.
pub fn spawn(builder: Builder, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    ready().map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
    let (here, arrived) = sync_channel(1);
    let thread = builder.spawn(move || {
        // The other end is waiting, or has ended together with its process.
        let _ = here.send(());
        work();
    })?;
    // An error would mean that the thread has already ended.
    let _ = arrived.recv();
    Ok(thread)
}

fn heap_has(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes, align_of::<usize>()) else { return false };
    // The compiler omits an allocation that it can see is unused, and assumes that it succeeded.
    // SAFETY: the layout has a size.
    let place = std::hint::black_box(unsafe { System.alloc(layout) });
    if place.is_null() {
        return false;
    }
    // SAFETY: it came from there just now with this layout.
    unsafe { System.dealloc(place, layout) };
    true
}
