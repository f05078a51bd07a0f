//! Checks the settings of a picture encoder against their ranges, so that later arithmetic on sizes is safe.

use super::choices::{ClassToken, MergeOrder, PositionTable, VisionRotation};
use super::config::VisionConfig;
use super::resampler::Resampler;
use crate::Error;
use crate::config::LAYERS_LIMIT;

/// Maximum of any side in pixels or patches.
const SIDE_LIMIT: usize = 1 << 14;
/// Maximum of any width.
const WIDTH_LIMIT: usize = 1 << 20;

impl VisionConfig {
    /// # Errors
    /// `Error::Model` that describes the first invalid setting.
    pub(super) fn validate(&self) -> Result<(), Error> {
        within("image_size", self.image_size, 0, SIDE_LIMIT)?;
        within("patch_size", self.patch_size, 1, 1 << 10)?;
        within("embedding_length", self.embedding_length, 1, WIDTH_LIMIT)?;
        within("layers", self.layers, 1, LAYERS_LIMIT)?;
        within("global_layers", self.global_layers, 0, LAYERS_LIMIT)?;
        within("heads", self.heads, 1, self.embedding_length)?;
        within("feed_forward", self.feed_forward, 1, WIDTH_LIMIT)?;
        within("output_length", self.output_length, 1, WIDTH_LIMIT)?;
        within("merge", self.merge, 1, 64)?;
        within("rope_first", self.rope_first, 0, 1)?;
        within("joint_tiles", self.joint_tiles, 0, 64)?;
        within("arrangements", self.arrangements, 0, 1 << 12)?;
        within("row_multiple", self.row_multiple, 1, 64)?;
        within("kept_inputs", self.kept_inputs.len(), 0, LAYERS_LIMIT)?;
        self.kept_inputs.iter().try_for_each(|&layer| within("kept_inputs", layer, 0, self.layers))?;
        self.window.iter().try_for_each(|&side| within("window", side, 0, SIDE_LIMIT))?;
        let sound = |epsilon: f32| epsilon.is_finite() && epsilon > 0.0;
        if !sound(self.norm_epsilon) || !sound(self.projector_norm_epsilon) {
            return wrong("a norm's epsilon", "a positive number");
        }
        if !self.embedding_length.is_multiple_of(self.heads) {
            return wrong("embedding_length", "a multiple of the number of heads");
        }
        if self.rotation != VisionRotation::None && !self.head_size().is_multiple_of(4) {
            return wrong("the size of a head", "a multiple of 4, half of whose pairs turn with each coordinate");
        }
        if !self.window.is_empty() && self.window.len() != self.layers {
            return wrong("window", "one entry per layer");
        }
        let mut sides = self.window.iter().filter(|&&side| side > 0);
        if sides.next().is_some_and(|first| sides.any(|side| side != first)) {
            return wrong("window", "squares of one size in all layers that have them");
        }
        if self.window.iter().any(|&side| side > 0) && (self.class_token != ClassToken::None || self.joint_tiles > 0) {
            return wrong("window", "no class token and separate tiles");
        }
        let grid = self.image_size / self.patch_size;
        if self.positions != PositionTable::None && self.image_size > 0 && grid == 0 {
            return wrong("image_size", "at least one patch");
        }
        if self.positions == PositionTable::Fixed && self.image_size == 0 {
            return wrong("image_size", "the size that the table of positions is for");
        }
        if self.image_size > 0 && !grid.is_multiple_of(self.merge) {
            return wrong("merge", "a divisor of the patches along a side");
        }
        if self.class_output && (self.merge > 1 || self.class_token != ClassToken::First) {
            return wrong("class_output", "a class token before patches that are not merged");
        }
        if self.joint_tiles > 0 {
            let fixed = self.positions == PositionTable::Fixed && self.class_output && self.arrangements > 0;
            if !fixed || self.rotation != VisionRotation::None {
                return wrong(
                    "joint_tiles",
                    "a table of positions, arrangements, a class token in the result and no rotation",
                );
            }
        } else if self.global_layers > 0 || self.row_multiple > 1 {
            return wrong("global_layers and row_multiple", "joint tiles");
        }
        within("queries", self.queries, 0, 1 << 12)?;
        if self.queries > 0 && (self.merge > 1 || self.class_token != ClassToken::None || self.joint_tiles > 0) {
            return wrong("queries", "separate tiles whose patches are not merged, and no class token");
        }
        if self.queries > 0 && (!self.kept_inputs.is_empty() || !Resampler::fits(self.output_length)) {
            return wrong("queries", "no kept inputs, and an output_length of whole heads");
        }
        if !self.deepstack.is_empty() {
            let plain = self.merge_order == MergeOrder::Patches && self.kept_inputs.is_empty() && !self.class_output;
            if !plain || self.queries > 0 || self.joint_tiles > 0 || !self.merger.is_empty() {
                return wrong("deepstack", "separate tiles whose patches are merged side by side, and nothing else");
            }
            let ascending = self.deepstack.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || self.deepstack.iter().any(|&layer| layer >= self.layers) {
                return wrong("deepstack", "numbers of layers in ascending order");
            }
        }
        if self.projector.is_empty() {
            return wrong("projector", "at least one matrix");
        }
        Ok(())
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::Model(format!("the picture encoder's {name} is {value}: expected {least} to {most}")))
}

fn wrong(name: &str, expected: &str) -> Result<(), Error> {
    Err(Error::Model(format!("the picture encoder's {name} does not fit: expected {expected}")))
}
