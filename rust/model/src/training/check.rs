//! What can be trained, and with which arguments.

use llamacpu_kernels::matmul::Matrix;

use super::adapters::listed;
use super::shape::TrainerShape;
use crate::config::{AttentionGate, Config, QueryKeyNorm, SIZE_LIMIT};
use crate::weights::{Attention, FeedForward};
use crate::{Error, Model};

/// The largest rank.
const RANK_LIMIT: usize = 4096;
/// The largest number of tokens in a step.
const TOKENS_LIMIT: usize = 1 << 20;

/// # Errors
/// `Error::Model` if the model has a part whose gradient is not implemented.
pub(super) fn model(model: &Model) -> Result<(), Error> {
    let (_, config, weights) = model.parts(None);
    let refused = |what: &str| {
        Err(Error::Model(format!(
            "adapters of a model with {what} cannot be trained: expected a causal model with dense feed-forward networks \
             and separate keys and values, such as Llama, Qwen 2 and 3, Gemma or Phi"
        )))
    };
    if !config.causal || config.relative_positions > 0 {
        return refused("tokens that see those behind them");
    }
    let rotated_first = config.query_key_norm.contains(&QueryKeyNorm::RotatedHead);
    if config.alibi > 0.0 || config.query_key_value_limit > 0.0 || config.parallel_norm || rotated_first {
        return refused(
            "linear biases, limited queries or keys, norms after the rotation or two norms of parallel blocks",
        );
    }
    if config.value_norm {
        return refused("normalized values");
    }
    if weights.output.is_none() {
        return refused("no output matrix");
    }
    for layer in &weights.layers {
        match &layer.attention {
            Some(Attention::Latent(_)) => return refused("latent attention"),
            Some(Attention::Shared(_)) => return refused("shared keys and values"),
            Some(Attention::Linear(_)) => return refused("a matrix in place of attention"),
            Some(Attention::Recurrent(_)) => return refused("recurrent layers"),
            Some(Attention::Heads(heads)) if heads.gate.is_some() || config.attention_gate != AttentionGate::None => {
                return refused("a gate on attention's output");
            }
            Some(Attention::Heads(heads)) if heads.own().is_err() => {
                return refused("keys that are values, or that layers share");
            }
            Some(Attention::Heads(_)) | None => {}
        }
        if layer.input.is_some() || layer.scale.is_some() {
            return refused("inputs or factors of layers");
        }
        if let Some(FeedForward::Experts(_) | FeedForward::Beside(_)) = &layer.feed_forward {
            return refused("a mixture of experts");
        }
    }
    // Rows are read from the file's bytes, which a copy gives back once they have been packed.
    let matrices = weights.layers.iter().flat_map(|layer| layer.matrices());
    let mut matrices = matrices.chain(weights.output.iter().map(|output| &*output.matrix));
    if !matrices.all(Matrix::has_rows) {
        return Err(Error::Model(
            "the model was loaded with load=\"copy\" and has run, so its weights are here in packed form only: open it \
             anew to train it, or with load=\"map\""
                .to_owned(),
        ));
    }
    Ok(())
}

/// # Errors
/// `Error::Argument` for the first argument that is out of range.
pub(super) fn shape(model: &Model, shape: &TrainerShape, alpha: f32) -> Result<(), Error> {
    let TrainerShape { targets, rank, tokens, .. } = shape;
    let wrong = |message: String| Err(Error::Argument(message));
    if !(1..=RANK_LIMIT).contains(rank) {
        return wrong(format!("a rank of {rank}: expected 1 to {RANK_LIMIT}"));
    }
    if !(1..=TOKENS_LIMIT).contains(tokens) {
        return wrong(format!("steps of {tokens} tokens: expected 1 to {TOKENS_LIMIT}"));
    }
    if !(alpha.is_finite() && alpha > 0.0) {
        return wrong(format!("alpha is {alpha}: expected a positive number"));
    }
    if targets.is_empty() {
        return wrong("no matrices to adapt: name at least one".to_owned());
    }
    let known = listed(model);
    for (index, target) in targets.iter().enumerate() {
        if !known.iter().any(|(name, ..)| name == target) {
            let names: Vec<&str> = known.iter().take(7).map(|(name, ..)| name.as_str()).collect();
            return wrong(format!(
                "the model has no matrix {target:?} that can be adapted: expected names such as {}",
                names.join(", ")
            ));
        }
        if targets[..index].contains(target) {
            return wrong(format!("the matrix {target:?} is named twice"));
        }
    }
    Ok(())
}

/// Checks the arguments of a step.
///
/// # Errors
/// `Error::Argument` for the first that does not fit.
pub(super) fn batch(
    config: &Config,
    capacity: usize,
    tokens: &[i32],
    segments: &[i32],
    targets: &[i32],
) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::Argument(message));
    let count = tokens.len();
    if count == 0 || count > capacity {
        return wrong(format!("{count} tokens in a step: expected 1 to {capacity}, as the trainer was made for"));
    }
    if targets.len() != count {
        return wrong(format!("{} targets for {count} tokens: expected as many", targets.len()));
    }
    let ascending = segments.windows(2).all(|pair| pair[0] < pair[1]);
    if segments.first() != Some(&0) || segments.last().copied() != i32::try_from(count).ok() || !ascending {
        return wrong(format!("segments must ascend from 0 to the {count} tokens, with at least one token in each"));
    }
    let most = config.most_tokens().min(SIZE_LIMIT);
    if let Some(pair) = segments.windows(2).find(|pair| (pair[1] - pair[0]) as usize > most) {
        return wrong(format!("a sequence of {} tokens: the model has places for {most}", pair[1] - pair[0]));
    }
    let vocabulary = config.vocab_size;
    let outside = |token: &i32| usize::try_from(*token).map_or(true, |token| token >= vocabulary);
    if let Some(token) = tokens.iter().find(|token| outside(token)) {
        return wrong(format!("token id {token} is outside the vocabulary: expected 0 to {}", vocabulary - 1));
    }
    if let Some(target) = targets.iter().find(|target| **target != -1 && outside(target)) {
        return wrong(format!("target {target} is outside the vocabulary: expected 0 to {}, or -1", vocabulary - 1));
    }
    Ok(())
}
