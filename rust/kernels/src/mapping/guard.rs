//! Handling of accesses to a part of a mapped file that no longer exists.
//!
//! The system raises the signal SIGBUS, which by default ends the process. The handler here, installed with the first mapped
//! file, replaces the lost pages of such a file by zeros and records this; code that computed with them checks the record
//! before it returns a result. Every other SIGBUS goes to the previous handler. The handler uses only atomics and system
//! calls. Windows refuses to shorten mapped files.

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(super) use elsewhere::{Guard, watch};
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(super) use signals::{Guard, watch};

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod signals {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::ptr::{null, null_mut};
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

    /// A mapped range that the handler knows. Entries are never freed, since the handler may be reading them.
    struct Entry {
        used: AtomicBool,
        start: AtomicUsize,
        /// 0 while the entry is unused.
        end: AtomicUsize,
        file: AtomicI32,
        lost: AtomicBool,
        next: AtomicPtr<Entry>,
    }

    static FIRST: AtomicPtr<Entry> = AtomicPtr::new(null_mut());
    static PAGE: AtomicUsize = AtomicUsize::new(4096);
    /// The action that was in place before the handler was installed for the first time.
    static ORIGINAL: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());
    /// The action that was in place before the handler was last installed.
    static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());
    /// Whether a signal has been passed on to the previous action since then.
    static PASSED_ON: AtomicBool = AtomicBool::new(false);

    fn entries() -> impl Iterator<Item = &'static Entry> {
        // SAFETY: entries come from Box::leak and are never freed.
        let entry = |at: *mut Entry| unsafe { at.as_ref() };
        std::iter::successors(entry(FIRST.load(Ordering::Acquire)), move |last| {
            entry(last.next.load(Ordering::Acquire))
        })
    }

    /// A mapped range that the handler protects until this is dropped.
    pub(in super::super) struct Guard(&'static Entry);

    impl Guard {
        /// Protects `len` bytes at `start`, where `file` is mapped; the file must stay open.
        pub(in super::super) fn new(start: *const u8, len: usize, file: &File) -> Self {
            PAGE.store(super::super::pages::page_size(), Ordering::Relaxed);
            watch();
            let free = entries().find(|entry| !entry.used.swap(true, Ordering::AcqRel)).unwrap_or_else(|| {
                let entry: &'static Entry = Box::leak(Box::new(Entry {
                    used: AtomicBool::new(true),
                    start: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                    file: AtomicI32::new(-1),
                    lost: AtomicBool::new(false),
                    next: AtomicPtr::new(null_mut()),
                }));
                let mut first = FIRST.load(Ordering::Acquire);
                loop {
                    entry.next.store(first, Ordering::Release);
                    let new = std::ptr::from_ref(entry).cast_mut();
                    match FIRST.compare_exchange(first, new, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return entry,
                        Err(now) => first = now,
                    }
                }
            });
            free.lost.store(false, Ordering::Release);
            free.file.store(file.as_raw_fd(), Ordering::Release);
            free.start.store(start.addr(), Ordering::Release);
            free.end.store(start.addr() + len, Ordering::Release);
            Self(free)
        }

        /// Whether pages were missing when they were read.
        pub(in super::super) fn lost(&self) -> bool {
            self.0.lost.load(Ordering::Acquire)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.end.store(0, Ordering::Release);
            self.0.used.store(false, Ordering::Release);
        }
    }

    /// Makes sure that the system calls this handler: other code may have installed another one since.
    pub(in super::super) fn watch() {
        // SAFETY: sigaction with valid pointers; the handler is a function of the right signature for SA_SIGINFO.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, null(), &raw mut now) != 0 || now.sa_sigaction == address() {
                return;
            }
            let kept: *mut libc::sigaction = Box::leak(Box::new(now));
            let _ = ORIGINAL.compare_exchange(null_mut(), kept, Ordering::AcqRel, Ordering::Acquire);
            PREVIOUS.store(kept, Ordering::Release);
            PASSED_ON.store(false, Ordering::Release);
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = address();
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const ours, null_mut());
        }
    }

    fn address() -> usize {
        (handle as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)) as usize
    }

    extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        let errno = errno();
        // SAFETY: the place of this thread's error number.
        let kept = unsafe { *errno };
        // SAFETY: the system passes a valid `info`; a positive code means a fault, which has an address.
        let fault = unsafe { info.as_ref().filter(|info| info.si_code > 0).map(|info| info.si_addr().addr()) };
        if !fault.is_some_and(replace) {
            pass_on(signal, fault.is_some());
        }
        // SAFETY: the place of this thread's error number.
        unsafe { *errno = kept };
    }

    /// Replaces the lost pages at `address` by zeros; false if that address is not in a protected mapping.
    fn replace(address: usize) -> bool {
        let inside = |entry: &&Entry| {
            entry.start.load(Ordering::Acquire) <= address && address < entry.end.load(Ordering::Acquire)
        };
        let Some(entry) = entries().find(inside) else { return false };
        let page = PAGE.load(Ordering::Relaxed);
        let start = entry.start.load(Ordering::Acquire);
        let end = entry.end.load(Ordering::Acquire).next_multiple_of(page);
        // SAFETY: fstat into memory of its size; a descriptor that is not open is an error of the call.
        let len = unsafe {
            let mut about: libc::stat = std::mem::zeroed();
            let known = libc::fstat(entry.file.load(Ordering::Acquire), &raw mut about) == 0;
            if known { usize::try_from(about.st_size).unwrap_or(0) } else { 0 }
        };
        // Everything beyond the end of a shortened file at once; elsewhere (an unreadable disk) only the one page.
        let gone = start.saturating_add(len).div_ceil(page).saturating_mul(page);
        let (first, end) =
            if address >= gone { (gone, end) } else { (address / page * page, address / page * page + page) };
        // SAFETY: the range is a part of a read-only map that its owner keeps until the entry is taken back; readers see
        // zeros instead of dying.
        let placed = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(first),
                end - first,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if placed == libc::MAP_FAILED {
            return false;
        }
        entry.lost.store(true, Ordering::Release);
        true
    }

    /// Passes the signal on to the previous action: a fault happens again when the handler returns, another signal is sent
    /// again.
    fn pass_on(signal: libc::c_int, fault: bool) {
        // SAFETY: sigaction and raise may be called in a handler; the stored actions are never freed.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            let installed = libc::sigaction(signal, null(), &raw mut now) == 0 && now.sa_sigaction == address();
            // Another handler may have called this one or passed the signal back; it must not get it again.
            let again = PASSED_ON.swap(true, Ordering::AcqRel) || !installed;
            let next = if again { &ORIGINAL } else { &PREVIOUS }.load(Ordering::Acquire);
            if next.is_null() || libc::sigaction(signal, next, null_mut()) != 0 {
                libc::signal(signal, libc::SIG_DFL);
            }
            if !fault {
                libc::raise(signal);
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn errno() -> *mut libc::c_int {
        // SAFETY: the place of this thread's error number, valid as long as the thread.
        unsafe { libc::__errno_location() }
    }

    #[cfg(target_os = "macos")]
    fn errno() -> *mut libc::c_int {
        // SAFETY: the place of this thread's error number, valid as long as the thread.
        unsafe { libc::__error() }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod elsewhere {
    use std::fs::File;

    /// Protection is not needed on this system.
    pub(in super::super) struct Guard;

    impl Guard {
        pub(in super::super) fn new(_start: *const u8, _len: usize, _file: &File) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the interface is that of systems where pages can be lost")]
        pub(in super::super) fn lost(&self) -> bool {
            false
        }
    }

    /// Does nothing on this system.
    pub(in super::super) fn watch() {}
}
