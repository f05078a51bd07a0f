//! Values that a forked child process can use, whatever the threads of its parent were doing at the time of the fork: nothing
//! here waits for another thread, and the child never takes a lock of the parent.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that is set at most once. Unlike a `OnceLock`, a reader or a second writer never waits for the first one.
pub struct Published<T> {
    value: AtomicPtr<T>,
    owned: PhantomData<T>,
}

impl<T> Published<T> {
    /// A value that has not been set yet.
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(std::ptr::null_mut()), owned: PhantomData }
    }

    /// The value, once it has been set.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: null, or a box that `set` gave up and that only `drop`, which has exclusive access, frees.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    /// The value; `make` creates it if it has not been set.
    pub fn get_or_set(&self, make: impl FnOnce() -> T) -> &T
    where
        T: Send + Sync,
    {
        self.get().unwrap_or_else(|| self.set(make()))
    }

    /// Sets the value, unless another thread was faster: then this one is dropped. Returns the value that is set.
    pub fn set(&self, value: T) -> &T
    where
        T: Send + Sync,
    {
        let fresh = Box::into_raw(Box::new(value));
        match self.value.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `fresh` came from a box just now; from here on it is freed by `drop` alone.
            Ok(_) => unsafe { &*fresh },
            Err(standing) => {
                // SAFETY: `fresh` was not published, so no other thread has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as in `get`; it is not null, or the exchange had succeeded.
                unsafe { &*standing }
            }
        }
    }
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();
        if !value.is_null() {
            // SAFETY: `set` took it out of a box, and `&mut self` proves that it is not borrowed.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

impl<T> std::fmt::Debug for Published<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.get().is_some() { "Published(set)" } else { "Published(not set)" })
    }
}

/// A value that every process creates for itself: after `fork` the child gets a fresh one. The child leaves the parent's value
/// alone, because it may be a lock that a thread of the parent holds.
pub struct PerProcess<T> {
    current: AtomicPtr<Stamped<T>>,
    owned: PhantomData<T>,
}

struct Stamped<T> {
    process: u32,
    value: T,
}

impl<T: Default + Send + Sync> PerProcess<T> {
    /// The value of this process.
    pub fn get(&self) -> &T {
        let found = self.current.load(Ordering::Acquire);
        // SAFETY: null, or a box that was published below and that only `drop`, which has exclusive access, frees.
        match unsafe { found.as_ref() } {
            Some(stamped) if stamped.process == std::process::id() => &stamped.value,
            _ => self.replace(found),
        }
    }

    #[cold]
    fn replace(&self, old: *mut Stamped<T>) -> &T {
        let fresh = Box::into_raw(Box::new(Stamped { process: std::process::id(), value: T::default() }));
        match self.current.compare_exchange(old, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `fresh` came from a box just now; from here on it is freed by `drop` alone.
            Ok(_) => unsafe { &(*fresh).value },
            Err(current) => {
                // SAFETY: `fresh` was not published, so no other thread has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: published by another thread of this process, and as in `get`.
                unsafe { &(*current).value }
            }
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self { current: AtomicPtr::new(std::ptr::null_mut()), owned: PhantomData }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        // SAFETY: null or a published box, and `&mut self` proves that it is not borrowed.
        if let Some(stamped) = unsafe { self.current.get_mut().as_mut() }
            && stamped.process == std::process::id()
        {
            // SAFETY: as above; it is freed once, here. That of another process stays: it may be a lock that is held.
            drop(unsafe { Box::from_raw(stamped) });
        }
    }
}

impl<T> std::fmt::Debug for PerProcess<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PerProcess")
    }
}
