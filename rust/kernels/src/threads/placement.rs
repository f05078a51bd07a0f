//! Where a worker runs beside other programs, and how soon after it was woken.
//!
//! The kernel wakes a thread on the processor of the thread that wakes it when all are busy: worker and caller then take
//! turns on one processor, and half of their share of the machine is lost. So a worker that goes to sleep among busy
//! programs excludes the caller's processor first. And it asks for short time slices (Linux 6.12, EEVDF): a woken thread
//! whose slices are shorter than those of the running one need not wait for the end of its slice. Slices do not change
//! the share.

#[cfg(all(target_os = "linux", not(loom), not(miri)))]
pub(super) use linux::{Placement, UNKNOWN, current_processor};
#[cfg(not(all(target_os = "linux", not(loom), not(miri))))]
pub(super) use other::{Placement, UNKNOWN, current_processor};

#[cfg(all(target_os = "linux", not(loom), not(miri)))]
pub(crate) mod linux {
    /// A processor that is not known.
    pub const UNKNOWN: usize = usize::MAX;

    /// Nanoseconds: a fraction of the usual slices, of one to a few milliseconds.
    const SLICE: u64 = 200_000;

    /// The number of the processor that runs this thread.
    pub fn current_processor() -> usize {
        // SAFETY: the call takes no arguments and only returns a number.
        usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(UNKNOWN)
    }

    /// The processors on which this worker may run.
    pub struct Placement {
        /// What it was before a processor was excluded, and what it was set to.
        changed: Option<(libc::cpu_set_t, libc::cpu_set_t)>,
        excluded: usize,
    }

    impl Placement {
        /// The placement of the calling thread, which gets short slices.
        pub fn of_worker() -> Self {
            ask_for_short_slices();
            Self { changed: None, excluded: UNKNOWN }
        }

        /// Excludes a processor instead of the one that was excluded before; [`UNKNOWN`] excludes none. Refusals of the
        /// system are ignored: this makes nothing but the speed better.
        pub fn exclude(&mut self, processor: usize, workers: usize) {
            if processor == self.excluded {
                return;
            }
            self.excluded = processor;
            if let Some((before, set)) = self.changed.take() {
                // Somebody else may have placed the thread in the meantime.
                if !affinity().is_some_and(|now| same(&now, &set)) || !set_affinity(&before) {
                    return;
                }
            }
            let Some(before) = affinity() else { return };
            let mut set = before;
            if processor < 8 * size_of::<libc::cpu_set_t>() {
                // SAFETY: the number is below the size of the set in bits.
                unsafe { libc::CPU_CLR(processor, &mut set) };
            }
            // SAFETY: counts the bits of a set on the stack.
            let left = unsafe { libc::CPU_COUNT(&set) };
            if !same(&before, &set) && usize::try_from(left).unwrap_or(0) >= workers && set_affinity(&set) {
                self.changed = Some((before, set));
            }
        }
    }

    /// Whether two sets have the same processors.
    pub fn same(one: &libc::cpu_set_t, other: &libc::cpu_set_t) -> bool {
        // SAFETY: compares two sets of the same size.
        unsafe { libc::CPU_EQUAL(one, other) }
    }

    /// The processors of this thread, if the system says.
    pub fn affinity() -> Option<libc::cpu_set_t> {
        // SAFETY: a processor set is plain memory, for which zero is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer and the size are those of `set`; the call writes no more than that.
        let outcome = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        (outcome == 0).then_some(set)
    }

    /// Sets the processors of this thread; `false` if the system refuses.
    pub fn set_affinity(set: &libc::cpu_set_t) -> bool {
        // SAFETY: the pointer and the size are those of `set`, which the call only reads.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) == 0 }
    }

    /// `struct sched_attr` of the kernel, first version.
    #[repr(C)]
    #[derive(Default)]
    struct SchedulingAttributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }

    /// Sets the length of this thread's slices, if it has an ordinary policy; older kernels ignore that.
    fn ask_for_short_slices() {
        let size = size_of::<SchedulingAttributes>();
        let mut attributes = SchedulingAttributes::default();
        // SAFETY: the pointer and the size are those of `attributes`; the call writes no more than that.
        let outcome = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH].map(|policy| policy as u32);
        if outcome == 0 && ordinary.contains(&attributes.policy) {
            attributes.runtime = SLICE;
            // SAFETY: the structure is valid, has its size in it, and is only read.
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        }
    }
}

#[cfg(not(all(target_os = "linux", not(loom), not(miri))))]
mod other {
    pub(crate) const UNKNOWN: usize = usize::MAX;

    pub(crate) fn current_processor() -> usize {
        UNKNOWN
    }

    pub(crate) struct Placement;

    impl Placement {
        pub(crate) fn of_worker() -> Self {
            Self
        }

        pub(crate) fn exclude(&mut self, _processor: usize, _workers: usize) {}
    }
}
