//! Arm: which kernels run, and tiles of their own.
//!
//! NEON has 32 registers of 128 bits, which four rows fill, and multiplies a vector with an element of another one. So a tile
//! takes few vectors of rows and up to 4 columns and needs no broadcast (`dot`), or multiplies pairs of rows with pairs of
//! columns (`matrix`), from a panel that holds rows in pairs.
//!
//! No Arm processor was at hand: tile sizes come from counting instructions (rustc 1.96, `objdump -d`), not from timing. For 32
//! columns, no call, at most 5 vectors spilled:
//!
//! | tile | multiplications | instructions | of them |
//! |---|---|---|---|
//! | `neon` panel, 8 rows × 4 tokens, float scales | 1024 | 123 | 64 `sdot`, 24 float, 16 loads |
//! | the same, Q4_K, Q5_K / Q6_K, Q3_K / Q2_K | 1024 | 129 / 160 / 154 | 64 `sdot`, 8 or 16 to scale, 16 float |
//! | `i8mm` panel, 8 rows × 4 tokens, float scales | 1024 | 92 | 32 `usmmla`, 24 float, 13 loads |
//! | the same, Q4_K, Q5_K / Q6_K, Q3_K / Q2_K | 1024 | 102 / 139 / 146 | 32 `usmmla`, 8 or 16 to scale, 16 float |
//! | packed Q4_0, 16 rows × 1 token | 512 | 108 | 32 dots, 32 to unpack, 4 prefetches |
//! | packed Q8_0, 16 rows × 1 token | 512 | 124 / 92 | 32 dots, with `neon` 32 for the sign, 8 prefetches |
//!
//! An `i8mm` panel of 6 tokens needs 129 instructions for 1536 multiplications with float scales, but spills registers where there
//! are minimums or two scales.

mod dot;
mod matrix;

use super::activations::Needs;
use super::dispatch::{Common, FloatPanel, Floats, Kernels};
use super::floats::panel::{self, PanelRows, PanelTile};
use super::floats::{Element, FloatKernel, FloatTile, float_tile};
use super::peak::products;
use super::tile::{Kernel, Tile};
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::Neon;
use dot::{dot_tile, expand};
use matrix::matrix_tile;

/// Independent sums of the measurement of the peak.
const CHAINS: usize = 12;

/// What the module of an instruction set offers to `dispatch`.
macro_rules! instruction_set {
    (
        $module:ident, $simd:ty, $feature:literal, pairs $pairs:literal,
        direct $direct_tokens:literal: [$($direct:literal = $direct_tile:ident<$($direct_size:tt),*>)*],
        panel [$($panel:literal = $panel_tile:ident<$($panel_size:tt),*>)*],
        floats [$($rows:literal x $float:literal)*], peak $peak:path, $products:literal
    ) => {
        pub(crate) mod $module {
            use super::*;

            #[target_feature(enable = $feature)]
            unsafe fn dots<W: Weights, const R: usize, const C: usize>(operands: &Tile) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { dot_tile::<$simd, W, R, C>(operands) }
            }

            #[target_feature(enable = $feature)]
            unsafe fn expand_blocks<W: Weights>(operands: &Tile, quants: *mut u8, scales: *mut f32) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { expand::<$simd, W, $pairs>(operands, quants, scales) }
            }

            #[target_feature(enable = $feature)]
            unsafe fn run_floats<E: Element, const R: usize, const C: usize>(operands: &FloatTile) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { float_tile::<Neon, E, R, C>(operands) }
            }

            #[target_feature(enable = $feature)]
            unsafe fn run_panel<const C: usize>(operands: &PanelTile) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { panel::panel_tile::<Neon, 4, C>(operands) }
            }

            #[target_feature(enable = $feature)]
            unsafe fn expand_rows<E: Element>(operands: &PanelRows) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { panel::expand::<Neon, E, 4>(operands) }
            }

            #[target_feature(enable = $feature)]
            unsafe fn arrange_tile(input: *const f32, tokens: usize, columns: usize, out: *mut f32) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { panel::arrange::<Neon>(input, tokens, columns, out) }
            }

            #[target_feature(enable = $feature)]
            unsafe fn peak(rounds: usize) -> f32 {
                // SAFETY: the caller promises the instruction set.
                unsafe { $peak(rounds) }
            }

            /// Kernels that do not depend on a packing.
            pub(crate) const COMMON: &Common = &Common {
                eights: $pairs,
                peak,
                peak_products: 8 * CHAINS * $products,
                direct_tokens: $direct_tokens,
                direct_widths: &[$($direct),*],
                panel_widths: &[$($panel),*],
                float_widths: &[$($float),*],
                float_panel: FloatPanel {
                    direct_tokens: 16,
                    rows: 16,
                    least: 4,
                    tiles: &[run_panel::<4>, run_panel::<5>, run_panel::<6>],
                    arrange: arrange_tile,
                },
            };

            /// Kernels of one packing; the panel takes every byte.
            pub(crate) fn kernels<W: Weights, Exact: Weights, Any: Weights, Best: Weights>(zero: i32) -> Kernels {
                let signed = if W::MAXIMUM > 127 { <$simd as crate::simd::Simd>::SIGNED_ZERO } else { 0 };
                let needs = Needs {
                    zero: zero - signed,
                    parts: W::Scales::PARTS,
                    pairs: W::Scales::INTEGER && W::Scales::MINIMUM,
                    form: crate::simd::Form::Whole,
                };
                Kernels {
                    direct: &const { [$($direct_tile::<W, $($direct_size),*> as Kernel),*] },
                    panel: &const { [$($panel_tile::<Any, $($panel_size),*> as Kernel),*] },
                    wide_panel: &[],
                    expand: expand_blocks::<W>,
                    panel_scale_bytes: if W::Scales::INTEGER { 0 } else { Any::Scales::BYTES },
                    needs,
                    panel_needs: needs,
                }
            }

            /// Kernels of plain weights.
            pub(crate) fn floats<E: Element>() -> Floats {
                Floats {
                    direct: &const { [$(run_floats::<E, $rows, $float> as FloatKernel),*] },
                    expand: expand_rows::<E>,
                }
            }
        }
    };
}

instruction_set!(
    neon, crate::cpu::sets::Neon, "neon,dotprod", pairs false,
    direct 4: [1 = dots<4, 1> 2 = dots<4, 2> 4 = dots<2, 4>],
    panel [1 = dots<2, 1> 2 = dots<2, 2> 4 = dots<2, 4>],
    floats [2 x 1 2 x 2 2 x 3], peak products::<crate::cpu::sets::Neon, CHAINS>, 16
);

instruction_set!(
    i8mm, crate::cpu::sets::I8mm, "neon,dotprod,i8mm", pairs true,
    direct 4: [1 = dots<4, 1> 2 = matrices<4, 1, false> 4 = matrices<2, 2, false>],
    panel [1 = matrices<2, 1, true> 2 = matrices<2, 1, false> 4 = matrices<2, 2, false>],
    floats [2 x 1 2 x 2 2 x 3], peak matrix::products_in_registers::<CHAINS>, 32
);

/// A tile of pairs of rows and columns.
///
/// # Safety
/// As for [`matrix_tile`].
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn matrices<W: Weights, const R: usize, const Q: usize, const SINGLE: bool>(operands: &Tile) {
    // SAFETY: the caller promises the instruction set and good pointers.
    unsafe { matrix_tile::<W, R, Q, SINGLE>(operands) }
}
