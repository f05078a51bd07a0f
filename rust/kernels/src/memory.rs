//! Memory that may run out: growth that reports it, and a reserve for those who cannot.
//!
//! What grows with its input is grown here and fails with `Error::Memory`. Small things (an error message, a node of a map, what
//! the libraries below allocate) have no way to fail in Rust but the end of the process: they are taken from a reserve when the
//! system refuses, and `ready` refuses new work until the reserve is whole again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

use crate::Error;

/// Address space of the reserve; memory is taken only as it is used, which is when the system has no more.
const RESERVE: usize = 8 << 20;
/// Requests above this size are refused like those of the system: they are of those that report it.
const LARGEST: usize = 2 << 20;
/// New work begins only while so much of the reserve is free.
const NEEDED: usize = 6 << 20;
/// What must be free in the heap when work begins.
const SMALL_THINGS: usize = 64 << 10;
/// The most reserves that are in use at a time.
const MOST: usize = 8;
/// Unit of places in the reserve.
const UNIT: usize = 64;
/// The alignment of a reserve, and so the largest that it can give.
const ALIGNMENT: usize = 4096;

thread_local! {
    /// Whether this thread allocates what it can do without: then the reserve stays for those who cannot.
    static FALLIBLE: Cell<bool> = const { Cell::new(false) };
}

/// `allocate()`, which reports that memory is short, from the system alone.
fn fallible<R>(allocate: impl FnOnce() -> R) -> R {
    FALLIBLE.set(true);
    let result = allocate();
    FALLIBLE.set(false);
    result
}

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
    if heap_has(SMALL_THINGS) && (current().free() >= NEEDED || renew()) {
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
    let Ok(layout) = Layout::from_size_align(bytes, UNIT) else { return false };
    // SAFETY: the layout has a size.
    let place = unsafe { System.alloc(layout) };
    if place.is_null() {
        return false;
    }
    // SAFETY: it came from there just now with this layout.
    unsafe { System.dealloc(place, layout) };
    true
}

/// The system's allocator with the reserve behind it.
pub struct Allocator;

// SAFETY: the system's allocator, or ranges of the reserve that nobody else has and that are aligned and as long as asked.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        let place = unsafe { System.alloc(layout) };
        if place.is_null() { current().take(layout) } else { place }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            return place;
        }
        let place = current().take(layout);
        if !place.is_null() {
            // SAFETY: `take` gave that many bytes.
            unsafe { place.write_bytes(0, layout.size()) };
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        match holder(place) {
            Some(reserve) => reserve.give_back(place, layout.size()),
            // SAFETY: not of a reserve, so of the system's allocator, with the caller's promise.
            None => unsafe { System.dealloc(place, layout) },
        }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if holder(place).is_none() {
            // SAFETY: not of a reserve, so of the system's allocator, with the caller's promise.
            let moved = unsafe { System.realloc(place, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises a size that is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above, and `size` is not 0.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both ranges are that long and do not overlap; the old one is given back once.
            unsafe {
                moved.copy_from_nonoverlapping(place, layout.size().min(size));
                self.dealloc(place, layout);
            }
        }
        moved
    }
}

/// A part of the process's own data that costs no memory before it is used: the first reserve.
#[repr(C, align(4096))] // ALIGNMENT
struct Place(UnsafeCell<[u8; RESERVE]>);

// SAFETY: only addresses are taken here; who may use which bytes is decided by `Reserve`.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new([0; RESERVE]));
/// The first reserve, and those that took its place while parts of it were in use for long.
static RESERVES: [Reserve; MOST] = [const { Reserve::new(std::ptr::null_mut()) }; MOST];
/// Which of them hands out, and how many there are.
static CURRENT: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(1);

fn current() -> &'static Reserve {
    &RESERVES[CURRENT.load(Ordering::Acquire)]
}

/// The reserve that a range came from.
fn holder(place: *mut u8) -> Option<&'static Reserve> {
    RESERVES[..COUNT.load(Ordering::Acquire)].iter().find(|reserve| reserve.holds(place))
}

/// Makes a reserve that is whole the current one; false if there is none and no memory for another one.
#[cold]
fn renew() -> bool {
    let count = COUNT.load(Ordering::Acquire);
    let whole = RESERVES[..count].iter().position(|reserve| reserve.free() == RESERVE);
    let Some(index) = whole.or_else(|| another(count)) else { return false };
    CURRENT.store(index, Ordering::Release);
    true
}

fn another(index: usize) -> Option<usize> {
    let reserve = RESERVES.get(index)?;
    let layout = Layout::new::<Place>();
    // SAFETY: the layout has a size.
    let place = unsafe { System.alloc(layout) };
    if place.is_null() {
        return None;
    }
    if reserve.start.compare_exchange(std::ptr::null_mut(), place, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: it came from there just now, and nobody else has seen it.
        unsafe { System.dealloc(place, layout) };
    }
    COUNT.fetch_max(index + 1, Ordering::AcqRel);
    Some(index)
}

