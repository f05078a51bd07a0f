//! Formats that are written by rounding alone, compiled for every instruction set.

use super::rows::Rows;
use crate::cpu::Isa;
use crate::formats::{floats, four_bit_tables, low_bits, nvfp4};
use crate::math::{Kernel, LANES, Lanes, dispatch};

/// A function of a format's table that runs one of the functions which write blocks.
macro_rules! plain {
    ($($name:ident $write:path;)*) => { $(
        pub(crate) fn $name(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
            struct Write<'a>(&'a [f32], &'a mut [u8]);

            impl Kernel for Write<'_> {
                type Output = ();

                #[inline(always)]
                fn run<L: Lanes>(self, _: L::Set) {
                    $write(self.0, self.1);
                }
            }

            dispatch(isa, Write(rows.values, out));
        }
    )* };
}

plain! {
    f32 floats::f32_to_bytes;
    bf16 floats::bf16_to_bytes;
    mxfp4 four_bit_tables::quantize_mxfp4;
}

/// The same for functions that are given the importance of the columns as well.
macro_rules! weighted {
    ($($name:ident $write:path;)*) => { $(
        pub(crate) fn $name(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
            struct Write<'a>(&'a [f32], Option<&'a [f32]>, &'a mut [u8]);

            impl Kernel for Write<'_> {
                type Output = ();

                #[inline(always)]
                fn run<L: Lanes>(self, _: L::Set) {
                    $write(self.0, self.1, self.2);
                }
            }

            dispatch(isa, Write(rows.values, rows.importance, out));
        }
    )* };
}

weighted! {
    nvfp4 nvfp4::quantize;
    q1_0 low_bits::quantize_q1_0;
}

/// Writes F16.
pub(crate) fn f16(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    dispatch(isa, Halves(rows.values, out));
}

struct Halves<'a>(&'a [f32], &'a mut [u8]);

impl Kernel for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let (vectors, rest) = self.0.as_chunks::<LANES>();
        let (out, last) = self.1.split_at_mut(vectors.len() * 2 * LANES);
        for (values, out) in vectors.iter().zip(out.as_chunks_mut::<{ 2 * LANES }>().0) {
            L::load(set, values).store_halves(out);
        }
        floats::f16_to_bytes(rest, last);
    }
}
