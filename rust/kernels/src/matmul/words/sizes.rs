//! Sizes of blocks, tiles and panels.

use crate::math::LANES;

/// Columns that share a scale.
pub(super) const BLOCK: usize = 64;
/// Pairs of columns of a block: column `i` and column `i + PAIRS`.
pub(super) const PAIRS: usize = BLOCK / 2;
/// What the largest magnitude of a block becomes.
pub(super) const LIMIT: f32 = crate::words::limit(BLOCK);
/// Tokens of a tile.
pub(super) const TILE: usize = 6;
/// Vectors of rows of a panel.
pub(super) const VECTORS: usize = 4;
/// Rows of a panel.
pub(super) const PANEL_ROWS: usize = VECTORS * LANES;
/// Blocks of a panel: with 64 rows 16 KB, half of a first-level cache.
pub(super) const PANEL_BLOCKS: usize = 2;
