//! The instruction sets with a matrix unit.

use super::panel::ExpandSigned;
use super::{Configure, PEAK_PRODUCTS, Release, TilePeak, Tiled, signed};
use crate::cpu::sets::{Amx, Avx512, InstructionSet, Scalar, SoftwareTiles, SoftwareTilesAvx512};
use crate::matmul::activations::{Needs, Order};
use crate::matmul::floats::Element;
use crate::matmul::kernels::{Common, Function, Kernels, PlainKernels};
use crate::matmul::multiplied::{self, ExpandMultiplied};
use crate::matmul::operands::TileOperands;
use crate::matmul::sets::TileSet;
use crate::matmul::unit::Unit;
use crate::matmul::weights::{ScaleKind, Weights};
use crate::tiles;

/// Sets with a matrix unit for panels; the rest is that of the set of vectors.
macro_rules! tiled {
    ($set:ty, $tiles:ty, $vectors:ty, direct $direct_tokens:expr) => {
        impl TileSet for $set {
            const COMMON: &'static Common = &Common {
                panel_order: Order::Columns,
                direct_tokens: $direct_tokens,
                panel_widths: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
                peak: <$vectors>::entry::<TilePeak<$tiles>>,
                peak_products: PEAK_PRODUCTS,
                ..*<$vectors as TileSet>::COMMON
            };

            fn kernels<W: Weights, Exact: Weights, Any: Weights, Best: Weights>(zero: i32) -> Kernels {
                let vectors = <$vectors as TileSet>::kernels::<W, Exact, Any, Best>(zero);
                let multiplied = Best::Scales::MULTIPLIED;
                Kernels {
                    panel: &const { [<$vectors>::entry::<Tiled<$tiles, $vectors, Best>> as Function<TileOperands>; 16] },
                    wide_panel: &[],
                    expand: if multiplied {
                        <$vectors>::entry::<ExpandMultiplied<$vectors, W>>
                    } else {
                        <$vectors>::entry::<ExpandSigned<$vectors, W>>
                    },
                    panel_needs: Needs {
                        zero: if signed::<Best>() { 0 } else { multiplied::zero(zero) },
                        parts: if signed::<Best>() { W::Scales::PARTS } else { 1 },
                        ..vectors.needs
                    },
                    unit: Some(Unit {
                        configure: <$vectors>::entry::<Configure<$tiles>>,
                        release: <$vectors>::entry::<Release<$tiles>>,
                        columns: 32 / Best::Scales::DOTS,
                    }),
                    ..vectors
                }
            }

            fn plain<E: Element>() -> PlainKernels {
                <$vectors as TileSet>::plain::<E>()
            }
        }
    };
}

// A tile of 16 tokens costs the same however many of its rows are used: with fewer than 12, vectors are faster.
tiled!(Amx, tiles::Amx, Avx512, direct 11);

tiled!(SoftwareTilesAvx512, tiles::Software, Avx512, direct 11);

tiled!(SoftwareTiles, tiles::Software, Scalar, direct 0);
