//! Operands of the kernels of quantized weights.

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct TileOperands {
    /// Quants of the first group of rows; those of a second one must be reachable from there.
    pub(crate) quants: *const u8,
    /// Scales of the first group of rows; those of a second one must be reachable likewise.
    pub(crate) scales: *const u8,
    /// Bytes from one group of rows to the next, of quants and of scales.
    pub(crate) stride: (usize, usize),
    /// The compressed quants and scales that the weights were decompressed from, if they were.
    pub(crate) compressed: (*const u8, *const u8),
    /// Bytes of 32 columns of the compressed quants and of the compressed scales.
    pub(crate) compressed_bytes: (usize, usize),
    /// 16 values chosen by quants, for weights that have a table.
    pub(crate) table: *const u8,
    /// Blocks of 32 columns.
    pub(crate) blocks: usize,
    /// Tokens: columns of the tile.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "elsewhere the tile's type says it"))]
    pub(crate) columns: usize,
    /// Activations `[block][8][column]`, 4 bytes each; see `Order` for others.
    pub(crate) activations: *const i32,
    /// `-zero · Σ activation`: `[block][part][column]`.
    pub(crate) starts: *const i32,
    /// `Σ activation` times the activations' scale: `[block][part][column]`.
    pub(crate) sums: *const f32,
    /// The same as pairs of 16 bits, for weights with integer minimums: `[block · parts / 2][column]`.
    pub(crate) pairs: *const i32,
    /// The value of 1 in `pairs`: `[block / 8][column]`.
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
    /// Zero point, for panels of signed bytes.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "AMX has such panels"))]
    pub(crate) zero: u8,
    /// Room for 512 bytes per block.
    pub(crate) quants: *mut u8,
    /// Room for the scales as laid out by `Single`, if scales are expanded as well.
    pub(crate) scales: *mut f32,
}
