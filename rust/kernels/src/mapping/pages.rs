//! Memory pages of the system.

/// The whole pages inside a range, as first byte and end; there are none if the end is not greater than the first byte.
pub(super) fn whole_pages(start: usize, len: usize) -> (usize, usize) {
    let page = page_size();
    (start.div_ceil(page) * page, (start + len) / page * page)
}

/// Size of a memory page in bytes.
pub fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}
