//! Types shared by packing, compression and the kernels: sizes of quants, kinds of scales, and one unpacked block.

/// Rows in a group of the packed layout, stored side by side.
pub(crate) const GROUP_ROWS: usize = 16;

/// Bits per quant in the packed layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// 1 bit, of a quant that is 0 or 2.
    One,
    /// 2 bits.
    Two,
    /// 3 bits.
    Three,
    /// 4 bits.
    Four,
    /// 5 bits.
    Five,
    /// 6 bits.
    Six,
    /// 8 bits.
    Eight,
}

impl Bits {
    /// Size of 32 columns of 16 rows in bytes.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::One => 64,
            Self::Two => 128,
            Self::Three => 192,
            Self::Four => 256,
            Self::Five => 320,
            Self::Six => 384,
            Self::Eight => 512,
        }
    }
}

/// How a format scales its integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scales {
    /// One f16 for 32 weights.
    Half,
    /// One f16 for 16 weights.
    Half16,
    /// One bf16 for 32 weights (a power of two).
    Brain,
    /// One f16 scale and one f16 minimum for 32 weights.
    HalfMinimum,
    /// One f16 for 256 weights times a signed byte for 32.
    Signed32,
    /// One f16 for 256 weights times a signed byte for 16.
    Signed16,
    /// f16 scale and minimum for 256 weights, each times an unsigned byte for 32.
    Minimum32,
    /// f16 scale and minimum for 256 weights, each times four bits for 16.
    Minimum16,
}

impl Scales {
    /// Whether a minimum is subtracted from every weight.
    pub(crate) const fn minimum(self) -> bool {
        matches!(self, Self::HalfMinimum | Self::Minimum32 | Self::Minimum16)
    }
}

/// The layout of a format's weights in the kernels.
///
/// A weight is `(value - zero) · scale - minimum`, where `value` is the quant, or the entry of `table` that it chooses.
#[derive(Debug)]
pub struct Packing {
    /// Size of a quant.
    pub bits: Bits,
    /// Values of the quants, if the quants are not the values themselves.
    pub table: Option<&'static [u8; 16]>,
    /// The value that represents zero.
    pub zero: u8,
    /// Scales and minimums.
    pub scales: Scales,
    /// Factor (a power of two) of the f16 scale of 256 weights.
    pub factor: f32,
}

/// One block, independent of its layout in the file: quants in the order of the weights, and raw scales.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Quants; a block of 32 uses the first 32.
    pub quants: [u8; 256],
    /// f16 (or bf16) bits of the block's scale.
    pub scale: u16,
    /// f16 bits of the scales of the parts, for `Scales::Half16`, whose blocks have 64 weights.
    pub halves: [u16; 4],
    /// f16 bits of the block's minimum.
    pub minimum: u16,
    /// Byte scales of the parts, one for 32 or 16 weights.
    pub scales: [u8; 16],
    /// Byte minimums of the parts (for `Scales::Minimum16` both are stored in `scales`, the minimum in the high bits).
    pub minimums: [u8; 16],
    /// Grid indices of 8 or 4 weights each, for formats that are compressed by them.
    pub indices: [u16; 64],
}

impl Unpacked {
    /// A block of zeros.
    pub(crate) const fn new() -> Self {
        Self {
            quants: [0; 256],
            scale: 0,
            halves: [0; 4],
            minimum: 0,
            scales: [0; 16],
            minimums: [0; 16],
            indices: [0; 64],
        }
    }

    /// Scale and minimum of the 16 weights from `16 · part` on. All products here are exact in f32.
    #[inline(always)]
    pub(crate) fn scale(&self, packing: &Packing, part: usize) -> (f32, f32) {
        let d = half_to_float(self.scale) * packing.factor;
        let dmin = half_to_float(self.minimum);
        match packing.scales {
            Scales::Half => (d, 0.0),
            Scales::Half16 => (half_to_float(self.halves[part]), 0.0),
            Scales::Brain => (f32::from_bits(u32::from(self.scale) << 16), 0.0),
            Scales::HalfMinimum => (d, dmin),
            Scales::Signed32 => (d * f32::from(self.scales[part / 2] as i8), 0.0),
            Scales::Signed16 => (d * f32::from(self.scales[part] as i8), 0.0),
            Scales::Minimum32 => (d * f32::from(self.scales[part / 2]), dmin * f32::from(self.minimums[part / 2])),
            Scales::Minimum16 => (d * f32::from(self.scales[part] & 15), dmin * f32::from(self.scales[part] >> 4)),
        }
    }
}

/// Converts f16 bits to f32, exactly. Compiled for the target's baseline, so without the conversion instructions that many
/// processors have.
#[inline(always)]
pub(crate) fn half_to_float(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32_const()
}
