//! Tables of compiled functions: what a product needs to know about an instruction set.

use super::activations::{Needs, Order};
use super::floats::FloatTileOperands;
use super::floats::panel::{ArrangeOperands, PanelSource, PanelTileOperands};
use super::operands::{ExpandOperands, TileOperands};
use super::unit::Unit;

/// A function of an instruction set; see `InstructionSet::entry`.
///
/// The caller guarantees that the processor supports the set whose table it comes from, and that the operands meet the
/// function's requirements.
pub(super) type Function<Operands, Output = ()> = unsafe fn(&Operands) -> Output;

/// Kernels for one packing; lists are in the order of `Common::direct_widths` or `Common::panel_widths`.
pub(super) struct Kernels {
    /// Tiles that read packed weights, one group of 16 rows.
    pub(super) direct: &'static [Function<TileOperands>],
    /// Tiles that read a panel, one group of 16 rows.
    pub(super) panel: &'static [Function<TileOperands>],
    /// Tiles that read a panel, two groups; empty if one is enough to fill the registers.
    pub(super) wide_panel: &'static [Function<TileOperands>],
    /// Expands packed weights into a panel.
    pub(super) expand: Function<ExpandOperands>,
    /// Bytes of a panel's scales for 32 columns of 16 rows; 0 where the packed scales are used.
    pub(super) panel_scale_bytes: usize,
    /// What the kernels of packed weights need from the activations.
    pub(super) needs: Needs,
    /// What the kernels of panels need from the activations.
    pub(super) panel_needs: Needs,
    /// The unit that the kernels of panels need configured.
    pub(super) unit: Option<Unit>,
}

/// The part that does not depend on a packing.
#[derive(Clone, Copy)]
pub(super) struct Common {
    /// Order of the activations for kernels of packed weights.
    pub(super) order: Order,
    /// Order of the activations for kernels of panels.
    pub(super) panel_order: Order,
    /// The most tokens that are multiplied straight from the packed layout; with more, panels are faster, as measured.
    pub(super) direct_tokens: usize,
    /// Columns of direct tiles, ascending.
    pub(super) direct_widths: &'static [usize],
    /// Columns of panel tiles, ascending.
    pub(super) panel_widths: &'static [usize],
    /// Runs the given number of rounds of products in registers; see `peak`.
    pub(super) peak: Function<usize, f32>,
    /// Number of multiplications in a round of `peak`.
    pub(super) peak_products: usize,
    /// Tokens of tiles of plain weights, ascending.
    pub(super) float_widths: &'static [usize],
    /// Panels of plain weights.
    pub(super) float_panel: FloatPanel,
}

/// The part of panels of plain weights that does not depend on the element type.
#[derive(Clone, Copy)]
pub(super) struct FloatPanel {
    /// The most tokens that are multiplied straight from the file; with more, panels are faster, as measured.
    pub(super) direct_tokens: usize,
    /// Rows of a panel.
    pub(super) rows: usize,
    /// Tokens of the narrowest tile used for more than `direct_tokens` tokens; each of `tiles` has one token more than the
    /// previous one.
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
    /// Expands rows into a panel.
    pub(super) expand: Function<PanelSource>,
}
