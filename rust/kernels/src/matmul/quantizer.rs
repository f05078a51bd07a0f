//! Quantization of a call's activations, tile by tile, by several threads.

use super::activations::{Activations, Needs, QuantizeTile, TileParts, Variant, aligned};
use super::batches::Batch;
use super::dispatch::common;
use super::plan::Plan;
use super::spans::Span;
use crate::Error;
use crate::cpu::Isa;
use crate::math::dispatch;
use crate::memory::room;
use crate::shared::SharedSlice;
use crate::simd::Form;

/// The tiles of all batches and where their quantized activations go.
pub(super) struct Quantizer<'a> {
    isa: Isa,
    columns: usize,
    tiles: Vec<(&'a Plan<'a>, Span)>,
    quants: SharedSlice<'a, i32>,
    scales: SharedSlice<'a, f32>,
    variants: Vec<Variant<SharedSlice<'a, i32>, SharedSlice<'a, f32>>>,
}

impl<'a> Quantizer<'a> {
    /// Makes room for the activations of all batches in the forms that are wanted; without any, there is nothing to do.
    pub(super) fn new(
        isa: Isa,
        columns: usize,
        plans: &'a [Plan<'a>],
        activations: &'a mut Activations,
        wanted: impl Iterator<Item = Needs> + Clone,
    ) -> Result<Self, Error> {
        let mut tiles = Vec::new();
        if wanted.clone().next().is_some() {
            let tokens = plans.last().map_or(0, |plan| plan.first + plan.tokens);
            activations.resize(tokens, columns / 32, wanted)?;
            tiles = room(plans.iter().map(|plan| plan.spans.len()).sum(), "tiles of tokens")?;
            tiles.extend(plans.iter().flat_map(|plan| plan.spans.iter().map(move |span| (plan, *span))));
        }
        let variants = activations.variants.iter_mut().map(|variant| Variant {
            needs: variant.needs,
            starts: SharedSlice::new(&mut variant.starts),
            sums: SharedSlice::new(&mut variant.sums),
            pairs: SharedSlice::new(&mut variant.pairs),
            pair_scales: SharedSlice::new(&mut variant.pair_scales),
            words: SharedSlice::new(&mut variant.words),
        });
        Ok(Self {
            isa,
            columns,
            tiles,
            variants: variants.collect(),
            quants: SharedSlice::new(aligned(&mut activations.quants)),
            scales: SharedSlice::new(&mut activations.scales),
        })
    }

    /// Number of tiles.
    pub(super) fn tiles(&self) -> usize {
        self.tiles.len()
    }

    /// Quantizes a tile.
    ///
    /// # Safety
    /// No other thread uses this tile's activations meanwhile.
    pub(super) unsafe fn run(&self, tile: usize) {
        let (plan, Span { first, count, .. }) = self.tiles[tile];
        let Batch { input, stride, .. } = *plan.batch;
        let input = &input[first * stride..][..(count - 1) * stride + self.columns];
        let (first, blocks) = (plan.first + first, self.columns / 32);
        let range = |per_token: usize| (first * per_token, count * per_token);
        // SAFETY: tiles are contiguous runs of tokens in every buffer; the caller promises that this one is used by nobody else.
        unsafe {
            let variants = self.variants.iter().map(|variant| {
                let (first, len) = range(blocks * variant.needs.parts);
                let pairs = if variant.needs.pairs { (first / 2, len / 2) } else { (0, 0) };
                let pair_scales = if variant.needs.pairs { range(blocks / 8) } else { (0, 0) };
                let words = if variant.needs.form == Form::Words { range(blocks * 16) } else { (0, 0) };
                Variant {
                    needs: variant.needs,
                    starts: variant.starts.part(first, len),
                    sums: variant.sums.part(first, len),
                    pairs: variant.pairs.part(pairs.0, pairs.1),
                    pair_scales: variant.pair_scales.part(pair_scales.0, pair_scales.1),
                    words: variant.words.part(words.0, words.1),
                }
            });
            let mut variants: Vec<_> = variants.collect();
            let tile = TileParts {
                quants: self.quants.part(range(blocks * 8).0, range(blocks * 8).1),
                scales: self.scales.part(range(blocks).0, range(blocks).1),
                variants: &mut variants,
            };
            let common = common(self.isa);
            let order = if plan.direct { common.order } else { common.panel_order };
            dispatch(self.isa, QuantizeTile { input, stride, width: self.columns, columns: count, order, tile });
        }
    }

    /// The quants from an index on.
    pub(super) fn quants(&self, index: usize) -> *const i32 {
        self.quants.at(index)
    }

    /// The scales from an index on.
    pub(super) fn scales(&self, index: usize) -> *const f32 {
        self.scales.at(index)
    }

    /// The variant for `needs`.
    ///
    /// # Panics
    /// If `needs` was not wanted: any other variant would be wrong and of a different size.
    pub(super) fn variant(&self, needs: Needs) -> &Variant<SharedSlice<'a, i32>, SharedSlice<'a, f32>> {
        Variant::of(&self.variants, needs)
    }
}
