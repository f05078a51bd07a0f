//! The encoding of one picture, stage by stage, so that the caller can report progress and stop between two stages.

use std::sync::Arc;

use llamacpu_kernels::memory;

use super::PictureEncoder;
use super::attention::room;
use super::choices::MergeOrder;
use super::config::{CHANNELS, VisionConfig};
use super::layer::{LayerBuffers, run};
use super::norms::norm;
use super::pixels::Pixels;
use super::places::{Places, Row};
use super::positions::{Turns, add_tiles, embed};
use super::projection::{deep_rows, output_rows, rows};
use crate::error::Error;
use crate::model::Interrupted;

/// Rows that go through the layers together if tiles are separate: enough for fast products, few enough for small buffers.
const GROUP_ROWS: usize = 1024;

/// A picture on its way through an encoder.
pub struct Encoding {
    encoder: Arc<PictureEncoder>,
    pixels: Pixels,
    places: Places,
    turns: Option<Turns>,
    /// Tiles, or groups of joint tiles, that are encoded together.
    group: usize,
    buffers: LayerBuffers,
    stream: Vec<f32>,
    kept: Vec<Vec<f32>>,
    /// What the layers of `deepstack` gave for the group.
    deep: Vec<Vec<f32>>,
    /// The next group and the next stage of it.
    done: (usize, usize),
    output: Vec<f32>,
}

impl Encoding {
    /// Checks a picture and prepares its encoding.
    ///
    /// # Errors
    /// `Error::Argument` for pixels that do not fit the encoder; `Error::Memory`.
    pub fn new(encoder: Arc<PictureEncoder>, pixels: Pixels) -> Result<Self, Error> {
        let config = encoder.config();
        check(config, &pixels)?;
        let grid = (pixels.height / config.patch_size, pixels.width / config.patch_size);
        let places = Places::new(config, grid, pixels.tiles)?;
        let sequences = if config.joint_tiles > 0 { 1 } else { pixels.tiles };
        let group = (GROUP_ROWS / places.len()).clamp(1, sequences);
        let width = config.embedding_length;
        let output = pixels.tiles.checked_mul(output_rows(config, grid));
        let output = memory::room(
            output.and_then(|rows| rows.checked_mul(config.row_length())).unwrap_or(usize::MAX),
            "a picture",
        )?;
        Ok(Self {
            turns: Turns::new(config, &places)?,
            buffers: LayerBuffers::new(config, &encoder.weights, &places, group)?,
            stream: room(group * places.len(), width)?,
            kept: Vec::with_capacity(config.kept_inputs.len()),
            deep: Vec::with_capacity(config.deepstack.len()),
            done: (0, 0),
            group,
            places,
            output,
            pixels,
            encoder,
        })
    }

    /// Number of stages that are done, and of all stages.
    pub fn stages(&self) -> (usize, usize) {
        let stages = self.stages_of_group();
        (self.done.0 * stages + self.done.1, self.groups() * stages)
    }

    /// Runs the next stage, if there is one. After an error, the stage can be run again only if it was not begun: start anew.
    ///
    /// # Errors
    /// `Error::Kernel` if the work was stopped, a file has changed or memory ran out; `Error::Memory`.
    pub fn advance(&mut self, interrupted: Option<Interrupted>) -> Result<(), Error> {
        if self.done.0 >= self.groups() {
            return Ok(());
        }
        let encoder = Arc::clone(&self.encoder);
        encoder.watch_files();
        let result = self.stage(&encoder, interrupted);
        encoder.check_files().and(result)?;
        self.done.1 += 1;
        if self.done.1 == self.stages_of_group() {
            self.done = (self.done.0 + 1, 0);
        }
        Ok(())
    }

    /// The rows of the result once all stages are done, tile after tile: rows × `row_length`.
    pub fn into_rows(self) -> Vec<f32> {
        self.output
    }

    /// Joint tiles are one sequence.
    fn sequences(&self) -> usize {
        if self.encoder.config().joint_tiles > 0 { 1 } else { self.pixels.tiles }
    }

    fn groups(&self) -> usize {
        self.sequences().div_ceil(self.group)
    }

    fn stages_of_group(&self) -> usize {
        let config = self.encoder.config();
        config.layers + config.global_layers
    }

