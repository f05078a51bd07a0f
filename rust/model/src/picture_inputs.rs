//! Where pictures stand in a sequence: checks, the division into chunks, and what their rows see.

use std::ops::Range;

use crate::config::{LayerConfig, SIZE_LIMIT};
use crate::pass::Segment;
use crate::picture::{FIRST_PICTURE_ID, Grid, Picture, PictureInput, SavedPicture};
use crate::{Config, Error};

/// Checks that every id of a picture has its input, of the right size.
///
/// # Errors
/// `Error::Argument` that says what does not fit.
pub(crate) fn check_pictures(config: &Config, tokens: &[u32], pictures: &[Picture]) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::Argument(message));
    let mut done = 0;
    if config.shared_rows && !pictures.is_empty() {
        return wrong(format!("a picture in a model ({}) that sees none: expected text alone", config.architecture));
    }
    for picture in pictures {
        let ids = tokens.get(picture.start..picture.start.saturating_add(picture.count)).unwrap_or(&[]);
        if picture.count == 0 || ids.len() < picture.count || picture.start < done {
            return wrong(format!(
                "a picture at {} takes {} of {} places; expected pictures one after the other inside the sequence",
                picture.start,
                picture.count,
                tokens.len()
            ));
        }
        if let Some(id) = ids.iter().find(|&&id| id < FIRST_PICTURE_ID) {
            return wrong(format!(
                "token id {id} stands where a picture is given; expected ids of {FIRST_PICTURE_ID} and above there"
            ));
        }
        if let Some(id) = stray(&tokens[done..picture.start]) {
            return wrong(not_given(id));
        }
        done = picture.end();
        let (numbers, least, what, width) = match &picture.input {
            PictureInput::Rows { rows, .. } => (rows, picture.count, "embeddings", config.picture_row_length()),
            PictureInput::States { states, .. } => (states, 1, "states", config.embedding_length),
        };
        if !numbers.len().is_multiple_of(width) || numbers.len() / width < least {
            return wrong(format!(
                "{} numbers of {what} of a picture; expected at least {least} rows of {width}, the width that this model reads",
                numbers.len()
            ));
        }
        if !numbers.iter().all(|number| number.is_finite()) {
            return wrong(format!("the {what} of a picture hold values that are not finite numbers"));
        }
        match picture.input {
            PictureInput::States { token, .. } => check_states(config, token, picture.count)?,
            PictureInput::Rows { grid, .. } if !config.rope.sections.is_empty() => check_grid(grid, picture.count)?,
            PictureInput::Rows { together: true, .. } if config.latent_size > 0 => {
                return wrong("the rows of a picture cannot see each other in a model with latent keys".to_owned());
            }
            PictureInput::Rows { .. } => {}
        }
    }
    stray(&tokens[done..]).map_or(Ok(()), |id| wrong(not_given(id)))
}

fn check_states(config: &Config, token: u32, count: usize) -> Result<(), Error> {
    if config.cross_layers.is_empty() {
        return Err(Error::Argument(
            "states of a picture for a model without cross-attention; expected embeddings of the picture".to_owned(),
        ));
    }
    if token as usize >= config.embedding_rows() || count != 1 {
        return Err(Error::Argument(format!(
            "states of a picture at {count} places, with the placeholder {token}; expected one place, and a row of the \
             embedding below {}",
            config.embedding_rows()
        )));
    }
    Ok(())
}

/// Checks the place of rows in a picture, which the rotation needs.
fn check_grid(grid: Option<Grid>, count: usize) -> Result<(), Error> {
    let fits = |grid: &Grid| {
        let end = grid.first.checked_add(count);
        grid.rows().zip(end).is_some_and(|(rows, end)| end <= rows && rows < SIZE_LIMIT)
    };
    if grid.as_ref().is_some_and(fits) {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "{count} rows of a picture with the grid {grid:?}: this model tells rows and columns of a picture apart, so that the \
         height and width of the picture in rows are needed, which hold all of its rows"
    )))
}

fn stray(tokens: &[u32]) -> Option<u32> {
    tokens.iter().copied().find(|&id| id >= FIRST_PICTURE_ID)
}

fn not_given(id: u32) -> String {
    format!("id {id} stands for a row of a picture that was not given; pass the tokens together with their pictures")
}

/// Checks that a session knows what all ids of pictures among its tokens stand for; if they are to be read again, with
/// all of their `numbers`. (Those of states are not kept, and reported where they are needed.)
///
/// # Errors
/// `Error::Argument` if it does not, because it was restored from a file.
pub(crate) fn check_known<'a>(
    tokens: &[u32],
    pictures: impl Iterator<Item = &'a Picture>,
    numbers: bool,
) -> Result<(), Error> {
    let known = |picture: &&Picture| match &picture.input {
        PictureInput::Rows { rows, .. } => !numbers || !rows.is_empty(),
        PictureInput::States { .. } => true,
    };
    let known: usize = pictures.filter(known).map(|picture| picture.count).sum();
    if tokens.iter().filter(|&&id| id >= FIRST_PICTURE_ID).count() == known {
        return Ok(());
    }
    Err(Error::Argument(
        "the session was restored from a file, and its pictures, which the file does not hold, are needed: it was rewound \
         too far, or positions depend on the sizes of pictures; truncate it to 0 tokens and give everything again"
            .to_owned(),
    ))
}

