//! The synchronization primitives of the crew and the turn: the standard library's, or Loom's, which explores every order of
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

/// The standard cell with the interface of Loom's, which records every access.
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

/// A fence between a sequentially consistent write and a sequentially consistent read of another variable that pair up with
/// those of another thread: Loom treats such accesses as acquire and release, so it needs an explicit fence.
#[inline]
pub(super) fn sequential() {
    #[cfg(loom)]
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}
