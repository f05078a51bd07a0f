//! Tiles in software: what tests run where the processor has no unit. It reads the same configuration as the hardware.

use std::cell::Cell;

use super::{ACTIVATION_STRIDE, ACTIVATIONS, Configuration, SUM_STRIDE, SUMS, Tiles, WEIGHT_STRIDE, WEIGHTS};

/// The unit in software.
pub struct Software;

thread_local! {
    /// As the registers of a thread would be configured.
    static CONFIGURED: Cell<Option<Configuration>> = const { Cell::new(None) };
}

// SAFETY: rows and bytes are those of the tiles of the configuration.
unsafe impl Tiles for Software {
    unsafe fn configure(tokens: usize, columns: usize) {
        CONFIGURED.set(Some(Configuration::new(tokens, columns)));
    }

    unsafe fn release() {
        assert!(CONFIGURED.take().is_some(), "tiles were released that had not been configured");
    }

    unsafe fn multiply<const SIGNED: bool, const SECOND: bool>(
        activations: *const i8,
        weights: *const u8,
        sums: *mut i32,
    ) {
        let tiles = CONFIGURED.get().expect("tiles were used that had not been configured");
        let [of_sums, of_activations, of_weights] =
            [SUMS, ACTIVATIONS, WEIGHTS].map(|tiles| tiles[usize::from(SECOND)]);
        let rows = usize::from(tiles.row_bytes[of_sums] / 4);
        // SAFETY: the caller promises these tiles.
        unsafe {
            for token in 0..usize::from(tiles.rows[of_sums]) {
                let sums = std::slice::from_raw_parts_mut(sums.add(token * SUM_STRIDE), rows);
                sums.fill(0);
                let bytes = usize::from(tiles.row_bytes[of_activations]);
                let activations = std::slice::from_raw_parts(activations.add(token * ACTIVATION_STRIDE), bytes);
                for (group, four) in
                    activations.as_chunks::<4>().0.iter().enumerate().take(tiles.rows[of_weights].into())
                {
                    let line = std::slice::from_raw_parts(weights.add(group * WEIGHT_STRIDE), 4 * rows);
                    add_products::<SIGNED>(sums, four.map(i32::from), line);
                }
            }
        }
    }
}

/// Adds the products of 4 columns of one token and all rows of weights.
fn add_products<const SIGNED: bool>(sums: &mut [i32], activations: [i32; 4], weights: &[u8]) {
    let [a, b, c, d] = activations;
    for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
        let [w, x, y, z] = weights.map(|byte| if SIGNED { i32::from(byte as i8) } else { i32::from(byte) });
        *sum += w * a + x * b + (y * c + z * d);
    }
}
