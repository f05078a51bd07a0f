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
mod linux {
    /// A processor that is not known.
    pub(crate) const UNKNOWN: usize = usize::MAX;

    /// Nanoseconds: a fraction of the usual slices, of one to a few milliseconds.
    const SLICE: u64 = 200_000;

    /// The number of the processor that runs this thread.
    pub(crate) fn current_processor() -> usize {
        // SAFETY: the call takes no arguments and only returns a number.
        usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(UNKNOWN)
    }

    /// The processors on which this worker may run.
    pub(crate) struct Placement {
        /// What it was before a processor was excluded, and what it was set to.
        changed: Option<(libc::cpu_set_t, libc::cpu_set_t)>,
        excluded: usize,
    }

    impl Placement {
        /// The placement of the calling thread, which gets short slices.
        pub(crate) fn of_worker() -> Self {
            ask_for_short_slices();
            Self { changed: None, excluded: UNKNOWN }
        }

        /// Excludes a processor instead of the one that was excluded before; [`UNKNOWN`] excludes none. Refusals of the
        /// system are ignored: this makes nothing but the speed better.
        pub(crate) fn exclude(&mut self, processor: usize, workers: usize) {
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

    fn same(one: &libc::cpu_set_t, other: &libc::cpu_set_t) -> bool {
        // SAFETY: compares two sets of the same size.
        unsafe { libc::CPU_EQUAL(one, other) }
    }

    fn affinity() -> Option<libc::cpu_set_t> {
        // SAFETY: a processor set is plain memory, for which zero is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer and the size are those of `set`; the call writes no more than that.
        let outcome = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        (outcome == 0).then_some(set)
    }

    fn set_affinity(set: &libc::cpu_set_t) -> bool {
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

    #[cfg(test)]
    mod tests {
        use super::{Placement, UNKNOWN, affinity, current_processor, same, set_affinity};

        #[test]
        fn a_processor_is_excluded_and_comes_back() {
            let before = affinity().unwrap();
            // SAFETY: counts the bits of a set on the stack.
            let count = unsafe { libc::CPU_COUNT(&before) };
            let mut placement = Placement::of_worker();
            let here = current_processor();
            placement.exclude(here, 1);
            let during = affinity().unwrap();
            // SAFETY: the number is that of a processor, below the size of the set in bits.
            assert_eq!(unsafe { libc::CPU_ISSET(here, &during) }, count == 1);
            assert!(count == 1 || current_processor() != here);
            placement.exclude(UNKNOWN, 1);
            assert!(same(&affinity().unwrap(), &before));
        }

        #[test]
        fn more_workers_than_processors_are_left_alone() {
            let before = affinity().unwrap();
            let mut placement = Placement::of_worker();
            placement.exclude(current_processor(), 1 << 20);
            assert!(same(&affinity().unwrap(), &before));
        }

        #[test]
        fn a_placement_by_others_stays() {
            let before = affinity().unwrap();
            let here = current_processor();
            let mut placement = Placement::of_worker();
            placement.exclude(here, 1);
            let mut one = before;
            // SAFETY: processors outside the set are not added; the number is below the size of the set in bits.
            unsafe {
                libc::CPU_ZERO(&mut one);
                libc::CPU_SET(here, &mut one);
            }
            assert!(set_affinity(&one));
            placement.exclude(UNKNOWN, 1);
            assert!(same(&affinity().unwrap(), &one));
            assert!(set_affinity(&before));
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
