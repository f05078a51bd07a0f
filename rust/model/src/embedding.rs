//! The initial state of every token: its embedding plus, in models that have them, the embeddings of its position and
//! type (J. Devlin et al., "BERT", arXiv:1810.04805).

use llamacpu_kernels::activation::scale;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::memory;

use crate::config::Config;
use crate::error::Error;
use crate::norms::normalize_in_place;
use crate::pass::Segment;
use crate::rotations::Place;
use crate::rows::for_rows;
use crate::weights::Embedding;

/// Sets every row of `stream` to the initial state of its token.
pub(crate) fn embed(
    context: &Context,
    (config, weights): (&Config, &Embedding),
    segments: &[Segment],
    places: &[Place],
    stream: &mut [f32],
) -> Result<(), Error> {
    let width = config.embedding_length;
    let mut tokens: Vec<u32> = memory::room(places.len(), "tokens")?;
    tokens.extend(segments.iter().flat_map(|segment| segment.tokens));
    for_rows(context, stream, width, &|row, output| weights.tokens.row(tokens[row] as usize, output))?;
    if config.embedding_scale != 1.0 {
        scale(context, stream, config.embedding_scale)?;
    }
    if !weights.token_types.is_empty() || weights.positions.is_some() {
        for_rows(context, stream, width, &|row, output| {
            if let Some(token_type) = weights.token_type(places[row].second) {
                add(output, token_type);
            }
            if let Some(positions) = &weights.positions {
                add(output, &positions[places[row].position * width..][..width]);
            }
            Ok(())
        })?;
    }
    normalize_in_place(context, config, weights.norm.as_ref(), stream)
}

fn add(values: &mut [f32], more: &[f32]) {
    values.iter_mut().zip(more).for_each(|(value, more)| *value += more);
}
