//! What saved sessions say of the pictures among their tokens, as Python sees it.

use std::sync::Arc;

use llamacpu_model::{Error, Grid, Picture, PictureInput, SavedPicture, Session};

/// A picture of a saved session: index of its first id, number of ids, whether its rows see each other; for states of
/// cross-attention, the id of the placeholder; number of the first row in the picture, its height and its width, if known;
/// number of states.
pub(crate) type SavedRow = (usize, usize, bool, Option<u32>, Option<(usize, usize, usize)>, usize);

/// What a saved session says of the pictures of this one.
pub(crate) fn saved_rows(session: &Session) -> Result<Vec<SavedRow>, Error> {
    let row = |SavedPicture { picture, states }| {
        let Picture { start, count, input } = picture;
        match input {
            PictureInput::Rows { together, grid, .. } => {
                (start, count, together, None, grid.map(|grid| (grid.first, grid.height, grid.width)), states)
            }
            PictureInput::States { token, .. } => (start, count, false, Some(token), None, states),
        }
    };
    Ok(session.saved_pictures()?.into_iter().map(row).collect())
}

/// The same, read.
pub(crate) fn saved_picture((start, count, together, token, grid, states): SavedRow) -> SavedPicture {
    let input = if let Some(token) = token {
        PictureInput::States { token, states: Arc::default() }
    } else {
        let grid = grid.map(|(first, height, width)| Grid { first, height, width });
        PictureInput::Rows { rows: Arc::default(), together, grid }
    };
    SavedPicture { picture: Picture { start, count, input }, states }
}