/// Checks what a saved session says of its pictures.
///
/// # Errors
/// `Error::Argument` that says what does not fit.
pub(crate) fn check_saved(config: &Config, tokens: &[u32], pictures: &[SavedPicture]) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Argument(format!("the pictures of a saved session: {what}")));
    let (mut done, mut all) = (0, 0_usize);
    for SavedPicture { picture, states } in pictures {
        let ids = tokens.get(picture.start..picture.start.saturating_add(picture.count)).unwrap_or(&[]);
        if picture.count == 0
            || ids.len() < picture.count
            || picture.start < done
            || ids.iter().any(|&id| stray(&[id]).is_none())
        {
            return wrong(format!("{} ids from place {} on are not those of one", picture.count, picture.start));
        }
        done = picture.end();
        all = all.saturating_add(*states);
        match picture.input {
            PictureInput::States { token, .. } => check_states(config, token, picture.count)?,
            PictureInput::Rows { grid, .. } if !config.rope.sections.is_empty() => check_grid(grid, picture.count)?,
            PictureInput::Rows { .. } => {}
        }
        if matches!(picture.input, PictureInput::States { .. }) != (*states > 0) || all > SIZE_LIMIT {
            return wrong(format!("{states} states of cross-attention; expected some for its pictures only"));
        }
    }
    let known: usize = pictures.iter().map(|saved| saved.picture.count).sum();
    let ids = tokens.iter().filter(|&&id| id >= FIRST_PICTURE_ID).count();
    if !config.cross_layers.is_empty() && ids > known {
        return wrong("cross-attention sees some that the file does not hold; give everything again".to_owned());
    }
    Ok(())
}

/// How many of the tokens from `start` on enter a chunk that has room for `room`: pictures whose rows see each other are
/// not cut, unless they begin the chunk (`first`), which then takes more.
pub(crate) fn fitting(pictures: &[Picture], tokens: Range<usize>, room: usize, first: bool) -> usize {
    let end = tokens.end.min(tokens.start.saturating_add(room));
    let cut = pictures.iter().find(|picture| picture.is_together() && picture.start < end && end < picture.end());
    match cut {
        None => end - tokens.start,
        Some(picture) if picture.start > tokens.start => picture.start - tokens.start,
        Some(picture) if first => picture.end() - tokens.start,
        Some(_) => 0,
    }
}

impl Segment<'_> {
    /// The pictures among its tokens: the places, counted from its first token, the picture, and its first row there.
    pub(crate) fn own_pictures(&self) -> impl Iterator<Item = (Range<usize>, &Picture, usize)> {
        let (pictures, first) = self.pictures;
        let end = first + self.tokens.len();
        pictures.iter().filter(move |picture| picture.start < end && picture.end() > first).map(move |picture| {
            let start = picture.start.max(first);
            (start - first..picture.end().min(end) - first, picture, start - picture.start)
        })
    }

    /// The ids of its tokens as rows of the embedding: those of placeholders where states stand, and 0 for rows.
    pub(crate) fn table_rows(&self) -> impl Iterator<Item = u32> {
        let place = |index: usize| self.own_pictures().find(|(places, ..)| places.contains(&index));
        self.tokens.iter().enumerate().map(move |(index, &token)| match token {
            0..FIRST_PICTURE_ID => token,
            _ => match place(index).map(|(_, picture, _)| &picture.input) {
                Some(PictureInput::States { token, .. }) => *token,
                _ => 0,
            },
        })
    }
}

/// What the last `rows` tokens of a segment see where rows of a picture see each other; empty if none of them do.
pub(crate) fn seen_together(sizes: &LayerConfig, segment: &Segment, rows: usize) -> Vec<Range<usize>> {
    if !segment.own_pictures().any(|(_, picture, _)| picture.is_together()) {
        return Vec::new();
    }
    let end = segment.position + segment.tokens.len();
    let range = |position: usize| sizes.sight.first(position)..position + 1;
    let mut ranges: Vec<_> = (end - rows..end).map(range).collect();
    for (places, ..) in segment.own_pictures().filter(|(_, picture, _)| picture.is_together()) {
        let own = segment.position + places.start..segment.position + places.end;
        for position in own.start.max(end - rows)..own.end {
            let range = &mut ranges[position - (end - rows)];
            *range = range.start.min(own.start)..range.end.max(own.end);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn picture(start: usize, count: usize) -> Picture {
        Picture { start, count, input: PictureInput::Rows { rows: Arc::default(), together: true, grid: None } }
    }

    #[test]
    fn pictures_whose_rows_see_each_other_are_not_cut() {
        let pictures = [picture(10, 20), picture(40, 100)];
        assert_eq!(fitting(&pictures, 0..200, 8, true), 8);
        assert_eq!(fitting(&pictures, 0..200, 10, true), 10);
        assert_eq!(fitting(&pictures, 0..200, 15, true), 10);
        assert_eq!(fitting(&pictures, 10..200, 15, true), 20);
        assert_eq!(fitting(&pictures, 10..200, 15, false), 0);
        assert_eq!(fitting(&pictures, 0..200, 30, false), 30);
        assert_eq!(fitting(&pictures, 40..200, 64, true), 100);
        assert_eq!(fitting(&pictures, 150..160, 64, true), 10);
    }
}
