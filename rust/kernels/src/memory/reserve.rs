//! The reserve: memory for allocations that cannot fail, used when the system has none left.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Size of the reserve in bytes of address space; it takes memory only as it is used.
pub const RESERVE: usize = 8 << 20;
/// Requests above this size are refused as the system would: they come from code that reports memory shortage.
pub const LARGEST: usize = 2 << 20;
/// New work begins only while this much of the reserve is free.
pub const NEEDED: usize = 6 << 20;
/// Maximum number of reserves in use at a time.
const MOST: usize = 8;
/// Allocation unit of the reserve in bytes.
const UNIT: usize = 64;
/// The alignment of a reserve, and therefore the largest alignment that it can provide.
const ALIGNMENT: usize = 4096;

thread_local! {
    /// Whether this thread is making an allocation that may fail; the reserve is then left to those that may not.
    static FALLIBLE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `allocate`, which reports a shortage of memory, with allocations from the system alone.
pub fn fallible<R>(allocate: impl FnOnce() -> R) -> R {
    FALLIBLE.set(true);
    let result = allocate();
    FALLIBLE.set(false);
    result
}

/// The system's allocator with the reserve behind it.
pub struct Allocator;

// SAFETY: the system's allocator, or ranges of the reserve that nobody else has and that are aligned and as long as asked.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that the system's allocator requires.
        let place = unsafe { System.alloc(layout) };
        if place.is_null() { current().take(layout) } else { place }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that the system's allocator requires.
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

/// Static data of the process that costs no memory until it is used: the first reserve.
#[repr(C, align(4096))] // ALIGNMENT
struct Place(UnsafeCell<[u8; RESERVE]>);

// SAFETY: only addresses are taken here; who may use which bytes is decided by `Reserve`.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new([0; RESERVE]));
/// The first reserve, and those that replaced it while parts of it remained in use.
static RESERVES: [Reserve; MOST] = [const { Reserve::new(std::ptr::null_mut()) }; MOST];
/// The index of the reserve that hands out memory, and the number of reserves.
static CURRENT: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Whether enough of the reserve is free for new work; a reserve that is still partly in use is replaced.
pub(super) fn is_ready() -> bool {
    current().free() >= NEEDED || renew()
}

fn current() -> &'static Reserve {
    &RESERVES[CURRENT.load(Ordering::Acquire)]
}

/// The reserve that an allocation came from.
fn holder(place: *mut u8) -> Option<&'static Reserve> {
    RESERVES[..COUNT.load(Ordering::Acquire)].iter().find(|reserve| reserve.holds(place))
}

/// Makes a reserve that is entirely free the current one; false if there is none and no memory for another.
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
        // SAFETY: it came from there just now, and no other thread has seen it.
        unsafe { System.dealloc(place, layout) };
    }
    COUNT.fetch_max(index + 1, Ordering::AcqRel);
    Some(index)
}

/// A bump allocator: hands out one range after the other, and starts over when all have been returned. It uses no locks,
/// which a forked process could find locked forever.
pub struct Reserve {
    /// Null for the first reserve, which is `PLACE`, and for reserves that do not exist.
    start: AtomicPtr<u8>,
    /// Units handed out << 32 | ranges that are in use.
    state: AtomicU64,
}

impl Reserve {
    /// A reserve that begins at this address, or, if it is null, in the static data of the process.
    pub const fn new(start: *mut u8) -> Self {
        Self { start: AtomicPtr::new(start), state: AtomicU64::new(0) }
    }

    fn start(&self) -> *mut u8 {
        let start = self.start.load(Ordering::Acquire);
        if start.is_null() { PLACE.0.get().cast() } else { start }
    }

    /// The next range, or null if it is too large for what is left, or may fail.
    pub fn take(&self, layout: Layout) -> *mut u8 {
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

    /// Takes back a range of that size.
    pub fn give_back(&self, place: *mut u8, size: usize) {
        let first = ((place.addr() - self.start().addr()) / UNIT) as u64;
        let end = first + size.div_ceil(UNIT) as u64;
        // Once all ranges are returned, the whole reserve is free again; the range handed out last can be reused at once.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let count = (state & 0xffff_ffff) - 1;
            let taken = if state >> 32 == end { first } else { state >> 32 };
            Some(if count == 0 { 0 } else { taken << 32 | count })
        });
    }

    /// Whether the address is inside.
    pub fn holds(&self, place: *mut u8) -> bool {
        place.addr().wrapping_sub(self.start().addr()) < RESERVE
    }

    /// Bytes that are left.
    pub fn free(&self) -> usize {
        RESERVE - (self.state.load(Ordering::Acquire) >> 32) as usize * UNIT
    }
}
