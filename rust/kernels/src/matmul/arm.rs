//! Products specific to Arm.
//!
//! NEON has 32 registers of 128 bits, each filled by four rows, and can multiply a vector by an element of another vector.
//! So a tile takes few vectors of rows and up to 4 columns and needs no broadcast (`dot`), or it multiplies pairs of rows by
//! pairs of columns (`matrix`), from a panel that stores rows in pairs.
//!
//! No Arm processor was available: tile sizes come from counting instructions (rustc 1.96, `objdump -d`), not from timing.
//! For 32 columns, without calls and with at most 5 vectors spilled:
//!
//! | tile | multiplications | instructions | of which |
//! |---|---|---|---|
//! | `neon` panel, 8 rows × 4 tokens, float scales | 1024 | 123 | 64 `sdot`, 24 float, 16 loads |
//! | the same, Q4_K, Q5_K / Q6_K, Q3_K / Q2_K | 1024 | 129 / 160 / 154 | 64 `sdot`, 8 or 16 to scale, 16 float |
//! | `i8mm` panel, 8 rows × 4 tokens, float scales | 1024 | 92 | 32 `usmmla`, 24 float, 13 loads |
//! | the same, Q4_K, Q5_K / Q6_K, Q3_K / Q2_K | 1024 | 102 / 139 / 146 | 32 `usmmla`, 8 or 16 to scale, 16 float |
//! | packed Q4_0, 16 rows × 1 token | 512 | 108 | 32 dots, 32 to unpack, 4 prefetches |
//! | packed Q8_0, 16 rows × 1 token | 512 | 124 / 92 | 32 dots, with `neon` 32 for the sign, 8 prefetches |
//!
//! An `i8mm` panel of 6 tokens needs 129 instructions for 1536 multiplications with float scales, but spills registers for
//! formats with minimums or two scales.

mod dot;
mod matrix;

pub(super) use dot::{ElementProduct, Offset, RowPairs};
pub(super) use matrix::{MatrixPeak, PairProduct};
