//! Which compiled kernel runs: one table of functions for each instruction set and packing, chosen once per call.

use super::activations::Needs;
use super::floats::panel::{PanelExpand, PanelKernel, PanelRows, PanelTile, arrange, panel_tile};
use super::floats::{BrainElement, Element, FloatKernel, FloatTile, HalfElement, SingleElement, float_tile, panel};
use super::multiplied::{self, Multiplied, expand_multiplied};
#[cfg(target_arch = "x86_64")]
use super::narrow::narrow_tile;
use super::scales::{Brain, Half, HalfMinimum, Minimum16, Minimum32, Signed16, Signed32};
use super::tile::{Kernel, Tile, expand, tile};
use super::weights::{
    Packed, Panel, Quants2, Quants3, Quants4, Quants5, Quants6, Quants8, ScaleKind, Unfolded, Weights,
};
use crate::cpu::Isa;
use crate::cpu::sets::*;
use crate::formats::{Bits, Format, Packing, Scales};

/// Expands packed blocks into a panel.
pub(crate) type Expand = unsafe fn(&Tile, *mut u8, *mut f32);

/// Kernels for one packing; lists are in the order of `Common::direct_widths` or `Common::panel_widths`.
pub(crate) struct Kernels {
    /// Packed weights, one group of 16 rows.
    pub(crate) direct: &'static [Kernel],
    /// Panel, one group of 16 rows.
    pub(crate) panel: &'static [Kernel],
    /// Panel, two groups; empty if one is enough to fill the registers.
    pub(crate) wide_panel: &'static [Kernel],
    /// Packed to panel.
    pub(crate) expand: Expand,
    /// Bytes of a panel's scales for 32 columns of 16 rows; 0 where the packed scales are used.
    pub(crate) panel_scale_bytes: usize,
    /// What kernels of packed weights need of the activations.
    pub(crate) needs: Needs,
    /// What kernels of panels need of them.
    pub(crate) panel_needs: Needs,
}

/// Kernels that do not depend on a packing.
pub(crate) struct Common {
    /// How activations lie: see `QuantizeTile`.
    pub(crate) eights: bool,
    /// The most tokens that are multiplied straight from the packed layout; where panels begin to pay, as measured.
    pub(crate) direct_tokens: usize,
    /// Columns of direct tiles, ascending.
    pub(crate) direct_widths: &'static [usize],
    /// Columns of panel tiles, ascending.
    pub(crate) panel_widths: &'static [usize],
    /// So many rounds of products in registers; see `peak`.
    pub(crate) peak: unsafe fn(usize) -> f32,
    /// Multiplications in a round of `peak`.
    pub(crate) peak_products: usize,
    /// Tokens of tiles of plain weights, ascending.
    pub(crate) float_widths: &'static [usize],
    /// Panels of plain weights.
    pub(crate) float_panel: FloatPanel,
}

/// What panels of plain weights have in common.
pub(crate) struct FloatPanel {
    /// The most tokens that are multiplied straight from the file; where panels begin to pay, as measured.
    pub(crate) direct_tokens: usize,
    /// Rows of a panel.
    pub(crate) rows: usize,
    /// Tokens of the narrowest tile that more than `direct_tokens` are divided into; each of `tiles` has one more than the one
    /// before.
    pub(crate) least: usize,
    /// Tiles.
    pub(crate) tiles: &'static [PanelKernel],
    /// Sorts the activations of a tile: from, tokens, columns, to.
    pub(crate) arrange: unsafe fn(*const f32, usize, usize, *mut f32),
}

/// Kernels for one type of plain weights.
pub(crate) struct Floats {
    /// Straight from the file, for each of `float_widths`.
    pub(crate) direct: &'static [FloatKernel],
    /// Makes a panel.
    pub(crate) expand: PanelExpand,
}

