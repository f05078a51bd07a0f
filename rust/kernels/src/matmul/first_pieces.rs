//! What comes before the products with the weights in the same parallel region, where these have low-rank changes: the
//! quantization of the activations, and the small products with the first matrices of the changes.
//!
//! Every thread takes pieces of both until none is left, so that the small products run while one thread quantizes the
//! only token, which nobody else could do. The weights then wait for the quantized activations, and what is added to
//! their results, after the first piece, for the small products: by then they are done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::additions::LowBatch;
use super::batches::Product;
use super::floats::FLOAT_ROWS;
use super::floats::pieces::FloatPlan;
use super::kernels::Common;
use super::quantizer::Quantizer;
use crate::Error;
use crate::cpu::Isa;
use crate::memory::room;
use crate::threads::wait_briefly;

/// The tiles of the quantizer, then the parts of the small products.
pub(super) struct FirstPieces<'a> {
    quantizer: &'a Quantizer<'a>,
    works: Vec<LowWork<'a>>,
    part_rows: usize,
    pieces: usize,
    next: AtomicUsize,
    quantized: AtomicUsize,
    done: AtomicUsize,
}

struct LowWork<'a> {
    plan: &'a FloatPlan<'a>,
    product: &'a Product<'a>,
    scale: f32,
    first_piece: usize,
}

/// Counts a piece as done, also if it panics: others wait for it.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl<'a> FirstPieces<'a> {
    /// Divides the products of batches, each with its plan.
    pub(super) fn new(
        batches: &'a [LowBatch<'a>],
        plans: &'a [FloatPlan<'a>],
        quantizer: &'a Quantizer<'a>,
        threads: usize,
    ) -> Result<Self, Error> {
        // One token has so few parts that they are made smaller where threads would have none.
        let products = batches.iter().flat_map(|low| &low.batch.products);
        let rows = products.map(|product| product.weights.rows()).sum::<usize>();
        let single = batches.iter().all(|low| low.batch.tokens == 1);
        let enough = |part_rows: &usize| !single || rows / part_rows >= threads;
        let part_rows = [FLOAT_ROWS, FLOAT_ROWS / 2].into_iter().find(enough).unwrap_or(FLOAT_ROWS / 4);
        let mut works = room(batches.iter().map(|low| low.scales.len()).sum(), "products")?;
        let mut pieces = quantizer.tiles();
        for (LowBatch { batch, scales }, plan) in batches.iter().zip(plans) {
            for (product, &scale) in batch.products.iter().zip(scales) {
                works.push(LowWork { plan, product, scale, first_piece: pieces });
                pieces += plan.parts(product.weights, part_rows);
            }
        }
        let [next, quantized, done] = std::array::from_fn(|_| AtomicUsize::new(0));
        Ok(Self { quantizer, works, part_rows, pieces, next, quantized, done })
    }

    /// Computes pieces until none is left to take.
    pub(super) fn help(&self, isa: Isa, arranged: &[f32]) -> Result<(), Error> {
        while self.next.load(Ordering::Relaxed) < self.pieces {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.pieces {
                break;
            }
            if piece < self.quantizer.tiles() {
                let _done = Done(&self.quantized);
                // SAFETY: this thread alone has taken the tile.
                unsafe { self.quantizer.run(piece) };
                continue;
            }
            let _done = Done(&self.done);
            let work = &self.works[self.works.partition_point(|work| work.first_piece <= piece) - 1];
            let part = (piece - work.first_piece, self.part_rows);
            let (rows, tokens) = work.plan.run_part(isa, arranged, work.product, part)?;
            for token in tokens {
                // SAFETY: these results belong to this piece, which this thread has taken.
                let results = unsafe { work.product.output.part(token, rows.start, rows.len()) };
                for value in results {
                    *value *= work.scale;
                }
            }
        }
        Ok(())
    }

    /// Waits until the activations are quantized. Each tile is, or is being quantized by another thread.
    pub(super) fn wait_for_activations(&self) {
        wait_for(&self.quantized, self.quantizer.tiles());
    }

    /// Waits until the small products are done. Each piece is, or is being computed by another thread.
    pub(super) fn wait_for_products(&self) {
        wait_for(&self.done, self.pieces - self.quantizer.tiles());
    }
}

fn wait_for(counter: &AtomicUsize, count: usize) {
    while !wait_briefly(|| counter.load(Ordering::Acquire) >= count) {
        // The thread that has the last piece waits for a processor itself.
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// The plans of batches of small products; their sorted activations begin at `arranged`.
pub(super) fn plans<'a>(
    common: &'static Common,
    batches: &'a [LowBatch<'a>],
    columns: usize,
    mut arranged: usize,
) -> Result<Vec<FloatPlan<'a>>, Error> {
    let mut plans = room(batches.len(), "products")?;
    for low in batches {
        let plan = FloatPlan::new(common, &low.batch, columns, arranged)?;
        arranged += plan.arranged_len();
        plans.push(plan);
    }
    Ok(plans)
}
