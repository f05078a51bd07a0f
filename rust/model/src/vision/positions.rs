//! The initial states of a picture's rows, and the angles of their rotation.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::rope::{Rope, RopeScaling, RopeSettings};

use super::choices::{ClassToken, PositionTable, VisionRotation};
use super::config::{CHANNELS, VisionConfig};
use super::pixels::Pixels;
use super::places::{Places, Row};
use super::weights::{GatedTable, VisionWeights};
use crate::error::{Error, zeroed};
use crate::feed_forward::project;
use crate::rows::for_rows;
use crate::scratch::Scratch;

const PURPOSE: &str = "a picture";

/// Sets `stream` to the states of the rows that begin with `tile`, before the first norm.
pub(super) fn embed(
    context: &Context,
    (config, weights): (&VisionConfig, &VisionWeights),
    (pixels, tile): (&Pixels, usize),
    places: &Places,
    scratch: &mut Scratch,
    stream: &mut [f32],
) -> Result<(), Error> {
    let (side, width) = (config.patch_size, config.embedding_length);
    let columns = side * side * CHANNELS;
    let count = stream.len() / width;
    let mut patches = zeroed(count.checked_mul(columns), PURPOSE)?;
    for_rows(context, &mut patches, columns, &|index, output| {
        if let Row::Patch { tile: own, row, column } = places.rows[index % places.len()] {
            let tile = tile + index / places.len() * places.tiles() + own;
            cut(pixels, side, (tile, row, column), output);
        }
        Ok(())
    })?;
    project(context, &patches, count, scratch, &mut [(&weights.patch, &mut *stream)])?;
    drop(patches);
    let table = positions(config, weights, places)?;
    let arrangement = pixels.arrangement;
    let tiles = weights.tiles.as_ref();
    let before = tiles.map(|tables| chosen(&tables.before, arrangement)).transpose()?;
    let beside = tiles.map(|tables| chosen(&tables.positions, arrangement)).transpose()?;
    let gate = tiles.map_or(1.0, |tables| tables.position_gate);
    let in_tile = config.rows(places.grid.0 * places.grid.1);
    for_rows(context, stream, width, &|index, state| {
        let row = places.rows[index % places.len()];
        let number = match row {
            Row::Padding { .. } => return Ok(()),
            Row::Class { .. } => {
                state.copy_from_slice(weights.class.as_deref().unwrap_or(&[]));
                if config.class_token == ClassToken::First { 0 } else { in_tile - 1 }
            }
            Row::Patch { tile, row, column } => {
                if let Some(before) = &before {
                    add(state, &before[tile * width..][..width], 1.0);
                }
                row * places.grid.1 + column + usize::from(config.class_token == ClassToken::First)
            }
        };
        if let Some(table) = &table {
            add(state, &table[number * width..][..width], gate);
        }
        if let Some(beside) = &beside {
            add(state, &beside[(row.tile() * in_tile + number) * width..][..width], 1.0);
        }
        Ok(())
    })
}

/// Adds the embeddings of the places of tiles before the global layers.
pub(super) fn add_tiles(
    context: &Context,
    (table, arrangement): (&GatedTable, usize),
    places: &Places,
    width: usize,
    stream: &mut [f32],
) -> Result<(), Error> {
    let after = chosen(table, arrangement)?;
    for_rows(context, stream, width, &|index, state| {
        add(state, &after[places.rows[index].tile() * width..][..width], 1.0);
        Ok(())
    })
}

/// The row of an arrangement, times its gate.
fn chosen(table: &GatedTable, arrangement: usize) -> Result<Vec<f32>, Error> {
    let mut row = zeroed(Some(table.rows.columns()), PURPOSE)?;
    table.rows.row(arrangement, &mut row)?;
    crate::rows::multiply(&mut row, table.gate);
    Ok(row)
}

fn add(state: &mut [f32], more: &[f32], factor: f32) {
    state.iter_mut().zip(more).for_each(|(state, more)| *state += more * factor);
}

/// Copies a patch, channel by channel; tiles that are not there are zeros.
fn cut(pixels: &Pixels, side: usize, (tile, row, column): (usize, usize, usize), output: &mut [f32]) {
    if tile >= pixels.tiles {
        return;
    }
    for (channel, output) in output.chunks_exact_mut(side * side).enumerate() {
        for (line, output) in output.chunks_exact_mut(side).enumerate() {
            let first = ((tile * pixels.height + row * side + line) * pixels.width + column * side) * CHANNELS;
            let line = pixels.values[first..][..side * CHANNELS].chunks_exact(CHANNELS);
            output.iter_mut().zip(line).for_each(|(output, pixel)| *output = pixel[channel]);
        }
    }
}

