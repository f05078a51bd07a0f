//! The weights that turn rows, given in place of tokens, into what enters the first layer.

use llamacpu_kernels::matmul::Matrix;

use super::{Linear, Norm};
use crate::config::{Input, StatesNorm};
use crate::tensors::Tensors;
use crate::{Config, Error};

/// See `crate::row_inputs`.
pub(crate) struct RowWeights {
    /// Makes a row of the states of another model.
    pub(crate) states: Option<Linear>,
    /// Of these states or of the row.
    pub(crate) states_norm: Option<Norm>,
    /// Of both halves of a pair.
    pub(crate) halves: [Option<Norm>; 2],
    /// Makes a row of a pair.
    pub(crate) projection: Option<Linear>,
    /// Makes a state of the other model of a final one.
    pub(crate) next: Option<Linear>,
}

impl RowWeights {
    pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let width = config.embedding_length;
        let states = (config.states_width > 0).then(|| tensors.linear("fc", config.states_width, width)).transpose()?;
        let states_norm = match config.states_norm {
            StatesNorm::None => None,
            StatesNorm::Before => Some(tensors.norm(config, "enc.output_norm", config.states_width)?),
            StatesNorm::Behind => Some(tensors.norm(config, "enc.output_norm", width)?),
        };
        let names = match config.input {
            Input::Tokens => return Ok(None),
            Input::Rows => None,
            Input::Pairs => Some(["blk.0.attn_norm", "blk.0.attn_norm_2"]),
            Input::ProjectedPairs => Some(["nextn.enorm", "nextn.hnorm"]),
        };
        let halves = match names {
            None => [None, None],
            Some([first, second]) => {
                [Some(tensors.norm(config, first, width)?), Some(tensors.norm(config, second, width)?)]
            }
        };
        let projected = config.input == Input::ProjectedPairs;
        let projection = projected.then(|| tensors.linear("nextn.eh_proj", 2 * width, width)).transpose()?;
        let next = config.next_width;
        let next = (next > 0).then(|| tensors.linear("nextn.post_projection", width, next)).transpose()?;
        Ok(Some(Self { states, states_norm, halves, projection, next }))
    }

    pub(super) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.states.iter().chain(&self.projection).chain(&self.next).map(|linear| &linear.matrix)
    }
}
