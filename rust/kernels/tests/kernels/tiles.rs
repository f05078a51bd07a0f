//! The configuration byte by byte, and products of every shape.

use llamacpu_kernels::internals::tiles::*;

#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) mod emulation;

#[test]
fn the_configuration_has_the_layout_of_the_manual() {
    // SAFETY: plain bytes of the same size.
    let bytes: [u8; 64] = unsafe { std::mem::transmute(Configuration::new(13, 32)) };
    let mut expected = [0; 64];
    expected[0] = 1;
    for (tile, rows, row_bytes) in [(0, 13, 64), (1, 13, 64), (2, 13, 32), (3, 13, 32), (4, 8, 64), (5, 8, 64)] {
        expected[16 + 2 * tile] = row_bytes;
        expected[48 + tile] = rows;
    }
    assert_eq!(bytes, expected);
    let halves = Configuration::new(16, 16);
    assert_eq!((halves.row_bytes[2], halves.rows[4]), (16, 4));
}

/// Products of a unit beside plain sums, in every shape.
fn check<T: Tiles, const SIGNED: bool, const SECOND: bool>() {
    let activations: [i8; TOKENS * ACTIVATION_STRIDE] = std::array::from_fn(|at| (at * 89 % 256) as u8 as i8);
    let weights: [u8; 8 * WEIGHT_STRIDE] = std::array::from_fn(|at| (at * 57 % 256) as u8);
    for columns in [16, 32] {
        for tokens in 1..=TOKENS {
            let mut sums = [i32::MIN; TOKENS * SUM_STRIDE];
            // SAFETY: the arrays hold the largest tiles; the caller names a unit that this process may use.
            unsafe {
                T::configure(tokens, columns);
                T::multiply::<SIGNED, SECOND>(activations.as_ptr(), weights.as_ptr(), sums.as_mut_ptr());
                T::release();
            }
            for (at, sum) in sums.iter().enumerate() {
                let (token, row) = (at / SUM_STRIDE, at % SUM_STRIDE);
                let expected = (0..columns).map(|column| {
                    let weight = weights[column / 4 * WEIGHT_STRIDE + 4 * row + column % 4];
                    let weight = if SIGNED { i32::from(weight as i8) } else { i32::from(weight) };
                    weight * i32::from(activations[token * ACTIVATION_STRIDE + column])
                });
                // Nothing is written for tokens that are not there.
                assert_eq!(*sum, if token < tokens { expected.sum() } else { i32::MIN }, "{tokens} {columns} {at}");
            }
        }
    }
}

fn check_all<T: Tiles>() {
    check::<T, true, false>();
    check::<T, true, true>();
    check::<T, false, false>();
    check::<T, false, true>();
}

#[test]
fn products_of_every_shape() {
    check_all::<Software>();
    if usable() {
        check_all::<Amx>();
    }
}

#[test]
#[cfg(all(target_os = "linux", not(miri)))]
fn the_instructions_themselves_compute_what_the_software_does() {
    if !usable() {
        emulation::install();
    }
    check_all::<Amx>();
    // SAFETY: the processor has the unit by now.
    assert!(unsafe { correct() });
    assert!(emulation::released());
}

#[test]
#[should_panic(expected = "had not been configured")]
fn a_thread_that_has_not_configured_its_tiles_cannot_use_them() {
    let mut sums = [0; TOKENS * SUM_STRIDE];
    // SAFETY: the software needs no processor, and panics before it reads anything.
    unsafe { Software::multiply::<true, false>([0; 512].as_ptr(), [0; 512].as_ptr(), sums.as_mut_ptr()) };
}
