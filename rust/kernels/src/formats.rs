//! Block formats of GGUF tensors, and the one table that everything else iterates over.
//!
//! A format is one row of [`FormatInfo`] and one implementation of [`Blocks`] in the file of its family. Products do not
//! know formats: they only know the [`Packing`] that a format names, the layout of its weights in memory for the kernels.

pub(crate) mod blocks;
pub(crate) mod compression;
pub(crate) mod decompress;
#[cfg(target_arch = "x86_64")]
mod decompress_avx512;
mod decompress_scales;
mod floats;
mod four_bit_tables;
mod grids;
pub(crate) mod i_quants;
mod k_quants;
pub(crate) mod layout;
mod low_bits;
pub(crate) mod nvfp4;
pub(crate) mod pack;
mod quantize;
mod simple;
pub(crate) mod ternary;

pub(crate) use compression::Compression;
pub(crate) use decompress::Decompress;
pub(crate) use layout::{Bits, GROUP_ROWS, Packing, Scales, half_to_float};
pub(crate) use pack::Layout;
pub(crate) use quantize::Rows;

use crate::Error;
use crate::cpu::Isa;
use blocks::{Blocks, dequantize_blocks};
use quantize::Quantize;

/// A tensor type of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names that every GGUF tool uses")]
#[expect(missing_docs, reason = "the name is all there is to say; sizes and meaning stand in the table")]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    IQ3_S,
    IQ3_XXS,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ1_S,
    IQ1_M,
    MXFP4,
    TQ1_0,
    TQ2_0,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// One row of the table: the name of a format and how its blocks are read and written.
#[derive(Debug)]
pub struct FormatInfo {
    /// The format.
    pub format: Format,
    /// Its name, as GGUF tools write it.
    pub name: &'static str,
    /// Its type number in a GGUF tensor table.
    pub ggml_id: u32,
    /// Weights in a block.
    pub block_elements: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Dequantizes whole blocks; the slices must match in size (see [`Format::dequantize`] for a checked call).
    pub(crate) dequantize: fn(&[u8], &mut [f32]),
    /// The same, compiled for an instruction set.
    pub dequantize_on: fn(Isa, &[u8], &mut [f32]),
    /// Quantizes whole rows; see [`Conversion`](crate::conversion::Conversion) for a checked call.
    pub(crate) quantize: Quantize,
    /// How quantized blocks are laid out for the kernels; none for plain weights, which stay as they are in the file.
    pub packing: Option<&'static Packing>,
    /// How that layout is compressed in memory, if it is.
    pub compression: Option<&'static Compression>,
    /// Restores the layout, if it is compressed.
    pub decompress: Decompress,
    /// Packs 16 rows for the kernels; does nothing for plain weights.
    pub pack: fn(Isa, &[u8], usize, Layout, &mut [u8]),
}

/// The row of a quantized format, from its `Blocks`.
const fn row<B: Blocks>(format: Format, name: &'static str, ggml_id: u32, quantize: Quantize) -> FormatInfo {
    FormatInfo {
        format,
        name,
        ggml_id,
        block_elements: B::ELEMENTS,
        block_bytes: B::BYTES,
        dequantize: |bytes, out| dequantize_blocks::<B>(Isa::SCALAR, bytes, out),
        dequantize_on: dequantize_blocks::<B>,
        quantize,
        packing: Some(&B::PACKING),
        compression: const { &B::FOLDING }.as_ref(),
        decompress: decompress::decompress::<B>,
        pack: pack::pack::<B>,
    }
}

/// The row of a format of plain floats.
const fn plain(
    format: Format,
    name: &'static str,
    ggml_id: u32,
    bytes: usize,
    (dequantize, dequantize_on): floats::Conversions,
    quantize: Quantize,
) -> FormatInfo {
    FormatInfo {
        format,
        name,
        ggml_id,
        block_elements: 1,
        block_bytes: bytes,
        dequantize,
        dequantize_on,
        quantize,
        packing: None,
        compression: None,
        decompress: |_, _, _, _, _| {},
        pack: |_, _, _, _, _| {},
    }
}

