//! Compressed entries (DeepSeek-AI, "DeepSeek-V4", 2026): a layer makes one entry of several consecutive tokens, a sum weighted
//! by gates, which all later tokens see besides those of their window. Entries of two series overlap: an entry takes the first
//! series of the tokens before its own, and the second series of its own.
//!
//! The numbers of tokens whose entry is not complete are kept in pages like keys, so that sessions are forked, rewound and
//! saved as they are, and an entry is made of the same numbers however a text is split.

use llamacpu_kernels::activation::softmax;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;

use crate::error::{Error, sized, zeroed};
use crate::feed_forward::project;
use crate::kv::{Kept, Pages};
use crate::norms::normalize_in_place;
use crate::pass::{Pass, Segment};
use crate::rows::for_rows;
use crate::scratch::Scratch;
use crate::weights::{Compressor, SharedRows};

const PURPOSE: &str = "compressed entries";

/// Buffers of compressors; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct CompressorBuffers {
    /// what entries are made from
    parts: [Vec<f32>; 4],
    /// all of it, one token after the other
    joined: Vec<f32>,
}

/// Stores what entries are made from for all rows, and makes those that they complete.
pub(crate) fn run(
    pass: &Pass,
    weights: &SharedRows,
    input: &[f32],
    segments: &mut [Segment],
    (buffers, scratch): (&mut CompressorBuffers, &mut Scratch),
) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = pass;
    let Some(compressor) = &weights.compressor else { return Ok(()) };
    let rows = pass.places.len();
    let widths = config.compressed_widths(sizes);
    let width = widths.iter().sum();
    let chooser = weights.chooser.as_ref().map(|chooser| &chooser.compressor);
    let mut maps = vec![&compressor.value, &compressor.gate];
    maps.extend(chooser.iter().flat_map(|own| [&own.value, &own.gate]));
    let mut projections = Vec::with_capacity(4);
    for ((map, part), own) in maps.into_iter().zip(&mut buffers.parts).zip(widths) {
        projections.push((map, sized(part, rows.checked_mul(own), PURPOSE)?));
    }
    project(context, input, rows, scratch, &mut projections)?;
    drop(projections);
    let joined = sized(&mut buffers.joined, rows.checked_mul(width), PURPOSE)?;
    let parts = &buffers.parts;
    for_rows(context, joined, width, &|row, joined| {
        let mut rest = joined;
        for (part, own) in parts.iter().zip(widths) {
            let (to, others) = rest.split_at_mut(own);
            to.copy_from_slice(&part[row * own..(row + 1) * own]);
            rest = others;
        }
        Ok(())
    })?;
    let mut row = 0;
    for segment in segments {
        let tokens = segment.tokens.len();
        let own = &joined[row * width..(row + tokens) * width];
        segment.pages.write(context, Kept::Source(pass.layer), segment.position, own, &[])?;
        row += tokens;
        let place = Part { start: 0, width, size: sizes.key_size };
        add(pass, compressor, place, Kept::Entry(pass.layer), segment)?;
        if let Some(chooser) = chooser {
            let place = Part { start: widths[0] + widths[1], width, size: config.indexer_size };
            add(pass, chooser, place, Kept::Indexer(pass.layer), segment)?;
        }
    }
    Ok(())
}

/// Where the numbers of an entry of `size` elements are among those of a token.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    width: usize,
    size: usize,
}

/// Makes the entries that the tokens of a segment complete.
fn add(pass: &Pass, weights: &Compressor, part: Part, kept: Kept, segment: &mut Segment) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = pass;
    let each = sizes.compression;
    let (first, end) = (segment.position / each, (segment.position + segment.tokens.len()) / each);
    if first == end {
        return Ok(());
    }
    let mut entries = zeroed((end - first).checked_mul(part.size), PURPOSE)?;
    let pages = &*segment.pages;
    let source = Source { pages, kept: Kept::Source(pass.layer), part, each, overlap: sizes.indexer };
    for_rows(context, &mut entries, part.size, &|index, entry| {
        source.sum(context, weights, first + index, entry).map_err(|error| match error {
            Error::Kernel(error) => error,
            error => llamacpu_kernels::Error::Shape(error.to_string()),
        })
    })?;
    normalize_in_place(context, config, Some(&weights.norm), &mut entries)?;
    let start = part.size - config.rope.size;
    let positions = |index: usize| (first + index) * each;
    pass.rotations.turn_at(context, sizes.rotation, &positions, (&mut entries, part.size), start)?;
    segment.pages.write(context, kept, first, &entries, &[])
}

/// What entries are made from.
struct Source<'a> {
    pages: &'a Pages,
    kept: Kept,
    part: Part,
    /// Tokens per entry.
    each: usize,
    overlap: bool,
}

impl Source<'_> {
    /// Sets `entry` to the sum of the values of its tokens, weighted by the softmax of their gates.
    fn sum(&self, context: &Context, weights: &Compressor, index: usize, entry: &mut [f32]) -> Result<(), Error> {
        let Part { start, width, size } = self.part;
        let series = if self.overlap { 2 * size } else { size };
        let own = index * self.each;
        let first = if self.overlap { own.saturating_sub(self.each) } else { own };
        let count = own + self.each - first;
        let mut rows = zeroed(count.checked_mul(width), PURPOSE)?;
        self.pages.read(self.kept, first, &mut rows)?;
        // elements × tokens each
        let mut gates = zeroed(count.checked_mul(size), PURPOSE)?;
        let mut values = zeroed(count.checked_mul(size), PURPOSE)?;
        for (token, row) in rows.chunks_exact(width).enumerate() {
            let position = first + token;
            let column = if self.overlap && position >= own { size } else { 0 };
            let bias = &weights.bias[position % self.each * series + column..][..size];
            let row = &row[start..start + 2 * series];
            for element in 0..size {
                values[element * count + token] = row[column + element];
                gates[element * count + token] = row[series + column + element] + bias[element];
            }
        }
        weighted_sums(context.isa, count, (&values, &mut gates), entry);
        Ok(())
    }
}

/// For each element, the sum of its `count` values, in order, weighted by the softmax of its gates.
fn weighted_sums(isa: Isa, count: usize, (values, gates): (&[f32], &mut [f32]), entry: &mut [f32]) {
    for ((element, gates), values) in
        entry.iter_mut().zip(gates.chunks_exact_mut(count)).zip(values.chunks_exact(count))
    {
        softmax(isa, gates);
        *element = values.iter().zip(&*gates).map(|(value, gate)| value * gate).sum();
    }
}
