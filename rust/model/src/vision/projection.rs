//! From the states of patches to the rows that a language model reads: squares of patches are merged, and the result goes
//! through the matrices of the projector.

use llamacpu_kernels::activation::activate;
use llamacpu_kernels::context::Context;

use super::attention::room;
use super::choices::MergeOrder;
use super::config::VisionConfig;
use super::norms::norm;
use super::places::Places;
use super::weights::{Deepstack, VisionWeights};
use crate::error::Error;
use crate::feed_forward::project;
use crate::rows::{for_rows, multiply};
use crate::scratch::Scratch;

/// Rows of the result for a tile of `grid` patches.
pub(super) fn output_rows(config: &VisionConfig, grid: (usize, usize)) -> usize {
    if config.queries > 0 {
        return config.queries;
    }
    grid.0 / config.merge * (grid.1 / config.merge) + usize::from(config.class_output)
}

/// The rows of the result, tile after tile and row by row: those of the first `tiles` tiles of the sequence that begins at
/// row `first` of `stream`; `kept` holds the inputs of some layers.
pub(super) fn rows(
    context: &Context,
    (config, weights): (&VisionConfig, &VisionWeights),
    places: &Places,
    (stream, kept, tiles): (&[f32], &[Vec<f32>], usize),
    scratch: &mut Scratch,
) -> Result<Vec<f32>, Error> {
    let mut input = match &weights.resampler {
        Some(resampler) => resampler.run(context, config, places, stream, scratch)?,
        None => merged(context, config, places, (stream, kept, tiles))?,
    };
    let count = tiles * output_rows(config, places.grid);
    if let Some(weights) = &weights.projector_norm {
        norm(weights).apply_in_place(context, &mut input, weights.weight.len())?;
    }
    for (index, linear) in weights.merger.iter().chain(&weights.projector).enumerate() {
        if index > usize::from(weights.merger.is_some()) {
            activate(context, config.projector_activation.kernel(), &mut input)?;
        }
        let mut output = room(count, linear.rows())?;
        project(context, &input, count, scratch, &mut [(linear, &mut output)])?;
        input = output;
    }
    Ok(input)
}

/// What the states behind a layer in the middle add to the rows of the result, in their order.
pub(super) fn deep_rows(
    context: &Context,
    (config, weights): (&VisionConfig, &Deepstack),
    places: &Places,
    (stream, tiles): (&[f32], usize),
    scratch: &mut Scratch,
) -> Result<Vec<f32>, Error> {
    let mut input = merged(context, config, places, (stream, &[], tiles))?;
    let count = tiles * output_rows(config, places.grid);
    norm(&weights.norm).apply_in_place(context, &mut input, config.merged_length())?;
    let mut inner = room(count, weights.first.rows())?;
    project(context, &input, count, scratch, &mut [(&weights.first, &mut inner)])?;
    activate(context, config.projector_activation.kernel(), &mut inner)?;
    let mut output = room(count, config.output_length)?;
    project(context, &inner, count, scratch, &mut [(&weights.second, &mut output)])?;
    Ok(output)
}

/// The patches of each square as one row.
fn merged(
    context: &Context,
    config: &VisionConfig,
    places: &Places,
    (stream, kept, tiles): (&[f32], &[Vec<f32>], usize),
) -> Result<Vec<f32>, Error> {
    let (width, merged) = (config.embedding_length, config.merged_length());
    let in_tile = output_rows(config, places.grid);
    let count = tiles * in_tile;
    let mut input = room(count, merged)?;
    let columns = places.grid.1 / config.merge;
    let class = usize::from(config.class_output);
    for_rows(context, &mut input, merged, &|index, output| {
        let (sequence, tile) = (index / in_tile / places.tiles(), index / in_tile % places.tiles());
        let number = index % in_tile;
        let state = |place: usize| {
            let start = (sequence * places.len() + place) * width;
            start..start + width
        };
        if number < class {
            side_by_side(stream, kept, state(places.class(tile)), output);
            return Ok(());
        }
        let (row, column) = ((number - class) / columns * config.merge, (number - class) % columns * config.merge);
        let square = config.merge * config.merge;
        for part in 0..square {
            let place = places.patch(tile, row + part / config.merge, column + part % config.merge);
            let own = state(place);
            match config.merge_order {
                MergeOrder::Patches => {
                    let size = merged / square;
                    side_by_side(stream, kept, own, &mut output[part * size..][..size]);
                }
                MergeOrder::Channels => {
                    let places = output.iter_mut().skip(part).step_by(square);
                    places.zip(&stream[own]).for_each(|(output, value)| *output = *value);
                }
                MergeOrder::Average => {
                    output.iter_mut().zip(&stream[own]).for_each(|(output, value)| *output += *value);
                }
            }
        }
        if config.merge_order == MergeOrder::Average {
            multiply(output, 1.0 / square as f32);
        }
        Ok(())
    })?;
    Ok(input)
}

/// The final state of a row, then for each of its elements the inputs of the kept layers.
fn side_by_side(stream: &[f32], kept: &[Vec<f32>], state: std::ops::Range<usize>, output: &mut [f32]) {
    let width = state.len();
    output[..width].copy_from_slice(&stream[state.clone()]);
    for (layer, inputs) in kept.iter().enumerate() {
        let places = output[width..].iter_mut().skip(layer).step_by(kept.len());
        places.zip(&inputs[state.clone()]).for_each(|(output, value)| *output = *value);
    }
}
