//! The order of the rows of a picture on their way through the layers.
//!
//! Attention takes ranges of rows, so rows that see each other stand side by side: the patches of a square follow one
//! another, and rows that only fill up a tile follow all others.

use std::ops::Range;

use llamacpu_kernels::memory;

use super::choices::ClassToken;
use super::config::VisionConfig;
use crate::Error;

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// A patch of a tile.
    Patch { tile: usize, row: usize, column: usize },
    /// The learned row of a tile.
    Class { tile: usize },
    /// A row that fills up a tile.
    Padding { tile: usize },
}

impl Row {
    pub(super) fn tile(self) -> usize {
        match self {
            Self::Patch { tile, .. } | Self::Class { tile } | Self::Padding { tile } => tile,
        }
    }
}

/// The rows that attend to each other: of one tile, or of joint tiles.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) rows: Vec<Row>,
    /// What each row sees in layers without windows; empty if that is all rows.
    pub(super) everything: Vec<Range<usize>>,
    /// What each row sees in layers with windows.
    pub(super) squares: Vec<Range<usize>>,
    /// Rows and columns of patches of a tile.
    pub(super) grid: (usize, usize),
    tiles: usize,
    /// The place of each patch, tile after tile, row by row.
    patches: Vec<usize>,
}

impl Places {
    /// The rows of a tile of `grid` patches, or of all joint tiles, of which the first `given` are not empty.
    pub(super) fn new(config: &VisionConfig, grid: (usize, usize), given: usize) -> Result<Self, Error> {
        let tiles = config.joint_tiles.max(1);
        let in_tile = config.rows(grid.0 * grid.1);
        let filled = in_tile.next_multiple_of(config.row_multiple);
        let count = tiles * filled;
        let mut rows = memory::room(count, "the rows of a picture")?;
        let mut squares = memory::room(count, "the rows of a picture")?;
        let side = config.window.iter().copied().max().filter(|&side| side > 0).unwrap_or(usize::MAX);
        for tile in 0..tiles {
            if config.class_token == ClassToken::First {
                rows.push(Row::Class { tile });
            }
            for top in (0..grid.0).step_by(side) {
                for left in (0..grid.1).step_by(side) {
                    let start = rows.len();
                    for row in top..grid.0.min(top.saturating_add(side)) {
                        let columns = left..grid.1.min(left.saturating_add(side));
                        rows.extend(columns.map(|column| Row::Patch { tile, row, column }));
                    }
                    squares.extend((start..rows.len()).map(|_| start..rows.len()));
                }
            }
            if config.class_token == ClassToken::Last {
                rows.push(Row::Class { tile });
            }
        }
        let real = given.min(tiles) * in_tile;
        for tile in 0..tiles {
            rows.extend((in_tile..filled).map(|_| Row::Padding { tile }));
        }
        let mut everything = Vec::new();
        if real < count {
            // A row that fills up a tile, or belongs to an empty one, does not see others of its kind, but all others see it.
            everything = memory::room(count, "the rows of a picture")?;
            everything.extend((0..count).map(|row| if row < real { 0..count } else { 0..real }));
        }
        let mut patches: Vec<usize> = memory::room(tiles * grid.0 * grid.1, "the rows of a picture")?;
        patches.resize(tiles * grid.0 * grid.1, 0);
        for (place, row) in rows.iter().enumerate() {
            if let Row::Patch { tile, row, column } = *row {
                patches[(tile * grid.0 + row) * grid.1 + column] = place;
            }
        }
        Ok(Self { rows, everything, squares, grid, tiles, patches })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of tiles among the rows.
    pub(super) fn tiles(&self) -> usize {
        self.tiles
    }

    /// The place of a patch.
    pub(super) fn patch(&self, tile: usize, row: usize, column: usize) -> usize {
        self.patches[(tile * self.grid.0 + row) * self.grid.1 + column]
    }

    /// The place of the class token of a tile, if it stands first.
    pub(super) fn class(&self, tile: usize) -> usize {
        tile * (self.grid.0 * self.grid.1 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_has_a_place_and_sees_its_square() {
        let config = VisionConfig { window: vec![4, 0], row_multiple: 1, ..VisionConfig::default() };
        let places = Places::new(&config, (6, 10), 1).unwrap();
        assert_eq!(places.len(), 60);
        for row in 0..6 {
            for column in 0..10 {
                let place = places.patch(0, row, column);
                assert_eq!(places.rows[place], Row::Patch { tile: 0, row, column });
                let seen = places.squares[place].clone();
                for (other, found) in places.rows.iter().enumerate() {
                    let Row::Patch { row: r, column: c, .. } = *found else { panic!() };
                    assert_eq!(seen.contains(&other), r / 4 == row / 4 && c / 4 == column / 4);
                }
            }
        }
    }

    #[test]
    fn rows_that_fill_up_are_seen_by_all_but_their_kind() {
        let config =
            VisionConfig { joint_tiles: 2, row_multiple: 8, class_token: ClassToken::First, ..VisionConfig::default() };
        let places = Places::new(&config, (2, 2), 2).unwrap();
        assert_eq!((places.len(), places.class(1)), (16, 5));
        assert_eq!(places.rows[10..].iter().filter(|row| matches!(row, Row::Padding { .. })).count(), 6);
        assert_eq!((places.everything[9].clone(), places.everything[10].clone()), (0..16, 0..10));
        let places = Places::new(&config, (2, 2), 1).unwrap();
        assert_eq!((places.everything[4].clone(), places.everything[5].clone()), (0..16, 0..5));
    }
}
