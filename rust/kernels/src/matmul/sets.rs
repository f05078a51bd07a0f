//! The tiles of each instruction set: the sizes that fill its registers, and from how many tokens panels are faster.

use super::activations::{Needs, Order};
#[cfg(target_arch = "aarch64")]
use super::arm::*;
use super::expand::{Expand, RowAfterRow};
use super::floats::panel::{Arrange, ExpandRows, PanelTile};
use super::floats::{Element, FloatTile};
use super::kernels::{Common, FloatPanel, Kernels, PlainKernels};
use super::lanes::LaneProduct;
use super::multiplied::{self, ExpandMultiplied};
#[cfg(target_arch = "x86_64")]
use super::narrow::NarrowProduct;
use super::registers::{Peak, chains};
use super::tile::RegisterTile;
use super::weights::{ScaleKind, Weights};
use crate::cpu::sets::*;
use crate::simd::Simd;

/// An instruction set with tiles.
pub(super) trait TileSet: InstructionSet {
    /// The part that does not depend on a packing.
    const COMMON: &'static Common;

    /// Kernels of one packing.
    ///
    /// `Exact` is the panel that knows the largest value, `Any` the one that takes every byte, and `Best` either the latter or
    /// the one of quants times their scales.
    fn kernels<W: Weights, Exact: Weights, Any: Weights, Best: Weights>(zero: i32) -> Kernels;

    /// Kernels of plain weights.
    fn plain<E: Element>() -> PlainKernels;
}

/// `plain` is the set that multiplies plain weights: the same, or one that is part of it and shares what is compiled.
///
/// Tiles are `columns: product<vectors of rows, vectors of columns>`, those of plain weights `rows x tokens`, of their panels
/// `vectors of rows x tokens`.
macro_rules! tiles {
    (
        $set:ty, plain as $plain:ty, order $order:ident,
        direct $direct_tokens:literal [$($direct:literal: $direct_tile:ty $(, $direct_size:literal)+;)*],
        panel $panel_of:ident as $arrangement:ty [$($panel:literal: $panel_tile:ty $(, $panel_size:literal)+;)*],
        wide [$($wide_tile:ty $(, $wide_size:literal)+;)*],
        floats $float_tokens:expr, [$($rows:literal x $tokens:literal)*] panel $vectors:literal x [$least:literal $($more:literal)*],
        peak $peak:ty, $products:expr
    ) => {
        impl TileSet for $set {
            const COMMON: &'static Common = &Common {
                order: Order::$order,
                panel_order: Order::$order,
                peak: Self::entry::<$peak>,
                peak_products: $products,
                direct_tokens: $direct_tokens,
                direct_widths: &[$($direct),*],
                panel_widths: &[$($panel),*],
                float_widths: &[$($tokens),*],
                float_panel: FloatPanel {
                    direct_tokens: $float_tokens,
                    rows: $vectors * <$plain as Simd>::LANES,
                    least: $least,
                    tiles: &[
                        <$plain>::entry::<PanelTile<$plain, $vectors, $least>>,
                        $(<$plain>::entry::<PanelTile<$plain, $vectors, $more>>),*
                    ],
                    arrange: <$plain>::entry::<Arrange<$plain>>,
                },
            };

            fn kernels<W: Weights, Exact: Weights, Any: Weights, Best: Weights>(zero: i32) -> Kernels {
                let signed = if W::MAXIMUM > 127 { <$set as Simd>::SIGNED_ZERO } else { 0 };
                let needs = Needs {
                    zero: zero - signed,
                    parts: W::Scales::PARTS,
                    pairs: W::Scales::INTEGER && W::Scales::MINIMUM,
                    form: <$set as Simd>::form(W::MAXIMUM),
                };
                let multiplied = <$panel_of as Weights>::Scales::MULTIPLIED;
                Kernels {
                    direct: &const { [$(Self::entry::<RegisterTile<$direct_tile, W $(, $direct_size)+>>),*] },
                    panel: &const { [$(Self::entry::<RegisterTile<$panel_tile, $panel_of $(, $panel_size)+>>),*] },
                    wide_panel: &const { [$(Self::entry::<RegisterTile<$wide_tile, $panel_of $(, $wide_size)+>>),*] },
                    expand: if multiplied {
                        Self::entry::<ExpandMultiplied<$set, W>>
                    } else {
                        Self::entry::<Expand<$arrangement, W>>
                    },
                    panel_scale_bytes: if W::Scales::INTEGER { 0 } else { Any::Scales::BYTES },
                    needs,
                    panel_needs: if multiplied && !W::Scales::MINIMUM {
                        Needs { zero: multiplied::zero(zero), parts: 1, ..needs }
                    } else {
                        needs
                    },
                    unit: None,
                }
            }

            fn plain<E: Element>() -> PlainKernels {
                PlainKernels {
                    direct: &const { [$(<$plain>::entry::<FloatTile<$plain, E, $rows, $tokens>>),*] },
                    expand: <$plain>::entry::<ExpandRows<$plain, E, $vectors>>,
                }
            }
        }
    };
}

