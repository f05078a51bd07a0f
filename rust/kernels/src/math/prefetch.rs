//! Prefetches for kernels that work on slices.

/// Prefetches the cache lines of a range that will be read later into the second-level cache; any part of the range outside
/// the bytes is ignored.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], range: std::ops::Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(bytes) = bytes.get(range) {
        for line in bytes.chunks(64) {
            // SAFETY: a prefetch is a hint; it reads nothing that the program could see. SSE is part of x86-64.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(bytes) = bytes.get(range) {
        for line in bytes.chunks(64) {
            // SAFETY: a prefetch is a hint; it reads nothing that the program could see. Every aarch64 processor has it.
            unsafe { <crate::cpu::sets::Neon as crate::simd::Simd>::prefetch_near(line.as_ptr()) };
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (bytes, range);
}

/// Prefetches the cache lines of numbers that will be read soon into the first-level cache.
#[inline(always)]
pub(crate) fn prefetch_soon(numbers: &[f32]) {
    for line in numbers.chunks(16) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
        };
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            <crate::cpu::sets::Neon as crate::simd::Simd>::prefetch_near(line.as_ptr().cast());
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }
}