/// The embedding of the position of each row of a tile, in the order of the file's table.
fn positions(config: &VisionConfig, weights: &VisionWeights, places: &Places) -> Result<Option<Vec<f32>>, Error> {
    let Some(table) = &weights.positions else { return Ok(None) };
    let width = config.embedding_length;
    if config.positions == PositionTable::Fixed {
        let mut copy = zeroed(Some(table.len()), PURPOSE)?;
        copy.copy_from_slice(table);
        return Ok(Some(copy));
    }
    let side = (table.len() / width).isqrt();
    let (rows, columns) = places.grid;
    let mut found = zeroed((rows * columns).checked_mul(width), PURPOSE)?;
    if config.positions == PositionTable::Nearest {
        for (number, state) in found.chunks_exact_mut(width).enumerate() {
            let (row, column) = (number / columns * side / rows, number % columns * side / columns);
            state.copy_from_slice(&table[(row * side + column) * width..][..width]);
        }
        return Ok(Some(found));
    }
    if config.positions == PositionTable::Corners {
        for (number, state) in found.chunks_exact_mut(width).enumerate() {
            for (row, of_row) in between_corners(number / columns, rows, side) {
                for (column, of_column) in between_corners(number % columns, columns, side) {
                    add(state, &table[(row * side + column) * width..][..width], of_row * of_column);
                }
            }
        }
        return Ok(Some(found));
    }
    for (number, state) in found.chunks_exact_mut(width).enumerate() {
        let taps = |place: usize, of: usize| taps(place, of, side);
        for (row, of_row) in taps(number / rows, columns) {
            for (column, of_column) in taps(number % rows, rows) {
                add(state, &table[(row * side + column) * width..][..width], of_row * of_column);
            }
        }
    }
    Ok(Some(found))
}

/// The two places of a line of `side` that place `place` of `of` lies between, with their weights, where the first and the
/// last places of both coincide.
fn between_corners(place: usize, of: usize, side: usize) -> [(usize, f32); 2] {
    let at = place as f64 * (side - 1) as f64 / (of - 1).max(1) as f64;
    let low = at.floor();
    let share = (at - low) as f32;
    [(low as usize, 1.0 - share), ((low as usize + 1).min(side - 1), share)]
}

/// The two places of a line of `side` that place `place` of `of` lies between, with their weights; those outside are left
/// out.
fn taps(place: usize, of: usize, side: usize) -> impl Iterator<Item = (usize, f32)> {
    let at = (place as f64 + 0.5) * side as f64 / of as f64 - 0.5;
    let low = at.floor();
    let share = (at - low) as f32;
    [(low, 1.0 - share), (low + 1.0, share)]
        .into_iter()
        .filter(move |&(tap, weight)| (0.0..side as f64).contains(&tap) && weight != 0.0)
        .map(|(tap, weight)| (tap as usize, weight))
}

/// The rotation of queries and keys by two coordinates.
pub(super) struct Turns {
    whole: Rope,
    /// Cosines, then sines, of all pairs of a head, for each row.
    angles: Vec<f32>,
}

impl Turns {
    /// The angles of all rows; `None` if nothing is rotated.
    pub(super) fn new(config: &VisionConfig, places: &Places) -> Result<Option<Self>, Error> {
        if config.rotation == VisionRotation::None {
            return Ok(None);
        }
        let head = config.head_size();
        let (style, base) = (config.rope_style, config.rope_base);
        let whole = Rope::new(&RopeSettings { size: head, base, style, scaling: RopeScaling::None, factors: None })?;
        let (half, quarter) = (head / 2, head / 4);
        let mut angles = zeroed(places.len().checked_mul(head), PURPOSE)?;
        let mut table = zeroed(Some(head), PURPOSE)?;
        for (row, angles) in places.rows.iter().zip(angles.chunks_exact_mut(head)) {
            let (by_row, by_column) = match *row {
                Row::Patch { row, column, .. } => (row + config.rope_first, column + config.rope_first),
                Row::Class { .. } | Row::Padding { .. } => (0, 0),
            };
            let both = match config.rotation {
                VisionRotation::RowsFirst => [by_row, by_column],
                VisionRotation::ColumnsFirst | VisionRotation::None => [by_column, by_row],
            };
            for (part, position) in both.into_iter().enumerate() {
                whole.table(position, &mut table)?;
                // Every second frequency of a rotation of the whole head.
                let first = usize::from(part == 1 && config.rope_between);
                for (pair, from) in (first..half).step_by(2).enumerate() {
                    angles[part * quarter + pair] = table[from];
                    angles[half + part * quarter + pair] = table[half + from];
                }
            }
        }
        Ok(Some(Self { whole, angles }))
    }

    /// Rotates the heads of all rows, those of several tiles one after the other.
    pub(super) fn turn(&self, context: &Context, heads: &mut [f32], row_size: usize) -> Result<(), Error> {
        let size = self.whole.size();
        let rows = self.angles.len() / size;
        for_rows(context, heads, row_size, &|row, heads| {
            let angles = &self.angles[row % rows * size..][..size];
            self.whole.apply(context.isa, heads, size, angles)
        })
    }
}
