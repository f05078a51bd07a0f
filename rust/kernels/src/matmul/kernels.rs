//! Tables of compiled functions: what a product needs to know of an instruction set.

use super::activations::Needs;
use super::floats::FloatTileOperands;
use super::floats::panel::{ArrangeOperands, PanelSource, PanelTileOperands};
use super::operands::{ExpandOperands, TileOperands};

/// A function of an instruction set; see `InstructionSet::entry`.
///
/// Whoever calls it guarantees that the processor has the set from whose table it comes, and that the operands are what the
/// function asks for.
pub(super) type Function<Operands, Output = ()> = unsafe fn(&Operands) -> Output;

/// Kernels for one packing; lists are in the order of `Common::direct_widths` or `Common::panel_widths`.
pub(super) struct Kernels {
    /// Packed weights, one group of 16 rows.
    pub(super) direct: &'static [Function<TileOperands>],
    /// Panel, one group of 16 rows.
    pub(super) panel: &'static [Function<TileOperands>],
    /// Panel, two groups; empty if one is enough to fill the registers.
    pub(super) wide_panel: &'static [Function<TileOperands>],
    /// Packed to panel.
    pub(super) expand: Function<ExpandOperands>,
    /// Bytes of a panel's scales for 32 columns of 16 rows; 0 where the packed scales are used.
    pub(super) panel_scale_bytes: usize,
    /// What kernels of packed weights need of the activations.
    pub(super) needs: Needs,
    /// What kernels of panels need of them.
    pub(super) panel_needs: Needs,
}

/// What does not depend on a packing.
pub(super) struct Common {
    /// How activations lie: see `QuantizeTile`.
    pub(super) eights: bool,
    /// The most tokens that are multiplied straight from the packed layout; where panels begin to pay, as measured.
    pub(super) direct_tokens: usize,
    /// Columns of direct tiles, ascending.
    pub(super) direct_widths: &'static [usize],
    /// Columns of panel tiles, ascending.
    pub(super) panel_widths: &'static [usize],
    /// So many rounds of products in registers; see `peak`.
    pub(super) peak: Function<usize, f32>,
    /// Multiplications in a round of `peak`.
    pub(super) peak_products: usize,
    /// Tokens of tiles of plain weights, ascending.
    pub(super) float_widths: &'static [usize],
    /// Panels of plain weights.
    pub(super) float_panel: FloatPanel,
}

/// What panels of plain weights have in common.
pub(super) struct FloatPanel {
    /// The most tokens that are multiplied straight from the file; where panels begin to pay, as measured.
    pub(super) direct_tokens: usize,
    /// Rows of a panel.
    pub(super) rows: usize,
    /// Tokens of the narrowest tile that more than `direct_tokens` are divided into; each of `tiles` has one more than the one
    /// before.
    pub(super) least: usize,
    /// Tiles.
    pub(super) tiles: &'static [Function<PanelTileOperands>],
    /// Sorts the activations of a tile.
    pub(super) arrange: Function<ArrangeOperands>,
}

/// Kernels for one type of plain weights.
pub(super) struct PlainKernels {
    /// Straight from the file, for each of `Common::float_widths`.
    pub(super) direct: &'static [Function<FloatTileOperands>],
    /// Makes a panel.
    pub(super) expand: Function<PanelSource>,
}
