//! The grids of the IQ formats: an index chooses 4 or 8 small magnitudes at once.

/// The grids, written by `tools/formats/make_grids.py`: 16-bit entries of 8 values of 2 bits or 4 values of 4 bits.
static GRIDS: &[u8; 2 * 4608] = include_bytes!("grids.bin");

/// Index of the first entry of the grid of this format.
pub(super) const IQ2_XXS: usize = 0;
/// See `IQ2_XXS`.
pub(super) const IQ2_XS: usize = 256;
/// See `IQ2_XXS`.
pub(super) const IQ2_S: usize = 768;
/// See `IQ2_XXS`.
pub(super) const IQ3_XXS: usize = 1792;
/// See `IQ2_XXS`.
pub(super) const IQ3_S: usize = 2048;
/// See `IQ2_XXS`.
pub(super) const IQ1: usize = 2560;

/// An entry of a grid.
#[inline(always)]
pub(super) const fn entry(grid: usize, index: usize) -> u16 {
    let at = 2 * (grid + index);
    u16::from_le_bytes([GRIDS[at], GRIDS[at + 1]])
}

/// A grid of the compressed layout: what an index means for each of four columns. For indices of 4 columns that is a magnitude;
/// for indices of 8 it is two bit pairs, that of the column and that of the column 4 further on, the latter in bits 4 and 5.
#[derive(Debug)]
pub(super) struct Grid {
    /// One column in each byte.
    pub(super) words: &'static [u32],
    /// The first two columns in a byte, the second one in the bits that the first leaves free: from bit 4 on, or from bit 2 for
    /// indices of 8 columns.
    #[cfg(target_arch = "x86_64")]
    pub(super) low: &'static [u8],
    /// The last two columns.
    #[cfg(target_arch = "x86_64")]
    pub(super) high: &'static [u8],
}

impl Grid {
    /// Whether indices have nine bits.
    pub(super) const fn ninth(&self) -> bool {
        self.words.len() > 256
    }
}

/// The words of a grid; `octets` says that its entries are 8 bit pairs.
const fn words<const N: usize>(grid: usize, octets: bool) -> [u32; N] {
    let mut words = [0; N];
    let mut index = 0;
    while index < N {
        let bits = entry(grid, index) as u32;
        let mut column = 0;
        while column < 4 {
            let value = if octets {
                bits >> (2 * column) & 3 | (bits >> (2 * column + 8) & 3) << 4
            } else {
                bits >> (4 * column) & 15
            };
            words[index] |= value << (8 * column);
            column += 1;
        }
        index += 1;
    }
    words
}

/// Two columns of every word, from bit `shift` on; the second one is moved to bit `place`.
#[cfg(target_arch = "x86_64")]
const fn bytes<const N: usize>(words: &[u32; N], shift: u32, place: u32) -> [u8; N] {
    let mut bytes = [0; N];
    let mut index = 0;
    while index < N {
        let two = words[index] >> shift;
        bytes[index] = (two & 0x3f | (two >> 8 & 0x3f) << place) as u8;
        index += 1;
    }
    bytes
}

macro_rules! grid {
    ($name:ident, $words:ident, $first:ident, $entries:literal, octets $octets:literal) => {
        static $words: [u32; $entries] = words($first, $octets);
        /// The grid of the format of this name.
        pub(super) static $name: Grid = Grid {
            words: &$words,
            #[cfg(target_arch = "x86_64")]
            low: &const { bytes::<$entries>(&words($first, $octets), 0, if $octets { 2 } else { 4 }) },
            #[cfg(target_arch = "x86_64")]
            high: &const { bytes::<$entries>(&words($first, $octets), 16, if $octets { 2 } else { 4 }) },
        };
    };
}

grid!(GRID_IQ2_XXS, WORDS_IQ2_XXS, IQ2_XXS, 256, octets true);
grid!(GRID_IQ2_XS, WORDS_IQ2_XS, IQ2_XS, 512, octets true);
grid!(GRID_IQ3_XXS, WORDS_IQ3_XXS, IQ3_XXS, 256, octets false);
