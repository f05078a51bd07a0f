//! Pictures as the model reads them, between tokens.

use std::sync::Arc;

/// The lowest id that stands for a row of a picture; ids of tokens are below it.
pub const FIRST_PICTURE_ID: u32 = 1 << 31;

/// What some consecutive ids of a sequence stand for.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Index of the first id; they are all at least [`FIRST_PICTURE_ID`].
    pub start: usize,
    /// Number of ids.
    pub count: usize,
    /// What the model reads there.
    pub input: PictureInput,
}

/// A picture as the model reads it.
#[derive(Debug, Clone)]
pub enum PictureInput {
    /// A row for each id, in place of the embedding of a token.
    Rows {
        /// At least `count` rows of the width of the model.
        rows: Arc<Vec<f32>>,
        /// Whether each of the rows sees all of them, rather than those before it.
        together: bool,
        /// Where they are in the picture, for models whose rotation tells rows and columns apart.
        grid: Option<Grid>,
    },
    /// States that the layers of cross-attention attend to, from this place on.
    States {
        /// The token whose embedding enters the first layer.
        token: u32,
        /// Rows of the width of the model; none when their keys and values are already in the session.
        states: Arc<Vec<f32>>,
    },
}

/// A picture of a saved session: where it is and what it means, without its numbers.
#[derive(Debug, Clone)]
pub struct SavedPicture {
    /// Its rows or states are empty.
    pub picture: Picture,
    /// Number of states that cross-attention sees; 0 for rows between the tokens.
    pub states: usize,
}

/// The place of some rows in a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Number of the first of the rows, which run along the lines of the picture.
    pub first: usize,
    /// Lines of the picture.
    pub height: usize,
    /// Rows in a line.
    pub width: usize,
}

impl Grid {
    /// Rows of the picture; `None` if there are none or too many.
    pub(crate) fn rows(&self) -> Option<usize> {
        self.height.checked_mul(self.width).filter(|&rows| rows > 0)
    }
}

impl Picture {
    /// The index behind the last id.
    pub(crate) fn end(&self) -> usize {
        self.start + self.count
    }

    /// Whether its rows see each other in both directions.
    pub(crate) fn is_together(&self) -> bool {
        matches!(self.input, PictureInput::Rows { together: true, .. })
    }
}
