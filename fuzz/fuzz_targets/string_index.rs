#![no_main]
//! The index over the string arrays of a GGUF header: any bytes, any start, any count.
//!
//!     RUSTC_BOOTSTRAP=1 cargo fuzz run string_index -- -max_total_time=60

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (start, count, data) = input;
    // Small numbers are where arrays are found; large ones test the limits.
    for (start, count) in [(start, count), (start % 16, count % 64)] {
        let Ok(index) = llamacpu_text::index_strings(data, start, count) else { continue };
        assert_eq!(index.offsets.len() as u64, count + 1);
        assert_eq!(index.offsets[0], start);
        assert_eq!(index.offsets.last(), Some(&index.end));
        assert!(index.end <= data.len() as u64);
        for pair in index.offsets.windows(2) {
            let (prefix, text) = data[pair[0] as usize..pair[1] as usize].split_at(8);
            assert_eq!(prefix, (text.len() as u64).to_le_bytes());
        }
    }
});
