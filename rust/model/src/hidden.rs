//! Hidden states: rows of the residual stream, copied on request on their way through the layers.

use crate::Error;
use crate::error::zeroed;

/// What a step copies in addition to logits. Without places, nothing is copied and no extra work is done.
pub(crate) struct Hidden<'a> {
    /// A value below `layers` means the residual stream after that layer; `layers` means the stream after the final norm.
    places: &'a [usize],
    layers: usize,
    width: usize,
    /// Rows of the whole step: the tokens of all items.
    rows: usize,
    /// The first row of the next chunk within the step.
    first: usize,
    /// places × rows × width
    values: Vec<f32>,
}

impl<'a> Hidden<'a> {
    /// Allocates room for the states of `rows` tokens.
    pub(crate) fn new(places: &'a [usize], layers: usize, width: usize, rows: usize) -> Result<Self, Error> {
        if let Some(place) = places.iter().find(|&&place| place > layers) {
            return Err(Error::Argument(format!(
                "there are no hidden states at place {place}: expected 0 to {} for a layer, {layers} for the last norm",
                layers - 1
            )));
        }
        if places.len() > layers + 1 {
            return Err(Error::Argument(format!(
                "{} places of hidden states: a model of {layers} layers has {}",
                places.len(),
                layers + 1
            )));
        }
        let len = places.len().checked_mul(rows).and_then(|rows| rows.checked_mul(width));
        Ok(Self { places, layers, width, rows, first: 0, values: zeroed(len, "hidden states")? })
    }

    /// Whether every row must go through the whole last layer.
    pub(crate) fn needs_last_layer(&self) -> bool {
        self.places.iter().any(|&place| place + 1 >= self.layers)
    }

    /// Copies the rows of a chunk if the states at `place` were requested.
    pub(crate) fn take(&mut self, place: usize, stream: &[f32]) {
        for (index, &wanted) in self.places.iter().enumerate() {
            if wanted == place {
                let start = (index * self.rows + self.first) * self.width;
                self.values[start..start + stream.len()].copy_from_slice(stream);
            }
        }
    }

    /// Advances to the next chunk, past the `rows` rows of this one.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.first += rows;
    }

    /// places × rows × width
    pub(crate) fn into_values(self) -> Vec<f32> {
        self.values
    }
}
