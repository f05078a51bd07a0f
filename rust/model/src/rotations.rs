//! The rotations of a model: the angles that apply to the rows of a pass in each layer.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::rope::{Rope, RopeSettings};

use crate::config::{Config, RopeScalingKind, Rotation};
use crate::error::{Error, sized};
use crate::rows::for_rows;
use crate::weights::RopeFactors;

/// All rotations that the layers of a model use.
pub(crate) struct Rotations {
    global: Rope,
    /// Replaces `global` in sessions longer than the original context, if those have their own frequencies.
    long: Option<Rope>,
    local: Option<Rope>,
    /// Turns the heads of indexers by the same angles, in pairs of its own.
    indexer: Option<Rope>,
    original_context: f64,
    /// Which of time, row and column turns each pair; empty if all are turned by the position.
    coordinates: Vec<usize>,
}

/// Cosines and sines for the positions of the rows of a pass, per rotation.
#[derive(Default)]
pub(crate) struct Angles {
    global: Vec<f32>,
    local: Vec<f32>,
}

/// The place of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Position in its session.
    pub(crate) position: usize,
    /// Time, row and column for rotations: the position, except in and behind pictures.
    pub(crate) turned: [usize; 3],
    /// Whether the session may grow beyond the original context.
    pub(crate) long: bool,
    /// Whether it belongs to the second of two texts.
    pub(crate) second: bool,
}

/// Which of time, row and column turns each of the pairs; empty without sections.
fn coordinates(sections: &[usize], alternating: bool, pairs: usize) -> Result<Vec<usize>, Error> {
    if sections.is_empty() {
        return Ok(Vec::new());
    }
    let sum = sections.iter().try_fold(0usize, |sum, &section| sum.checked_add(section));
    if sections.len() != 3 || sum != Some(pairs) {
        return Err(Error::Model(format!(
            "rope_sections is {sections:?}: expected the pairs that time, row and column turn, {pairs} together"
        )));
    }
    if alternating {
        // What one coordinate has too few pairs for is left to time.
        let turned = |pair: usize| if pair < 3 * sections[pair % 3] { pair % 3 } else { 0 };
        return Ok((0..pairs).map(turned).collect());
    }
    Ok((0..3).flat_map(|coordinate| std::iter::repeat_n(coordinate, sections[coordinate])).collect())
}

impl Rotations {
    pub(crate) fn new(config: &Config, factors: &mut RopeFactors) -> Result<Self, Error> {
        let rope = &config.rope;
        let always = factors.always.take();
        let (short, long) = match (always, factors.short_and_long.take(), rope.scaling) {
            (None, Some((short, long)), RopeScalingKind::LongRope) => (Some(short), Some(long)),
            (None, None, RopeScalingKind::LongRope) => {
                return Err(Error::Model(
                    "the rotation is scaled by longrope, but the file lacks rope_factors_short.weight or \
                     rope_factors_long.weight; it was converted wrongly"
                        .to_owned(),
                ));
            }
            (always, _, _) => (always, None),
        };
        let local =
            config.rotation.contains(&Rotation::Local).then(|| Rope::new(&rope.local_settings())).transpose()?;
        let settings = RopeSettings { style: config.indexer_rope_style, ..rope.settings(short.clone()) };
        Ok(Self {
            indexer: (!config.indexer.is_empty()).then(|| Rope::new(&settings)).transpose()?,
            global: Rope::new(&rope.settings(short))?,
            long: long.map(|long| Rope::new(&rope.settings(Some(long)))).transpose()?,
            local,
            original_context: rope.original_context,
            coordinates: coordinates(&rope.sections, rope.alternating, rope.size / 2)?,
        })
    }

    /// Whether a session of `context` tokens uses the angles for long sessions.
    pub(crate) fn is_long(&self, context: usize) -> bool {
        self.long.is_some() && context as f64 > self.original_context
    }

    /// Computes the angles of all rows.
    pub(crate) fn set(&self, context: &Context, places: &[Place], angles: &mut Angles) -> Result<(), Error> {
        let size = self.global.size();
        if size == 0 && self.local.is_none() {
            return Ok(());
        }
        let rope = |row: usize| match &self.long {
            Some(long) if places[row].long => long,
            _ => &self.global,
        };
        let global = sized(&mut angles.global, places.len().checked_mul(size), "positions")?;
        for_rows(context, global, size, &|row, output| {
            let (place, rope) = (places[row], rope(row));
            let [time, others @ ..] = if self.coordinates.is_empty() { [place.position; 3] } else { place.turned };
            rope.table(time, output)?;
            for (coordinate, position) in (1..).zip(others).filter(|&(_, position)| position != time) {
                let mut table = vec![0.0; size];
                rope.table(position, &mut table)?;
                for (pair, _) in self.coordinates.iter().enumerate().filter(|&(_, &own)| own == coordinate) {
                    output[pair] = table[pair];
                    output[size / 2 + pair] = table[size / 2 + pair];
                }
            }
            Ok(())
        })?;
        if let Some(local) = &self.local {
            let size = local.size();
            let angles = sized(&mut angles.local, places.len().checked_mul(size), "positions")?;
            for_rows(context, angles, size, &|row, output| local.table(places[row].position, output))?;
        }
        Ok(())
    }