    /// Runs a layer of a group, with what comes before the first and after the last.
    fn stage(&mut self, encoder: &PictureEncoder, interrupted: Option<Interrupted>) -> Result<(), Error> {
        let context = &encoder.context(interrupted);
        let (config, weights) = (&encoder.config, &encoder.weights);
        let (group, stage) = self.done;
        let first = group * self.group;
        let count = self.group.min(self.sequences() - first);
        let (places, width) = (&self.places, config.embedding_length);
        let stream = &mut self.stream[..count * places.len() * width];
        if stage == 0 {
            self.kept.clear();
            self.deep.clear();
            embed(context, (config, weights), (&self.pixels, first), places, &mut self.buffers.scratch, stream)?;
            if let Some(weights) = &weights.first_norm {
                norm(weights).apply_in_place(context, stream, width)?;
            }
            fill_up(places, width, stream);
        }
        if stage < config.layers && config.kept_inputs.contains(&stage) {
            self.kept.push(copied(stream)?);
        }
        let layers = weights.layers.iter().chain(&weights.global_layers);
        let Some(layer) = layers.into_iter().nth(stage) else { return Ok(()) };
        let windowed = config.window.get(stage).is_some_and(|&side| side > 0);
        let ways = (places, self.turns.as_ref(), windowed);
        run(context, (config, layer), ways, &mut self.buffers, stream)?;
        let deep = config.deepstack.iter().position(|&own| own == stage);
        if let Some(weights) = deep.and_then(|index| weights.deepstack.get(index)) {
            let states = (&*stream, count);
            self.deep.push(deep_rows(context, (config, weights), places, states, &mut self.buffers.scratch)?);
        }
        if stage + 1 == config.layers {
            if config.kept_inputs.contains(&config.layers) {
                self.kept.push(copied(stream)?);
            }
            if let Some(weights) = &weights.last_norm {
                norm(weights).apply_in_place(context, stream, width)?;
            }
            if let Some(tables) = &weights.tiles {
                add_tiles(context, (&tables.after, self.pixels.arrangement), places, width, stream)?;
            }
        }
        if stage + 1 == config.layers + config.global_layers {
            let tiles = if config.joint_tiles > 0 { self.pixels.tiles } else { count };
            let states = (&*stream, &self.kept[..], tiles);
            let found = rows(context, (config, weights), places, states, &mut self.buffers.scratch)?;
            for (index, row) in found.chunks_exact(config.output_length).enumerate() {
                self.output.extend_from_slice(row);
                for more in &self.deep {
                    self.output.extend_from_slice(&more[index * row.len()..][..row.len()]);
                }
            }
        }
        Ok(())
    }
}

fn copied(stream: &[f32]) -> Result<Vec<f32>, Error> {
    let mut copy = room(stream.len(), 1)?;
    copy.copy_from_slice(stream);
    Ok(copy)
}

/// Rows that fill up a tile are zeros.
fn fill_up(places: &Places, width: usize, stream: &mut [f32]) {
    for (row, state) in places.rows.iter().zip(stream.chunks_exact_mut(width)) {
        if matches!(row, Row::Padding { .. }) {
            state.fill(0.0);
        }
    }
}

/// Checks the sizes of a picture.
fn check(config: &VisionConfig, pixels: &Pixels) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::Argument(message));
    let &Pixels { tiles, height, width, arrangement, .. } = pixels;
    let side = config.patch_size * config.merge;
    if config.image_size > 0 && (height != config.image_size || width != config.image_size) {
        return wrong(format!(
            "tiles of {height} × {width} pixels; expected {0} × {0}, the size that the encoder was made for",
            config.image_size
        ));
    }
    if height < side
        || width < side
        || !height.is_multiple_of(side) && config.image_size == 0
        || !width.is_multiple_of(side) && config.image_size == 0
    {
        return wrong(format!(
            "a picture of {height} × {width} pixels; expected multiples of {side}, a square of {0} × {0} patches",
            config.merge
        ));
    }
    let most = if config.joint_tiles > 0 { config.joint_tiles } else { 1 << 16 };
    if !(1..=most).contains(&tiles) {
        return wrong(format!("{tiles} tiles; expected 1 to {most}"));
    }
    if config.joint_tiles > 0 && !(1..config.arrangements).contains(&arrangement) {
        return wrong(format!(
            "arrangement {arrangement} of the tiles; expected its number, 1 to {}",
            config.arrangements.saturating_sub(1)
        ));
    }
    let count = [height, width, CHANNELS].into_iter().try_fold(tiles, usize::checked_mul);
    if count != Some(pixels.values.len()) {
        return wrong(format!(
            "{} values of {tiles} tiles of {height} × {width} pixels; expected three for each pixel",
            pixels.values.len()
        ));
    }
    if !pixels.values.iter().all(|value| value.is_finite()) {
        return wrong("the pixels hold values that are not finite numbers".to_owned());
    }
    debug_assert!(config.merge_order != MergeOrder::Average || config.kept_inputs.is_empty());
    Ok(())
}
