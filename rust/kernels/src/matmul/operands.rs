//! What kernels of quantized weights work on.

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct TileOperands {
    /// Quants of the first group of rows; those of a second one must be reachable from there.
    pub(crate) quants: *const u8,
    /// Scales of the first group of rows; likewise.
    pub(crate) scales: *const u8,
    /// Bytes from one group of rows to the next, of quants and of scales.
    pub(crate) stride: (usize, usize),
    /// Where the weights have been decompressed from, if they have been: quants and scales, and bytes of 32 columns of each.
    pub(crate) compressed: (*const u8, *const u8),
    /// See `compressed`.
    pub(crate) compressed_bytes: (usize, usize),
    /// 16 values chosen by quants, for weights that have a table.
    pub(crate) table: *const u8,
    /// Blocks of 32 columns.
    pub(crate) blocks: usize,
    /// Activations `[block][8][column]`, 4 bytes each.
    pub(crate) activations: *const i32,
    /// `-zero · Σ activation`: `[block][part][column]`.
    pub(crate) starts: *const i32,
    /// `Σ activation` times the activations' scale: `[block][part][column]`.
    pub(crate) sums: *const f32,
    /// The same as pairs of 16 bits, for weights with integer minimums: `[block · parts / 2][column]`.
    pub(crate) pairs: *const i32,
    /// What 1 in `pairs` stands for: `[block / 8][column]`.
    pub(crate) pair_scales: *const f32,
    /// Scales of the activations: `[block][column]`.
    pub(crate) activation_scales: *const f32,
    /// Results, row after row.
    pub(crate) output: *mut f32,
    /// Floats from one column's results to the next.
    pub(crate) output_stride: usize,
    /// Whether `output` holds the sums of earlier blocks, to be continued.
    pub(crate) resume: bool,
}

/// Operands of what expands blocks of a group of 16 rows into a panel.
#[derive(Clone, Copy)]
pub(crate) struct ExpandOperands {
    /// The packed blocks.
    pub(crate) from: TileOperands,
    /// Room for 512 bytes a block.
    pub(crate) quants: *mut u8,
    /// Room for the scales that `Single` says, if scales are expanded, too.
    pub(crate) scales: *mut f32,
}
