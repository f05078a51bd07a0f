//! The bits of quants in the order of the K formats.

/// Writes the two low bits of 256 quants: 32 bytes hold four runs of 32.
pub(super) fn write_pairs(quants: &[u8], out: &mut [u8]) {
    for (quants, out) in quants.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, out) in out.iter_mut().enumerate() {
            *out = quants[l] & 3 | (quants[l + 32] & 3) << 2 | (quants[l + 64] & 3) << 4 | (quants[l + 96] & 3) << 6;
        }
    }
}

/// Writes the four low bits of 256 quants: 32 bytes hold two runs of 32.
pub(super) fn write_nibbles(quants: &[u8], out: &mut [u8]) {
    for (quants, out) in quants.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, out) in out.iter_mut().enumerate() {
            *out = quants[l] & 15 | (quants[l + 32] & 15) << 4;
        }
    }
}

/// Writes one bit of 256 quants: 32 bytes hold eight runs of 32.
pub(super) fn write_bits(quants: &[u8], bit: u32, out: &mut [u8]) {
    out.fill(0);
    for (run, quants) in quants.as_chunks::<32>().0.iter().enumerate() {
        for (out, quant) in out.iter_mut().zip(quants) {
            *out |= (quant >> bit & 1) << run;
        }
    }
}
