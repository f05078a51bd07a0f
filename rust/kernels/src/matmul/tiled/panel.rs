//! Panels of signed bytes.

use std::marker::PhantomData;

use crate::cpu::sets::Entry;
use crate::matmul::expand::{RowAfterRow, expand};
use crate::matmul::operands::ExpandOperands;
use crate::matmul::weights::{ScaleKind, Weights};
use crate::simd::Simd;

/// As `Expand`, with signed bytes: the zero point is subtracted.
pub(in crate::matmul) struct ExpandSigned<S, W>(PhantomData<(S, W)>);

// SAFETY: as for `Expand`.
unsafe impl<S: Simd, W: Weights> Entry for ExpandSigned<S, W> {
    type Operands = ExpandOperands;
    type Output = ();

    #[inline(always)]
    unsafe fn run(operands: &ExpandOperands) {
        let ExpandOperands { from, zero, quants, scales } = *operands;
        // SAFETY: the caller promises the set, the packed blocks and the room.
        unsafe {
            expand::<RowAfterRow<S>, W>(&from, quants, scales);
            if W::Scales::MINIMUM {
                // Their zero point is 0.
                return;
            }
            for line in 0..8 * from.blocks {
                let bytes = &mut *quants.add(64 * line).cast::<[u8; 64]>();
                for i in 0..64 {
                    bytes[i] = bytes[i].wrapping_sub(zero);
                }
            }
        }
    }
}
