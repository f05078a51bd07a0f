//! Selection of the compiled functions, once per call, by instruction set and format.

use super::floats::{BrainElement, HalfElement, SingleElement};
use super::kernels::{Common, Kernels, PlainKernels};
use super::multiplied::Multiplied;
use super::scales::{Brain, Half, Half16, HalfMinimum, Minimum16, Minimum32, Signed16, Signed32};
use super::sets::TileSet;
use super::weights::{
    Decompressed, Packed, Panel, Quants1, Quants2, Quants3, Quants4, Quants5, Quants6, Quants8, ScaleKind,
};
use crate::cpu::Isa;
use crate::cpu::sets::*;
use crate::formats::{Bits, Format, Packing, Scales};

/// Evaluates an expression in which `$set` is the type of the best instruction set with tiles.
macro_rules! for_set {
    ($isa:expr, $set:ident => $value:expr) => {
        'value: {
            #[cfg(target_arch = "x86_64")]
            {
                if Amx::of($isa).is_some() {
                    type $set = Amx;
                    break 'value $value;
                }
                if SoftwareTilesAvx512::of($isa).is_some() {
                    type $set = SoftwareTilesAvx512;
                    break 'value $value;
                }
                if SoftwareTiles::of($isa).is_some() {
                    type $set = SoftwareTiles;
                    break 'value $value;
                }
                if Avx512::of($isa).is_some() {
                    type $set = Avx512;
                    break 'value $value;
                }
                if AvxVnni::of($isa).is_some() {
                    type $set = AvxVnni;
                    break 'value $value;
                }
                if Avx2::of($isa).is_some() {
                    type $set = Avx2;
                    break 'value $value;
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                if I8mm::of($isa).is_some() {
                    type $set = I8mm;
                    break 'value $value;
                }
                if Neon::of($isa).is_some() {
                    type $set = Neon;
                    break 'value $value;
                }
            }
            {
                type $set = Scalar;
                let _ = $isa;
                $value
            }
        }
    };
}

/// The largest value for which a panel is compiled: the next of those that make a difference (see [`super::narrow`]), so that
/// few panels serve all packings.
const fn bound(maximum: u32, minimum: bool) -> u32 {
    match maximum {
        ..=15 if minimum => 15,
        ..=31 if minimum => 31,
        ..=63 => 63,
        _ => 255,
    }
}

/// Kernels of the instruction set that do not depend on a packing.
pub(super) fn common(isa: Isa) -> &'static Common {
    for_set!(isa, Set => Set::COMMON)
}

/// The most tokens that the instruction set multiplies straight from a file of plain weights, and the least and the most tokens
/// of a tile where there are more.
pub fn float_tiles(isa: Isa) -> (usize, usize, usize) {
    let sets = &common(isa).float_panel;
    (sets.direct_tokens, sets.least, sets.least + sets.tiles.len() - 1)
}

/// The kernels for a packing whose quants are `compressed` in memory or not; none if no format uses that combination.
pub(super) fn kernels(isa: Isa, packing: &Packing, compressed: bool) -> Option<Kernels> {
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
                Set => Set::kernels::<
                    $weights<$quants, $scales, $table, $maximum>,
                    Panel<<$scales as ScaleKind>::Panel, { bound($maximum, <$scales as ScaleKind>::MINIMUM) }>,
                    Panel<<$scales as ScaleKind>::Panel, 255>,
                    Panel<$best, 255>,
                >(i32::from(packing.zero))
            )
        };
    }
    let eighths = (packing.factor * 8.0) as u32;
    if compressed {
        return Some(match (packing.bits, packing.scales, eighths) {
            (Bits::Two, Scales::Signed32, 8) => packed!(Decompressed, Quants2, Signed32<8>, false, 3),
            // IQ1, which has small values.
            (Bits::Four, Scales::Signed32, 1) if packing.zero < 16 => {
                packed!(Decompressed, Quants4, Signed32<1>, true, 31)
            }
            (Bits::Four, Scales::Signed16, 1) if packing.zero < 16 => {
                packed!(Decompressed, Quants4, Signed16<1>, true, 31)
            }
            (Bits::Four, Scales::Signed32, 1) => packed!(Decompressed, Quants4, Signed32<1>, true, 127),
            (Bits::Four, Scales::Signed16, 1) => packed!(Decompressed, Quants4, Signed16<1>, true, 127),
            (Bits::Four, Scales::Signed32, 2) => packed!(Decompressed, Quants4, Signed32<2>, true, 127),
            _ => return None,
        });
    }
    Some(match (packing.bits, packing.scales, packing.table.is_some()) {
        (Bits::One, Scales::Half, false) => packed!(Quants1, Half, false, 3),
        (Bits::Two, Scales::Half, false) => packed!(Quants2, Half, false, 3),
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
        (Bits::Four, Scales::Half16, true) => packed!(Quants4, Half16, true, 31),
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
pub(super) fn plain(isa: Isa, format: Format) -> Option<PlainKernels> {
    match format {
        Format::F32 => Some(for_set!(isa, Set => Set::plain::<SingleElement>())),
        Format::F16 => Some(for_set!(isa, Set => Set::plain::<HalfElement>())),
        Format::BF16 => Some(for_set!(isa, Set => Set::plain::<BrainElement>())),
        _ => None,
    }
}
