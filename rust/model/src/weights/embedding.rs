//! The weights that make the first state of a token.

use std::sync::Arc;

use llamacpu_kernels::matmul::Matrix;

use super::Norm;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// What is looked up and added up for a token.
pub(crate) struct Embedding {
    /// vocabulary × width; looked up row by row.
    pub(crate) tokens: Arc<Matrix>,
    /// positions × width, row by row.
    pub(crate) positions: Option<Vec<f32>>,
    /// width: the type that all tokens have.
    pub(crate) token_type: Option<Vec<f32>>,
    /// Of the sum.
    pub(crate) norm: Option<Norm>,
}

impl Embedding {
    pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<Self, Error> {
        let width = config.embedding_length;
        let tokens = Arc::new(tensors.matrix("token_embd.weight", width, config.embedding_rows())?);
        let positions = config.learned_positions;
        let positions = positions.then(|| tensors.table("position_embd.weight", width, config.context_length));
        let types = (config.token_types > 0).then(|| tensors.matrix("token_types.weight", width, config.token_types));
        let first_row = |types: Matrix| {
            let mut row = crate::error::zeroed(Some(width), "weights")?;
            types.row(0, &mut row)?;
            Ok::<_, Error>(row)
        };
        Ok(Self {
            tokens,
            positions: positions.transpose()?,
            token_type: types.transpose()?.map(first_row).transpose()?,
            norm: config.embedding_norm.then(|| tensors.norm(config, "token_embd_norm", width)).transpose()?,
        })
    }
}

/// The embeddings of relative positions.
pub(crate) struct DistanceTable {
    /// twice the span × width, row by row, from the farthest key behind a query to the farthest before it.
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
