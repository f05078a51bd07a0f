//! Memory that may run out: growth that reports it, and a reserve for those who cannot.
//!
//! What grows with its input is grown here and fails with `Error::Memory`. Small things (an error message, a node of a map, what
//! the libraries below allocate) have no way to fail in Rust but the end of the process: they are taken from a reserve when the
//! system refuses, and `ready` refuses new work until the reserve is whole again.

mod reserve;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

pub use reserve::Allocator;
use reserve::{RESERVE, fallible, is_ready};

use crate::Error;

/// What must be free in the heap when work begins.
const SMALL_THINGS: usize = 64 << 10;

/// Makes `vector` at least `len` long; new elements are `value`.
///
/// # Errors
/// `Error::Memory`.
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
/// `Error::Memory`.
pub fn resize<T: Clone>(vector: &mut Vec<T>, len: usize, value: T, purpose: &'static str) -> Result<(), Error> {
    vector.truncate(len);
    grow(vector, len, value, purpose)
}

/// Makes room for `more` elements.
///
/// # Errors
/// `Error::Memory`.
pub fn reserve<T>(vector: &mut Vec<T>, more: usize, purpose: &'static str) -> Result<(), Error> {
    let bytes = vector.len().saturating_add(more).saturating_mul(size_of::<T>());
    fallible(|| vector.try_reserve(more)).map_err(|_| Error::Memory { bytes, purpose })
}

/// An empty vector with room for `count` elements.
///
/// # Errors
/// `Error::Memory`.
pub fn room<T>(count: usize, purpose: &'static str) -> Result<Vec<T>, Error> {
    let mut vector = Vec::new();
    fallible(|| vector.try_reserve_exact(count)).map_err(|_| {
        let bytes = count.saturating_mul(size_of::<T>());
        Error::Memory { bytes, purpose }
    })?;
    Ok(vector)
}

/// Proves that the reserve is there for work that begins now, and that the heap has what others take who cannot fail: the
/// C library ends the process where it has no memory for the thread-local data of a new thread. What is still in use of an
/// older reserve is replaced.
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

/// Starts a thread and waits until it runs, so that nobody takes the memory away that its beginning needs.
///
/// # Errors
/// `OutOfMemory` where memory is short, and what the system says.
pub fn spawn(builder: Builder, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    ready().map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
    let (here, arrived) = sync_channel(1);
    let thread = builder.spawn(move || {
        // The other end waits, or has given up together with its process.
        let _ = here.send(());
        work();
    })?;
    // An error would mean that the thread has ended already.
    let _ = arrived.recv();
    Ok(thread)
}

fn heap_has(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes, align_of::<usize>()) else { return false };
    // The compiler leaves out an allocation that it sees nobody use, and takes it for one that came.
    // SAFETY: the layout has a size.
    let place = std::hint::black_box(unsafe { System.alloc(layout) });
    if place.is_null() {
        return false;
    }
    // SAFETY: it came from there just now with this layout.
    unsafe { System.dealloc(place, layout) };
    true
}

#[cfg(test)]
mod tests;
