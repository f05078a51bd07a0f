//! What a format's function for writing is given.

use crate::cpu::Isa;

/// Whole rows.
pub(crate) struct Rows<'a> {
    /// The rows, one after the other.
    pub(crate) values: &'a [f32],
    /// Weights in a row.
    pub(crate) columns: usize,
    /// How much an error in each column counts, with a mean of 1.
    pub(crate) importance: Option<&'a [f32]>,
}

/// A function that writes the blocks of whole rows.
pub(crate) type Quantize = fn(Isa, &Rows<'_>, &mut [u8]);
