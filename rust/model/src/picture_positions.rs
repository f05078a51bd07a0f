//! The positions of rows of pictures for rotations by time, row and column (P. Wang et al., "Qwen2-VL", arXiv:2409.12191,
//! M-RoPE): all rows of a picture share the time at which it begins, and count rows and columns from there. What follows
//! continues behind the longer side of the picture, so that the positions of tokens fall behind their places.

use crate::pass::Segment;
use crate::picture::{Grid, Picture, PictureInput};

/// How far the position of a token lies from its place behind some pictures.
pub(crate) fn shift_behind<'a>(pictures: impl Iterator<Item = &'a Picture>) -> isize {
    pictures.map(shift_of).sum()
}

/// By how much a picture moves what follows it: nothing before all of its rows are there.
fn shift_of(picture: &Picture) -> isize {
    let Some(grid) = grid_of(picture) else { return 0 };
    let rows = grid.height * grid.width;
    if grid.first + picture.count < rows {
        return 0;
    }
    grid.height.max(grid.width).cast_signed() - rows.cast_signed()
}

fn grid_of(picture: &Picture) -> Option<Grid> {
    match picture.input {
        PictureInput::Rows { grid, .. } => grid,
        PictureInput::States { .. } => None,
    }
}

/// Time, row and column of every token of a segment.
pub(crate) fn positions(segment: &Segment) -> Vec<[usize; 3]> {
    let (pictures, first) = segment.pictures;
    let start = segment.position - first;
    let at = |place: usize, shift: isize| place.saturating_add_signed(shift);
    let mut found = Vec::with_capacity(segment.tokens.len());
    let (mut shift, mut next) = (segment.shift, 0);
    for index in first..first + segment.tokens.len() {
        while let Some(picture) = pictures.get(next).filter(|picture| picture.end() <= index) {
            shift += shift_of(picture);
            next += 1;
        }
        let inside = pictures.get(next).filter(|picture| picture.start <= index);
        found.push(match inside.and_then(|picture| Some((picture, grid_of(picture)?))) {
            Some((picture, grid)) => {
                let row = grid.first + index - picture.start;
                let begin = at((start + index).saturating_sub(row), shift);
                [begin, begin + row / grid.width, begin + row % grid.width]
            }
            None => [at(start + index, shift); 3],
        });
    }
    found
}
