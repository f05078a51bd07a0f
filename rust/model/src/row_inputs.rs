//! Rows in place of tokens, as drafters read them: states of another model, fused by a matrix (J. Chen et al., "DFlash",
//! arXiv:2602.06036; Y. Li et al., "EAGLE-3", arXiv:2503.01840), and pairs of a token's embedding and the state before it
//! (multi-token prediction: DeepSeek-AI, "DeepSeek-V3", arXiv:2412.19437).

use llamacpu_kernels::context::Context;

use crate::config::{Config, Input, StatesNorm};
use crate::error::{Error, sized, zeroed};
use crate::feed_forward::project;
use crate::norms::normalize_in_place;
use crate::pass::Segment;
use crate::scratch::Scratch;
use crate::weights::RowWeights;

/// Buffers of pairs.
#[derive(Default)]
pub(crate) struct PairBuffers {
    /// rows × embedding: the first halves, then the second ones
    halves: Vec<f32>,
    /// rows × 2 embedding: both, normalized
    joined: Vec<f32>,
}

impl PairBuffers {
    /// The pairs of the first `rows` rows, both halves normalized.
    pub(crate) fn joined(&self, rows: usize, width: usize) -> &[f32] {
        &self.joined[..rows * 2 * width]
    }
}

/// Sets `stream` to what enters the first layer.
pub(crate) fn begin(
    context: &Context,
    (config, weights): (&Config, &RowWeights),
    segments: &[Segment],
    (buffers, scratch): (&mut PairBuffers, &mut Scratch),
    stream: &mut [f32],
) -> Result<(), Error> {
    let given = segments.iter().flat_map(|segment| segment.rows);
    if config.input == Input::Rows {
        stream.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        return Ok(());
    }
    let width = config.embedding_length;
    let rows = stream.len() / width;
    let len = stream.len().checked_mul(2);
    let joined = sized(&mut buffers.joined, len, "activations")?;
    joined.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
    let halves = sized(&mut buffers.halves, len, "activations")?;
    let (first, second) = halves.split_at_mut(stream.len());
    for (row, pair) in joined.chunks_exact(2 * width).enumerate() {
        first[row * width..][..width].copy_from_slice(&pair[..width]);
        second[row * width..][..width].copy_from_slice(&pair[width..]);
    }
    if !config.normed_pairs {
        stream.copy_from_slice(second);
    }
    let [norm, other] = weights.halves.each_ref().map(Option::as_ref);
    normalize_in_place(context, config, norm, first)?;
    normalize_in_place(context, config, other, second)?;
    if config.normed_pairs {
        stream.copy_from_slice(second);
    }
    for (row, pair) in joined.chunks_exact_mut(2 * width).enumerate() {
        pair[..width].copy_from_slice(&first[row * width..][..width]);
        pair[width..].copy_from_slice(&second[row * width..][..width]);
    }
    let Some(projection) = &weights.projection else { return Ok(()) };
    project(context, joined, rows, scratch, &mut [(projection, stream)])
}

/// Rows of embedding width made of `states`, rows × `states_width`.
pub(crate) fn fuse(
    context: &Context,
    (config, weights): (&Config, &RowWeights),
    mut states: Vec<f32>,
) -> Result<Vec<f32>, Error> {
    let (Some(matrix), 1..) = (&weights.states, config.states_width) else {
        return Err(Error::Argument("this model makes no rows of states of another model".to_owned()));
    };
    let rows = states.len() / config.states_width;
    if rows * config.states_width != states.len() {
        return Err(Error::Argument(format!("{} numbers: expected rows of {}", states.len(), config.states_width)));
    }
    let mut output = zeroed(rows.checked_mul(config.embedding_length), "activations")?;
    if rows == 0 {
        return Ok(output);
    }
    let norm = weights.states_norm.as_ref();
    if config.states_norm == StatesNorm::Before {
        normalize_in_place(context, config, norm, &mut states)?;
    }
    project(context, &states, rows, &mut Scratch::default(), &mut [(matrix, &mut output)])?;
    if config.states_norm == StatesNorm::Behind {
        normalize_in_place(context, config, norm, &mut output)?;
    }
    Ok(output)
}
