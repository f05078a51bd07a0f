//! What the blocks of a pass share: the tokens of each session, and the current place in the model.

use std::sync::Arc;

use llamacpu_kernels::context::Context;

use crate::adapters::{AdaptedText, Adapters};
use crate::config::{Config, LayerConfig};
use crate::distances::Distances;
use crate::kv::Pages;
use crate::picture::Picture;
use crate::rotations::{Angles, Place, Rotations};

/// Consecutive tokens of one session: its rows in this chunk.
pub(crate) struct Segment<'a> {
    pub(crate) pages: &'a mut Pages,
    pub(crate) tokens: &'a [u32],
    /// What enters the first layer, in models that take rows in place of tokens.
    pub(crate) rows: &'a [f32],
    /// Whether the tokens all see each other.
    pub(crate) together: bool,
    /// The pictures of the whole text, and the index of the first token there.
    pub(crate) pictures: (&'a [Picture], usize),
    /// Position of the first token.
    pub(crate) position: usize,
    /// How far the positions of the rotation lie from the places in the session, where the text begins that the pictures are
    /// counted in.
    pub(crate) shift: isize,
    /// Whether the session may grow beyond the original context of the model.
    pub(crate) long: bool,
    /// Position from which tokens have the second type, as do those of the second of two texts.
    pub(crate) second_part: usize,
    /// How many of the last tokens get logits.
    pub(crate) wanted: usize,
    /// How many of the last tokens go through the whole last layer: at least those that get logits.
    pub(crate) kept: usize,
    /// What the tokens go through in addition to the model.
    pub(crate) adapters: Option<Arc<Adapters>>,
}

impl Segment<'_> {
    /// Its rows and their adapters.
    pub(crate) fn adapted(&self) -> AdaptedText<'_> {
        let rows = [self.tokens.len(), self.kept, self.wanted];
        AdaptedText { position: self.position, rows, adapters: self.adapters.as_deref() }
    }
}

/// What the blocks of a layer share.
pub(crate) struct Pass<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) config: &'a Config,
    pub(crate) rotations: &'a Rotations,
    pub(crate) angles: &'a Angles,
    pub(crate) places: &'a [Place],
    pub(crate) distances: Option<&'a Distances>,
    /// Index of the layer, starting at 0.
    pub(crate) layer: usize,
    pub(crate) sizes: LayerConfig,
    /// Whether this is the last layer, where rows that are not requested end.
    pub(crate) last: bool,
    /// How many rows continue after this layer.
    pub(crate) kept: usize,
}

/// Moves the last rows of every segment to the front of `data`; `count` returns how many rows a segment has and how
/// many of them stay.
pub(crate) fn keep_last<T: Copy>(
    segments: &[Segment],
    data: &mut [T],
    row_size: usize,
    count: impl Fn(&Segment) -> (usize, usize),
) {
    let (mut end, mut kept) = (0, 0);
    for segment in segments {
        let (rows, staying) = count(segment);
        end += rows;
        if end - staying != kept {
            data.copy_within((end - staying) * row_size..end * row_size, kept * row_size);
        }
        kept += staying;
    }
}