/// Every format, in the order of [`Format`].
// A constant would be copied into the crates that use it, with every function that it names.
static TABLE: [FormatInfo; 28] = [
    plain(Format::F32, "F32", 0, 4, floats::SINGLES, quantize::plain::f32),
    plain(Format::F16, "F16", 1, 2, floats::HALVES, quantize::plain::f16),
    plain(Format::BF16, "BF16", 30, 2, floats::BRAINS, quantize::plain::bf16),
    row::<simple::Q4_0>(Format::Q4_0, "Q4_0", 2, |isa, rows, out| match rows.importance {
        None => quantize::rounded::symmetric::<18>(isa, rows, 8.0, out),
        Some(_) => quantize::signed::<18>(isa, rows, 8.0, out),
    }),
    row::<simple::Q4_1>(Format::Q4_1, "Q4_1", 3, |isa, rows, out| match rows.importance {
        None => quantize::rounded::range::<20>(isa, rows, 15.0, out),
        Some(_) => quantize::ranged::<20>(isa, rows, 15.0, out),
    }),
    row::<simple::Q5_0>(Format::Q5_0, "Q5_0", 6, |isa, rows, out| match rows.importance {
        None => quantize::rounded::symmetric::<22>(isa, rows, 16.0, out),
        Some(_) => quantize::signed::<22>(isa, rows, 16.0, out),
    }),
    row::<simple::Q5_1>(Format::Q5_1, "Q5_1", 7, |isa, rows, out| match rows.importance {
        None => quantize::rounded::range::<24>(isa, rows, 31.0, out),
        Some(_) => quantize::ranged::<24>(isa, rows, 31.0, out),
    }),
    row::<simple::Q8_0>(Format::Q8_0, "Q8_0", 8, quantize::rounded::q8_0),
    row::<k_quants::Q2K>(Format::Q2_K, "Q2_K", 10, quantize::q2_k),
    row::<k_quants::Q3K>(Format::Q3_K, "Q3_K", 11, quantize::q3_k),
    row::<k_quants::Q4K>(Format::Q4_K, "Q4_K", 12, quantize::q4_k),
    row::<k_quants::Q5K>(Format::Q5_K, "Q5_K", 13, quantize::q5_k),
    row::<k_quants::Q6K>(Format::Q6_K, "Q6_K", 14, quantize::q6_k),
    row::<four_bit_tables::Iq4Nl>(Format::IQ4_NL, "IQ4_NL", 20, quantize::iq4_nl),
    row::<four_bit_tables::Iq4Xs>(Format::IQ4_XS, "IQ4_XS", 23, quantize::iq4_xs),
    row::<i_quants::Iq3S>(Format::IQ3_S, "IQ3_S", 21, quantize::iq3_s),
    row::<i_quants::Iq3Xxs>(Format::IQ3_XXS, "IQ3_XXS", 18, quantize::iq3_xxs),
    row::<i_quants::Iq2S>(Format::IQ2_S, "IQ2_S", 22, quantize::iq2_s),
    row::<i_quants::Iq2Xs>(Format::IQ2_XS, "IQ2_XS", 17, quantize::iq2_xs),
    row::<i_quants::Iq2Xxs>(Format::IQ2_XXS, "IQ2_XXS", 16, quantize::iq2_xxs),
    row::<i_quants::Iq1S>(Format::IQ1_S, "IQ1_S", 19, quantize::iq1_s),
    row::<i_quants::Iq1M>(Format::IQ1_M, "IQ1_M", 29, quantize::iq1_m),
    row::<four_bit_tables::Mxfp4>(Format::MXFP4, "MXFP4", 39, quantize::plain::mxfp4),
    row::<ternary::Tq1_0>(Format::TQ1_0, "TQ1_0", 34, quantize::tq1_0),
    row::<ternary::Tq2_0>(Format::TQ2_0, "TQ2_0", 35, quantize::tq2_0),
    row::<nvfp4::Nvfp4>(Format::NVFP4, "NVFP4", 40, quantize::plain::nvfp4),
    row::<low_bits::Q1_0>(Format::Q1_0, "Q1_0", 41, quantize::plain::q1_0),
    row::<low_bits::Q2_0>(Format::Q2_0, "Q2_0", 42, quantize::q2_0),
];

/// Every format, in the order of the table.
static ALL: [Format; TABLE.len()] = {
    let mut all = [Format::F32; TABLE.len()];
    let mut row = 0;
    while row < TABLE.len() {
        all[row] = TABLE[row].format;
        row += 1;
    }
    all
};

impl Format {
    /// The format with the given type number in GGUF tensor tables.
    pub fn from_ggml(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.ggml_id == id).map(|row| row.format)
    }

    /// The format with the given name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.format)
    }

    /// The row of the table.
    pub fn info(self) -> &'static FormatInfo {
        &TABLE[self as usize]
    }

    /// Every format.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// Size in bytes of a row of `elements` weights; none if that is not a whole number of blocks or overflows.
    pub fn row_bytes(self, elements: usize) -> Option<usize> {
        let row = self.info();
        if !elements.is_multiple_of(row.block_elements) {
            return None;
        }
        (elements / row.block_elements).checked_mul(row.block_bytes)
    }

    /// Dequantizes whole blocks.
    ///
    /// # Errors
    /// `Error::Shape` unless `bytes` are exactly the blocks of `out.len()` weights.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        self.check(bytes.len(), out.len())?;
        (self.info().dequantize)(bytes, out);
        Ok(())
    }

    /// Quantizes one row without an importance matrix, by portable code: with plain rounding for the simple formats (the same
    /// bytes as the `gguf` Python package), with a search for good scales for the others.
    ///
    /// # Errors
    /// `Error::Shape` unless `bytes` are exactly the blocks of `values.len()` weights.
    pub fn quantize(self, values: &[f32], bytes: &mut [u8]) -> Result<(), Error> {
        self.check(bytes.len(), values.len())?;
        (self.info().quantize)(Isa::SCALAR, &Rows { values, columns: values.len(), importance: None }, bytes);
        Ok(())
    }

    fn check(self, bytes: usize, elements: usize) -> Result<(), Error> {
        if self.row_bytes(elements) == Some(bytes) {
            return Ok(());
        }
        let row = self.info();
        Err(Error::Shape(format!(
            "{bytes} bytes for {elements} weights of {}; expected whole blocks of {} weights in {} bytes",
            row.name, row.block_elements, row.block_bytes
        )))
    }
}
