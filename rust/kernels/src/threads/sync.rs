//! What the crew and the turn are synchronized with: the standard library's, or Loom's, which runs them in every order of
//! events (`loom/`, built with `--cfg loom`).

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize},
    sync::{Condvar, Mutex},
    thread::{Builder, JoinHandle},
};

#[cfg(not(loom))]
pub(super) use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize},
    sync::{Condvar, Mutex},
    thread::{Builder, JoinHandle},
};

/// Starts a thread.
#[cfg(loom)]
pub(super) fn spawn(builder: Builder, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    builder.spawn(work)
}

#[cfg(not(loom))]
pub(super) use crate::memory::spawn;

/// The standard cell with the methods of Loom's, which notes every access.
#[cfg(not(loom))]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Between a write and a read of something else, both sequentially consistent, that pair up with another thread's: Loom
/// takes such accesses for acquire and release, so that there a fence has to say it.
#[inline]
pub(super) fn sequential() {
    #[cfg(loom)]
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}
