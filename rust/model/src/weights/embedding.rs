//! The weights that form the initial state of a token.

use std::sync::Arc;

use llamacpu_kernels::matmul::Matrix;

use super::Norm;
use crate::config::Input;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// The embeddings that are looked up and summed for a token.
pub(crate) struct Embedding {
    /// vocabulary × width; looked up row by row. Absent in some models that take rows in place of tokens.
    pub(crate) tokens: Option<Arc<Matrix>>,
    /// positions × width, row-major.
    pub(crate) positions: Option<Vec<f32>>,
    /// The type embeddings of the tokens of a text and of the second of two texts: at most two rows of `width` elements.
    pub(crate) token_types: Vec<Vec<f32>>,
    /// Applied to the sum.
    pub(crate) norm: Option<Norm>,
}

impl Embedding {
    pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<Self, Error> {
        let width = config.embedding_length;
        let present = config.input == Input::Tokens || tensors.has("token_embd.weight");
        let tokens =
            present.then(|| tensors.matrix("token_embd.weight", width, config.embedding_rows())).transpose()?;
        let positions = config.learned_positions;
        let positions = positions.then(|| tensors.table("position_embd.weight", width, config.context_length));
        let types = (config.token_types > 0).then(|| tensors.matrix("token_types.weight", width, config.token_types));
        let mut token_types = Vec::new();
        if let Some(types) = types.transpose()? {
            for index in 0..types.rows().min(2) {
                let mut row = crate::error::zeroed(Some(width), "weights")?;
                types.row(index, &mut row)?;
                token_types.push(row);
            }
        }
        Ok(Self {
            tokens: tokens.map(Arc::new),
            positions: positions.transpose()?,
            token_types,
            norm: match (config.embedding_norm, config.embedding_norm_weights) {
                (false, _) => None,
                (true, false) => Some(Norm::unweighted(config, width)?),
                (true, true) => Some(tensors.norm(config, "token_embd_norm", width)?),
            },
        })
    }

    /// The type embedding of a token, depending on whether it belongs to the second of two texts.
    pub(crate) fn token_type(&self, second: bool) -> Option<&[f32]> {
        token_type(&self.token_types, second)
    }
}

/// The row of a type of token; a model with one type has the same for both texts.
pub(crate) fn token_type(rows: &[Vec<f32>], second: bool) -> Option<&[f32]> {
    let last = rows.len().checked_sub(1)?;
    rows.get(last.min(usize::from(second))).map(Vec::as_slice)
}

/// The embeddings of relative positions.
pub(crate) struct DistanceTable {
    /// twice the span × width, row-major, from the farthest key behind a query to the farthest before it.
    pub(crate) rows: Vec<f32>,
    pub(crate) norm: Norm,
}

impl DistanceTable {
    pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        if config.relative_positions == 0 {
            return Ok(None);
        }
        let width = config.embedding_length;
        let rows = tensors.table("rel_embd.weight", width, 2 * config.relative_span())?;
        Ok(Some(Self { rows, norm: tensors.norm(config, "rel_embd_norm", width)? }))
    }
}