    /// Turns angles into those of the opposite rotation, whose matrix is the transposed one.
    pub(crate) fn reverse(&self, angles: &mut Angles) {
        let local = self.local.as_ref().map_or(0, Rope::size);
        for (rows, size) in [(&mut angles.global, self.global.size()), (&mut angles.local, local)] {
            for row in rows.chunks_exact_mut(size.max(1)) {
                row[size / 2..].iter_mut().for_each(|sine| *sine = -*sine);
            }
        }
    }

    /// Rotates the heads of every row, starting at element `start` of each head.
    pub(crate) fn turn(
        &self,
        context: &Context,
        angles: &Angles,
        rotation: Rotation,
        (heads, row_size): (&mut [f32], usize),
        (head_size, start): (usize, usize),
    ) -> Result<(), Error> {
        let (rope, angles) = match rotation {
            Rotation::None => return Ok(()),
            Rotation::Global => (&self.global, &angles.global),
            Rotation::Local => (self.local.as_ref().unwrap_or(&self.global), &angles.local),
        };
        turn(context, (rope, angles), (heads, row_size), (head_size, start))
    }

    /// Rotates every row as at its position, from element `start` on.
    pub(crate) fn turn_at(
        &self,
        context: &Context,
        rotation: Rotation,
        position: &(dyn Fn(usize) -> usize + Sync),
        (rows, size): (&mut [f32], usize),
        start: usize,
    ) -> Result<(), Error> {
        let Some(rope) = self.rope(rotation) else { return Ok(()) };
        for_rows(context, rows, size, &|row, heads| {
            let mut table = vec![0.0; rope.size()];
            rope.table(position(row), &mut table)?;
            rope.apply_from(context.isa, heads, size, start, &table)
        })
    }

    /// Turns the heads of every row back from what they were turned by at its position.
    pub(crate) fn turn_back_at(
        &self,
        context: &Context,
        rotation: Rotation,
        position: &(dyn Fn(usize) -> usize + Sync),
        (heads, row_size): (&mut [f32], usize),
        (head_size, start): (usize, usize),
    ) -> Result<(), Error> {
        let Some(rope) = self.rope(rotation) else { return Ok(()) };
        for_rows(context, heads, row_size, &|row, heads| {
            let mut table = vec![0.0; rope.size()];
            rope.table(position(row), &mut table)?;
            table[rope.size() / 2..].iter_mut().for_each(|sine| *sine = -*sine);
            rope.apply_from(context.isa, heads, head_size, start, &table)
        })
    }

    /// One of the rotations, if it turns anything.
    fn rope(&self, rotation: Rotation) -> Option<&Rope> {
        let rope = match rotation {
            Rotation::None => return None,
            Rotation::Global => &self.global,
            Rotation::Local => self.local.as_ref().unwrap_or(&self.global),
        };
        (rope.size() > 0).then_some(rope)
    }

    /// Rotates the beginning of every head of an indexer.
    pub(crate) fn turn_indexer(
        &self,
        context: &Context,
        angles: &Angles,
        rotation: Rotation,
        (heads, row_size): (&mut [f32], usize),
        head_size: usize,
    ) -> Result<(), Error> {
        let angles = match rotation {
            Rotation::None => return Ok(()),
            Rotation::Global => &angles.global,
            Rotation::Local => &angles.local,
        };
        let Some(rope) = &self.indexer else { return Ok(()) };
        turn(context, (rope, angles), (heads, row_size), (head_size, 0))
    }
}

/// Rotates a part of the heads of every row.
fn turn(
    context: &Context,
    (rope, angles): (&Rope, &[f32]),
    (heads, row_size): (&mut [f32], usize),
    (head_size, start): (usize, usize),
) -> Result<(), Error> {
    let size = rope.size();
    if size == 0 {
        return Ok(());
    }
    for_rows(context, heads, row_size, &|row, heads| {
        let angles = &angles[row * size..(row + 1) * size];
        rope.apply_from(context.isa, heads, head_size, start, angles)
    })
}
