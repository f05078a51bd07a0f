//! Partition of each batch's tokens into tiles, for a call with several products.

use super::batches::Batch;
use super::floats::pieces::FloatPlan;
use super::kernels::Common;
use super::spans::{Span, direct_spans, spans};
use crate::Error;

/// Partition of the tokens of a batch.
pub(super) struct Plan<'a> {
    pub(super) batch: &'a Batch<'a>,
    pub(super) tokens: usize,
    /// Number of tokens in the batches before this one.
    pub(super) first: usize,
    /// Whether quantized weights are multiplied straight from the packed layout.
    pub(super) direct: bool,
    /// Tiles for quantized weights.
    pub(super) spans: Vec<Span>,
    /// The plan for plain weights.
    pub(super) plain: FloatPlan<'a>,
}

impl<'a> Plan<'a> {
    /// The plan of a batch that follows `first` tokens and `arranged` floats of sorted activations.
    pub(super) fn new(
        common: &'static Common,
        batch: &'a Batch<'a>,
        columns: usize,
        first: usize,
        arranged: usize,
    ) -> Result<Self, Error> {
        let tokens = batch.tokens;
        let direct = tokens <= common.direct_tokens;
        Ok(Self {
            batch,
            tokens,
            first,
            direct,
            spans: if direct {
                direct_spans(tokens, common.direct_widths)?
            } else {
                spans(tokens, common.panel_widths)?
            },
            plain: FloatPlan::new(common, batch, columns, arranged)?,
        })
    }
}