macro_rules! instruction_set {
    (
        $module:ident, $simd:ty, [$($target:meta)?], [$($feature:meta)?], $tile:expr,
        direct $direct_tokens:literal: $vectors:literal x [$($direct:literal)*],
        panel $panel_vectors:literal x [$($panel:literal)*],
        wide $wide_vectors:literal x [$($wide:literal)*] of $panel_of:ident,
        floats $float_tokens:expr, [$($rows:literal x $float:literal)*] panel $float_vectors:literal x [$least:literal $($more:literal)*]
    ) => {
        $(#[$target])?
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn run<W: Weights, const R: usize, const C: usize>(operands: &Tile) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { $tile(operands) }
            }

            $(#[$feature])?
            unsafe fn expand_blocks<W: Weights>(operands: &Tile, quants: *mut u8, scales: *mut f32) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { expand::<$simd, W>(operands, quants, scales) }
            }

            $(#[$feature])?
            unsafe fn multiply_blocks<W: Weights>(operands: &Tile, quants: *mut u8, scales: *mut f32) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { expand_multiplied::<$simd, W>(operands, quants, scales) }
            }

            $(#[$feature])?
            unsafe fn run_floats<E: Element, const R: usize, const C: usize>(operands: &FloatTile) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { float_tile::<$simd, E, R, C>(operands) }
            }

            $(#[$feature])?
            unsafe fn run_panel<const R: usize, const C: usize>(operands: &PanelTile) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { panel_tile::<$simd, R, C>(operands) }
            }

            $(#[$feature])?
            unsafe fn expand_rows<E: Element, const R: usize>(operands: &PanelRows) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { panel::expand::<$simd, E, R>(operands) }
            }

            $(#[$feature])?
            unsafe fn arrange_tile(input: *const f32, tokens: usize, columns: usize, out: *mut f32) {
                // SAFETY: the caller promises the instruction set and good pointers.
                unsafe { arrange::<$simd>(input, tokens, columns, out) }
            }

            /// Sums that fit into the registers beside the operands.
            const CHAINS: usize = if <$simd as crate::simd::Simd>::LANES == 16 { 12 } else { 6 };

            $(#[$feature])?
            unsafe fn peak(rounds: usize) -> f32 {
                // SAFETY: the caller promises the instruction set.
                unsafe { super::super::peak::products::<$simd, CHAINS>(rounds) }
            }

            /// Kernels that do not depend on a packing.
            pub(super) const COMMON: &Common = &Common {
                eights: false,
                peak,
                peak_products: 8 * 4 * <$simd as crate::simd::Simd>::LANES * CHAINS,
                direct_tokens: $direct_tokens,
                direct_widths: &[$($direct),*],
                panel_widths: &[$($panel),*],
                float_widths: &[$($float),*],
                float_panel: FloatPanel {
                    direct_tokens: $float_tokens,
                    rows: $float_vectors * <$simd as crate::simd::Simd>::LANES,
                    least: $least,
                    tiles: &[run_panel::<$float_vectors, $least>, $(run_panel::<$float_vectors, $more>),*],
                    arrange: arrange_tile,
                },
            };

            /// Kernels of one packing.
            ///
            /// `Exact` is the panel that knows the largest value, `Any` the one that takes every byte, `Best` that one or the one
            /// of quants times their scales.
            pub(super) fn kernels<W: Weights, Exact: Weights, Any: Weights, Best: Weights>(zero: i32) -> Kernels {
                let signed = if W::MAXIMUM > 127 { <$simd as crate::simd::Simd>::SIGNED_ZERO } else { 0 };
                let needs = Needs {
                    zero: zero - signed,
                    parts: W::Scales::PARTS,
                    pairs: W::Scales::INTEGER && W::Scales::MINIMUM,
                    form: <$simd as crate::simd::Simd>::form(W::MAXIMUM),
                };
                let multiplied = <$panel_of as Weights>::Scales::MULTIPLIED;
                Kernels {
                    direct: &const { [$(run::<W, $vectors, $direct> as Kernel),*] },
                    panel: &const { [$(run::<$panel_of, $panel_vectors, $panel> as Kernel),*] },
                    wide_panel: &const { [$(run::<$panel_of, $wide_vectors, $wide> as Kernel),*] },
                    expand: if multiplied { multiply_blocks::<W> } else { expand_blocks::<W> },
                    panel_scale_bytes: if W::Scales::INTEGER { 0 } else { Any::Scales::BYTES },
                    needs,
                    panel_needs: if multiplied && !W::Scales::MINIMUM {
                        Needs { zero: multiplied::zero(zero), parts: 1, ..needs }
                    } else {
                        needs
                    },
                }
            }

            /// Kernels of plain weights.
            pub(super) fn floats<E: Element>() -> Floats {
                Floats {
                    direct: &const { [$(run_floats::<E, $rows, $float> as FloatKernel),*] },
                    expand: expand_rows::<E, $float_vectors>,
                }
            }
        }
    };
}

instruction_set!(
    scalar, crate::cpu::sets::Scalar, [], [], tile::<crate::cpu::sets::Scalar, W, R, C>,
    direct 0: 1 x [], panel 1 x [1 2 4], wide 1 x [] of Any,
    floats usize::MAX, [1 x 1 1 x 2] panel 1 x [1 2]
);
instruction_set!(
    avx2, crate::cpu::sets::Avx2, [cfg(target_arch = "x86_64")],
    [target_feature(enable = "avx2,fma,f16c")], narrow_tile::<W, C>,
    direct 8: 2 x [1 2 4], panel 2 x [1 2 3], wide 2 x [] of Exact,
    floats 16, [1 x 1 2 x 2 2 x 3] panel 2 x [4 5 6]
);
instruction_set!(
    avxvnni, crate::cpu::sets::AvxVnni, [cfg(target_arch = "x86_64")],
    [target_feature(enable = "avx2,fma,f16c,avxvnni")], tile::<crate::cpu::sets::AvxVnni, W, R, C>,
    direct 16: 2 x [1 2 4], panel 2 x [1 2 4 6], wide 2 x [] of Best,
    floats 16, [1 x 1 2 x 2 2 x 3] panel 2 x [4 5 6]
);
instruction_set!(
    avx512, crate::cpu::sets::Avx512, [cfg(target_arch = "x86_64")],
    [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")],
    tile::<crate::cpu::sets::Avx512, W, R, C>,
    direct 16: 1 x [1 2 4 8], panel 1 x [1 2 4 6], wide 2 x [1 2 4 6] of Best,
    floats 48, [1 x 1 4 x 2 4 x 3 4 x 4 4 x 6] panel 4 x [5 6]
);

/// Runs a function of the module of an instruction set.
macro_rules! for_set {
    ($isa:expr, $name:ident $($call:tt)*) => {{
        #[cfg(target_arch = "x86_64")]
        if Avx512::of($isa).is_some() {
            return avx512::$name $($call)*.into();
        }
        #[cfg(target_arch = "x86_64")]
        if AvxVnni::of($isa).is_some() {
            return avxvnni::$name $($call)*.into();
        }
        #[cfg(target_arch = "x86_64")]
        if Avx2::of($isa).is_some() {
            return avx2::$name $($call)*.into();
        }
        #[cfg(target_arch = "aarch64")]
        if I8mm::of($isa).is_some() {
            return super::arm::i8mm::$name $($call)*.into();
        }
        #[cfg(target_arch = "aarch64")]
        if Neon::of($isa).is_some() {
            return super::arm::neon::$name $($call)*.into();
        }
        let _ = $isa;
        scalar::$name $($call)*.into()
    }};
}

/// Kernels of the instruction set that do not depend on a packing.
pub(crate) fn common(isa: Isa) -> &'static Common {
    for_set!(isa, COMMON)
}

/// The kernels for a packing, with quants that are `folded` in memory or not; none if no format uses that combination.
pub(crate) fn kernels(isa: Isa, packing: &Packing, folded: bool) -> Option<Kernels> {
    /// Kernels for quants, scales and largest value.
    macro_rules! packed {
        ($quants:ty, $scales:ty, $table:literal, $maximum:literal) => {
            packed!(Packed, $quants, $scales, $table, $maximum)
        };
        ($weights:ident, $quants:ty, $scales:ty, $table:literal, $maximum:literal) => {
            packed!($weights, $quants, $scales, $table, $maximum, <$scales as ScaleKind>::Panel)
        };
        ($weights:ident, $quants:ty, $scales:ty, $table:literal, $maximum:literal, $best:ty) => {
            for_set!(
                isa,
                kernels::<
                    $weights<$quants, $scales, $table, $maximum>,
                    Panel<<$scales as ScaleKind>::Panel, $maximum>,
                    Panel<<$scales as ScaleKind>::Panel, 255>,
                    Panel<$best, 255>,
                >(i32::from(packing.zero))
            )
        };
    }
    let eighths = (packing.factor * 8.0) as u32;
    if folded {
        return Some(match (packing.bits, packing.scales, eighths) {
            (Bits::Two, Scales::Signed32, 8) => packed!(Unfolded, Quants2, Signed32<8>, false, 3),
            // IQ1, whose values are small.
            (Bits::Four, Scales::Signed32, 1) if packing.zero < 16 => packed!(Unfolded, Quants4, Signed32<1>, true, 31),
            (Bits::Four, Scales::Signed16, 1) if packing.zero < 16 => packed!(Unfolded, Quants4, Signed16<1>, true, 31),
            (Bits::Four, Scales::Signed32, 1) => packed!(Unfolded, Quants4, Signed32<1>, true, 127),
            (Bits::Four, Scales::Signed16, 1) => packed!(Unfolded, Quants4, Signed16<1>, true, 127),
            (Bits::Four, Scales::Signed32, 2) => packed!(Unfolded, Quants4, Signed32<2>, true, 127),
            _ => return None,
        });
    }
    Some(match (packing.bits, packing.scales, packing.table.is_some()) {
        (Bits::Two, Scales::Signed32, false) => packed!(Quants2, Signed32<8>, false, 3),
        (Bits::Two, Scales::Minimum16, false) => {
            packed!(Packed, Quants2, Minimum16, false, 3, Multiplied<Minimum16>)
        }
        (Bits::Three, Scales::Signed16, false) => {
            packed!(Packed, Quants3, Signed16<8>, false, 7, Multiplied<Signed16<8>>)
        }
        (Bits::Four, Scales::Half, false) => packed!(Quants4, Half, false, 15),
        (Bits::Four, Scales::HalfMinimum, false) => packed!(Quants4, HalfMinimum, false, 15),
        (Bits::Four, Scales::Minimum32, false) => packed!(Quants4, Minimum32, false, 15),
        (Bits::Four, Scales::Half, true) => packed!(Quants4, Half, true, 255),
        (Bits::Four, Scales::Brain, true) => packed!(Quants4, Brain, true, 31),
        (Bits::Four, Scales::Signed32, true) if packing.zero < 16 => packed!(Quants4, Signed32<8>, true, 31),
        (Bits::Four, Scales::Signed32, true) if eighths == 8 => packed!(Quants4, Signed32<8>, true, 255),
        (Bits::Five, Scales::Half, false) => packed!(Quants5, Half, false, 31),
        (Bits::Five, Scales::HalfMinimum, false) => packed!(Quants5, HalfMinimum, false, 31),
        (Bits::Five, Scales::Minimum32, false) => packed!(Quants5, Minimum32, false, 31),
        (Bits::Six, Scales::Signed16, false) => packed!(Quants6, Signed16<8>, false, 63),
        (Bits::Eight, Scales::Half, false) => packed!(Quants8, Half, false, 255),
        _ => return None,
    })
}

/// The kernels for plain weights; none for quantized formats.
pub(crate) fn floats(isa: Isa, format: Format) -> Option<Floats> {
    match format {
        Format::F32 => Some(for_set!(isa, floats::<SingleElement>())),
        Format::F16 => Some(for_set!(isa, floats::<HalfElement>())),
        Format::BF16 => Some(for_set!(isa, floats::<BrainElement>())),
        _ => None,
    }
}