/// Number of multiplications in a round of `registers::Peak`.
const fn products<S: Simd>() -> usize {
    8 * 4 * S::LANES * chains::<S>()
}

tiles!(
    Scalar, plain as Scalar, order Groups,
    direct 0 [],
    panel Any as RowAfterRow<Scalar> [1: LaneProduct<Scalar>, 1, 1; 4: LaneProduct<Scalar>, 1, 4;],
    wide [],
    floats usize::MAX, [1 x 1 1 x 2] panel 1 x [1 2],
    peak Peak<Scalar, { chains::<Scalar>() }>, products::<Scalar>()
);

#[cfg(target_arch = "x86_64")]
tiles!(
    Avx2, plain as Avx2, order Groups,
    direct 16 [
        1: NarrowProduct, 2, 1;
        2: NarrowProduct, 2, 2;
        3: NarrowProduct, 2, 3;
        4: NarrowProduct, 2, 4;
    ],
    panel Exact as RowAfterRow<Avx2> [1: NarrowProduct, 2, 1; 2: NarrowProduct, 2, 2; 3: NarrowProduct, 2, 3;],
    wide [],
    floats 16, [1 x 1 2 x 2 2 x 3] panel 2 x [4 5 6],
    peak Peak<Avx2, { chains::<Avx2>() }>, products::<Avx2>()
);

#[cfg(target_arch = "x86_64")]
tiles!(
    AvxVnni, plain as Avx2, order Groups,
    direct 16 [1: LaneProduct<AvxVnni>, 2, 1; 2: LaneProduct<AvxVnni>, 2, 2; 4: LaneProduct<AvxVnni>, 2, 4;],
    panel Best as RowAfterRow<AvxVnni> [
        1: LaneProduct<AvxVnni>, 2, 1;
        2: LaneProduct<AvxVnni>, 2, 2;
        4: LaneProduct<AvxVnni>, 2, 4;
        6: LaneProduct<AvxVnni>, 2, 6;
    ],
    wide [],
    floats 16, [1 x 1 2 x 2 2 x 3] panel 2 x [4 5 6],
    peak Peak<AvxVnni, { chains::<AvxVnni>() }>, products::<AvxVnni>()
);

#[cfg(target_arch = "x86_64")]
tiles!(
    Avx512, plain as Avx512, order Groups,
    direct 16 [
        1: LaneProduct<Avx512>, 1, 1;
        2: LaneProduct<Avx512>, 1, 2;
        4: LaneProduct<Avx512>, 1, 4;
        8: LaneProduct<Avx512>, 1, 8;
    ],
    panel Best as RowAfterRow<Avx512> [
        1: LaneProduct<Avx512>, 1, 1;
        2: LaneProduct<Avx512>, 1, 2;
        4: LaneProduct<Avx512>, 1, 4;
        6: LaneProduct<Avx512>, 1, 6;
    ],
    wide [
        LaneProduct<Avx512>, 2, 1;
        LaneProduct<Avx512>, 2, 2;
        LaneProduct<Avx512>, 2, 4;
        LaneProduct<Avx512>, 2, 6;
    ],
    floats 48, [1 x 1 4 x 2 4 x 3 4 x 4 4 x 6] panel 4 x [5 6],
    peak Peak<Avx512, { chains::<Avx512>() }>, products::<Avx512>()
);

#[cfg(target_arch = "aarch64")]
tiles!(
    Neon, plain as Neon, order Groups,
    direct 4 [1: ElementProduct<Neon>, 4, 1; 2: ElementProduct<Neon>, 4, 2; 4: ElementProduct<Neon>, 2, 4;],
    panel Any as Offset<Neon> [1: ElementProduct<Neon>, 2, 1; 2: ElementProduct<Neon>, 2, 2; 4: ElementProduct<Neon>, 2, 4;],
    wide [],
    floats 16, [2 x 1 2 x 2 2 x 3] panel 4 x [4 5 6],
    peak Peak<Neon, { chains::<Neon>() }>, products::<Neon>()
);

#[cfg(target_arch = "aarch64")]
tiles!(
    I8mm, plain as Neon, order PairsOfGroups,
    direct 4 [1: ElementProduct<I8mm>, 4, 1; 2: PairProduct<false>, 8, 1; 4: PairProduct<false>, 4, 2;],
    panel Any as RowPairs<I8mm> [1: PairProduct<true>, 4, 1; 2: PairProduct<false>, 4, 1; 4: PairProduct<false>, 4, 2;],
    wide [],
    floats 16, [2 x 1 2 x 2 2 x 3] panel 4 x [4 5 6],
    // A matrix product is 32 multiplications.
    peak MatrixPeak<{ chains::<I8mm>() }>, 8 * 32 * chains::<I8mm>()
);
