//! The weights of the second embeddings that the tokens have for each layer.

use llamacpu_kernels::matmul::Matrix;

use super::{Linear, Norm};
use crate::tensors::Tensors;
use crate::{Config, Error};

/// What all layers' inputs are computed from.
pub(crate) struct PerLayerInputs {
    /// vocabulary × (layers × size); looked up row by row.
    pub(crate) tokens: Matrix,
    /// From the embedding of a token to a second summand.
    pub(crate) projection: Linear,
    /// Of each layer's part of that summand.
    pub(crate) norm: Norm,
}

/// How a layer adds its input to the stream.
pub(crate) struct LayerInput {
    pub(crate) gate: Linear,
    pub(crate) projection: Linear,
    pub(crate) norm: Norm,
}

impl PerLayerInputs {
    pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let (size, width) = (config.per_layer_input, config.embedding_length);
        if size == 0 {
            return Ok(None);
        }
        let all = config.layers * size;
        let tokens = tensors.matrix("per_layer_token_embd.weight", all, config.embedding_rows())?;
        tokens.resident(false);
        Ok(Some(Self {
            tokens,
            projection: tensors.linear("per_layer_model_proj", width, all)?,
            norm: tensors.norm(config, "per_layer_proj_norm", size)?,
        }))
    }
}

impl LayerInput {
    pub(super) fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let (size, width) = (config.per_layer_input, config.embedding_length);
        if size == 0 {
            return Ok(None);
        }
        let name = |part: &str| format!("blk.{index}.{part}");
        Ok(Some(Self {
            gate: tensors.linear(&name("inp_gate"), width, size)?,
            projection: tensors.linear(&name("proj"), size, width)?,
            norm: tensors.norm(config, &name("post_norm"), width)?,
        }))
    }

    pub(super) fn matrices(&self) -> [&Matrix; 2] {
        [&self.gate.matrix, &self.projection.matrix]
    }
}
