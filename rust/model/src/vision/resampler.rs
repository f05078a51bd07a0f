//! The resampler of MiniCPM-V (arXiv:2408.01800): learned queries attend once to all patches, and each becomes a row of the
//! result, however many patches there are.

use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::rope::{Rope, RopeScaling, RopeSettings, RopeStyle};

use super::attention::{VisionPages, room};
use super::config::VisionConfig;
use super::norms::{encoder_norm, norm};
use super::places::{Places, Row};
use crate::error::Error;
use crate::feed_forward::project;
use crate::rows::for_rows;
use crate::scratch::Scratch;
use crate::tensors::Tensors;
use crate::weights::{Linear, Norm};

/// Elements of a head; no key of the file says how many.
const HEAD: usize = 128;
/// Base of the positions of keys.
const BASE: f64 = 10_000.0;

/// The weights of a resampler, all as wide as the result, except that `input` makes such rows of the states of patches.
pub(super) struct Resampler {
    queries: Vec<f32>,
    input: Linear,
    query_norm: Norm,
    input_norm: Norm,
    output_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl Resampler {
    pub(super) fn load(config: &VisionConfig, tensors: &mut Tensors) -> Result<Self, Error> {
        let width = config.output_length;
        let name = |part: &str| format!("resampler.{part}");
        Ok(Self {
            queries: tensors.table(&name("query"), width, config.queries)?,
            input: tensors.linear(&name("kv"), config.embedding_length, width)?,
            query_norm: encoder_norm(config, tensors, &name("ln_q"), width)?,
            input_norm: encoder_norm(config, tensors, &name("ln_kv"), width)?,
            output_norm: encoder_norm(config, tensors, &name("ln_post"), width)?,
            query: tensors.linear(&name("attn.q"), width, width)?,
            key: tensors.linear(&name("attn.k"), width, width)?,
            value: tensors.linear(&name("attn.v"), width, width)?,
            output: tensors.linear(&name("attn.out"), width, width)?,
        })
    }

    /// All matrices.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.input, &self.query, &self.key, &self.value, &self.output].into_iter()
    }

    /// The width that heads divide.
    pub(super) fn fits(width: usize) -> bool {
        width.is_multiple_of(HEAD)
    }

    /// The rows of each tile of `stream`, which holds the rows of `places` for each of them.
    pub(super) fn run(
        &self,
        context: &Context,
        config: &VisionConfig,
        places: &Places,
        stream: &[f32],
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>, Error> {
        let (width, count) = (config.output_length, config.queries);
        let rows = stream.len() / config.embedding_length;
        let tiles = rows / places.len();

        let mut query_input = room(count, width)?;
        norm(&self.query_norm).apply(context, &self.queries, &mut query_input)?;
        let mut query = room(count, width)?;
        project(context, &query_input, count, scratch, &mut [(&self.query, &mut query)])?;
        drop(query_input);

        let mut input = room(rows, width)?;
        project(context, stream, rows, scratch, &mut [(&self.input, &mut input)])?;
        norm(&self.input_norm).apply_in_place(context, &mut input, width)?;
        let (mut key, mut value) = (room(rows, width)?, room(rows, width)?);
        project(context, &input, rows, scratch, &mut [(&self.value, &mut value)])?;
        add_positions(context, places, width, &mut input)?;
        project(context, &input, rows, scratch, &mut [(&self.key, &mut key)])?;
        drop(input);

        let mut pages = VisionPages::new(KvType::F32, (width / HEAD, HEAD), places.len(), tiles)?;
        let mut attended = room(tiles * count, width)?;
        pages.attend_to_all(context, places.len(), (&query, &key, &value), &mut attended)?;
        let mut output = room(tiles * count, width)?;
        project(context, &attended, tiles * count, scratch, &mut [(&self.output, &mut output)])?;
        norm(&self.output_norm).apply_in_place(context, &mut output, width)?;
        Ok(output)
    }
}

/// Adds the positions of keys: sines and cosines of the column, then those of the row.
fn add_positions(context: &Context, places: &Places, width: usize, keys: &mut [f32]) -> Result<(), Error> {
    let (half, quarter) = (width / 2, width / 4);
    let style = RopeStyle::Interleaved;
    let turns = Rope::new(&RopeSettings { size: half, base: BASE, style, scaling: RopeScaling::None, factors: None })?;
    let longest = places.grid.0.max(places.grid.1);
    // Cosines, then sines, for each place along a side.
    let mut table = room(longest, half)?;
    for (place, angles) in table.chunks_exact_mut(half).enumerate() {
        turns.table(place, angles)?;
    }
    for_rows(context, keys, width, &|index, key| {
        let Row::Patch { row, column, .. } = places.rows[index % places.len()] else { return Ok(()) };
        for (key, place) in key.chunks_exact_mut(half).zip([column, row]) {
            let (cosines, sines) = table[place * half..][..half].split_at(quarter);
            let ordered = sines.iter().chain(cosines);
            key.iter_mut().zip(ordered).for_each(|(key, angle)| *key += angle);
        }
        Ok(())
    })
}
