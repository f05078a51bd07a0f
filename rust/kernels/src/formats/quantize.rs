//! Rows of weights to blocks.

mod bits;
mod four_bits;
mod grid;
mod grid_blocks;
mod grid_search;
mod grid_tables;
mod improvement;
mod iq1;
mod iq2;
mod iq3;
mod k_ranges;
mod k_signed;
mod lanes;
pub(super) mod plain;
mod positive;
mod range;
mod round;
pub(super) mod rounded;
mod rows;
pub(super) mod search;
mod symmetric;
mod ternary;
mod weights;

pub(super) use four_bits::{iq4_nl, iq4_xs, q2_0, ranged, signed};
pub(super) use iq1::{iq1_m, iq1_s};
pub(super) use iq2::{iq2_s, iq2_xs, iq2_xxs};
pub(super) use iq3::{iq3_s, iq3_xxs};
pub(super) use k_ranges::{q2_k, q4_k, q5_k};
pub(super) use k_signed::{q3_k, q6_k};
pub(crate) use rows::{Quantize, Rows};
pub(super) use ternary::{tq1_0, tq2_0};