/// Hands out one range behind the other, and begins again when all have come back. Without locks, which a forked process
/// could find taken for ever.
struct Reserve {
    /// Null for the first reserve, which lies in `PLACE`, and for those that there are not.
    start: AtomicPtr<u8>,
    /// Units handed out << 32 | ranges that are in use.
    state: AtomicU64,
}

impl Reserve {
    const fn new(start: *mut u8) -> Self {
        Self { start: AtomicPtr::new(start), state: AtomicU64::new(0) }
    }

    fn start(&self) -> *mut u8 {
        let start = self.start.load(Ordering::Acquire);
        if start.is_null() { PLACE.0.get().cast() } else { start }
    }

    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST || layout.align() > ALIGNMENT || FALLIBLE.get() {
            return std::ptr::null_mut();
        }
        let units = layout.size().div_ceil(UNIT) as u64;
        let step = layout.align().div_ceil(UNIT) as u64;
        let begin = |state: u64| (state >> 32).next_multiple_of(step);
        let taken = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let end = begin(state) + units;
            (end <= (RESERVE / UNIT) as u64).then_some(end << 32 | ((state & 0xffff_ffff) + 1))
        });
        taken.map_or(std::ptr::null_mut(), |state| self.start().wrapping_add(begin(state) as usize * UNIT))
    }

    fn give_back(&self, place: *mut u8, size: usize) {
        let first = ((place.addr() - self.start().addr()) / UNIT) as u64;
        let end = first + size.div_ceil(UNIT) as u64;
        // With the last range all of the reserve is free again, and what was taken last can be taken once more at once.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let count = (state & 0xffff_ffff) - 1;
            let taken = if state >> 32 == end { first } else { state >> 32 };
            Some(if count == 0 { 0 } else { taken << 32 | count })
        });
    }

    fn holds(&self, place: *mut u8) -> bool {
        place.addr().wrapping_sub(self.start().addr()) < RESERVE
    }

    fn free(&self) -> usize {
        RESERVE - (self.state.load(Ordering::Acquire) >> 32) as usize * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let mut vector = vec![1u64];
        assert!(matches!(grow(&mut vector, usize::MAX / 8, 0, "a test"), Err(Error::Memory { .. })));
        assert!(matches!(reserve(&mut vector, usize::MAX / 16, "a test"), Err(Error::Memory { .. })));
        assert!(matches!(room::<u64>(usize::MAX / 8, "a test"), Err(Error::Memory { .. })));
        grow(&mut vector, 3, 7, "a test").unwrap();
        assert_eq!(vector, [1, 7, 7]);
        resize(&mut vector, 2, 9, "a test").unwrap();
        assert_eq!(vector, [1, 7]);
    }

    #[test]
    fn the_reserve_is_handed_out_once_and_is_whole_again_in_the_end() {
        let reserve = Reserve::new(std::ptr::null_mut());
        let layout = Layout::from_size_align(1000, 16).unwrap();
        let first = reserve.take(layout);
        let second = reserve.take(layout);
        assert!(reserve.holds(first) && reserve.holds(second));
        assert_eq!(second.addr() - first.addr(), 1024);
        assert!(reserve.take(Layout::from_size_align(LARGEST + 1, 1).unwrap()).is_null());
        let large = Layout::from_size_align(LARGEST, 64).unwrap();
        let more = std::iter::from_fn(|| Some(reserve.take(large)).filter(|place| !place.is_null())).count();
        assert_eq!(more, RESERVE / LARGEST - 1);
        assert!(reserve.free() < NEEDED);
        let block = |index: usize| second.wrapping_add(1024 + index * LARGEST);
        (0..more).for_each(|index| reserve.give_back(block(index), LARGEST));
        reserve.give_back(first, 1000);
        reserve.give_back(second, 1000);
        assert_eq!(reserve.free(), RESERVE);
        assert_eq!(reserve.take(layout), first);
        assert!(!reserve.holds(std::ptr::from_ref(&reserve).cast_mut().cast()));
    }

    #[test]
    fn what_was_taken_last_can_be_taken_again_while_others_stay() {
        let reserve = Reserve::new(std::ptr::null_mut());
        let layout = Layout::from_size_align(1000, 16).unwrap();
        reserve.take(layout);
        let second = reserve.take(layout);
        for _ in 0..RESERVE {
            reserve.give_back(second, 1000);
            assert_eq!(reserve.take(layout), second);
        }
    }

    #[test]
    fn every_alignment_up_to_a_page_is_kept() {
        let reserve = Reserve::new(std::ptr::null_mut());
        for align in [1, 64, 128, 4096, 256, 8, 512] {
            let place = reserve.take(Layout::from_size_align(24, align).unwrap());
            assert!(!place.is_null() && place.addr().is_multiple_of(align), "{align}");
        }
        assert!(reserve.take(Layout::from_size_align(24, 8192).unwrap()).is_null());
    }

    #[test]
    fn what_can_fail_leaves_the_reserve_alone() {
        let reserve = Reserve::new(std::ptr::null_mut());
        let layout = Layout::from_size_align(1000, 16).unwrap();
        assert!(fallible(|| reserve.take(layout)).is_null());
        assert!(!reserve.take(layout).is_null());
    }
}
