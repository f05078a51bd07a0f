//! The weights of latent attention, and of the indexers that choose keys for it.

use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::memory;

use super::{Linear, Norm};
use crate::config::{LayerConfig, NormKind};
use crate::error::zeroed;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// Attention over latent vectors.
pub(crate) struct LatentAttention {
    pub(crate) query: LatentQuery,
    /// Produces the latent vector, followed by the rotated part of the keys.
    pub(crate) latent: Linear,
    pub(crate) latent_norm: Norm,
    /// For each head, maps its query to latent space.
    pub(crate) key: HeadMatrices,
    /// For each head, maps latent space to its value.
    pub(crate) value: HeadMatrices,
    /// Chooses the keys that are seen; `None` if those are seen that the last indexer chose, or all.
    pub(crate) indexer: Option<Indexer>,
    pub(crate) output: Linear,
}

/// A few heads that rank keys.
pub(crate) struct Indexer {
    /// From the latent vector of the queries.
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) key_norm: Norm,
    /// The factor of each head's score.
    pub(crate) weights: Linear,
}

/// A matrix for each head.
pub(crate) struct HeadMatrices {
    pub(crate) matrices: Vec<Matrix>,
    /// Their numbers among those that adapters can change.
    pub(crate) slots: Vec<usize>,
}

/// How queries are computed.
pub(crate) enum LatentQuery {
    /// By one matrix.
    Direct(Linear),
    /// Through a latent vector.
    Through { down: Box<Linear>, norm: Norm, up: Box<Linear> },
}

impl LatentAttention {
    pub(super) fn load(
        config: &Config,
        sizes: &LayerConfig,
        name: &dyn Fn(&str) -> String,
        tensors: &mut Tensors,
    ) -> Result<Self, Error> {
        let (width, latent, turned) = (config.embedding_length, sizes.latent_size, config.rope.size);
        let between = config.query_latent_size;
        let query = if between == 0 {
            LatentQuery::Direct(tensors.linear(&name("attn_q"), width, sizes.query_width())?)
        } else {
            LatentQuery::Through {
                down: Box::new(tensors.linear(&name("attn_q_a"), width, between)?),
                norm: tensors.norm(config, &name("attn_q_a_norm"), between)?,
                up: Box::new(tensors.linear(&name("attn_q_b"), between, sizes.query_width())?),
            }
        };
        let (still, value_size) = (sizes.key_size - turned, sizes.value_size);
        let heads = 0..sizes.heads;
        let (key, value) = if tensors.has(&name("attn_kv_b.weight")) {
            let tensor = name("attn_kv_b.weight");
            let (keys, values) = keys_and_values(tensors.fused(&tensor, latent, &[still, value_size], sizes.heads)?)?;
            let first = |head| head * (still + value_size);
            let key_slots =
                heads.clone().map(|head| tensors.transposed_slot(&tensor, (latent, still), first(head))).collect();
            let slots = heads.map(|head| tensors.slot(&tensor, (value_size, latent), (first(head) + still, 0)));
            (
                HeadMatrices { matrices: keys, slots: key_slots },
                HeadMatrices { slots: slots.collect(), matrices: values },
            )
        } else {
            let mut stack = |tensor: &str, columns: usize, rows: usize| {
                let matrices = tensors.stack(tensor, columns, &[rows], sizes.heads)?;
                let slots = heads.clone().map(|head| tensors.slot(tensor, (rows, columns), (0, head))).collect();
                Ok::<_, Error>(HeadMatrices { matrices, slots })
            };
            (stack(&name("attn_k_b.weight"), still, latent)?, stack(&name("attn_v_b.weight"), latent, value_size)?)
        };
        Ok(Self {
            query,
            latent: tensors.linear(&name("attn_kv_a_mqa"), width, latent + turned)?,
            latent_norm: tensors.norm(config, &name("attn_kv_a_norm"), latent)?,
            key,
            value,
            indexer: sizes.indexer.then(|| Indexer::load(config, name, tensors)).transpose()?,
            output: tensors.linear(&name("attn_output"), sizes.attended_width(), width)?,
        })
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        let mut matrices = match &self.query {
            LatentQuery::Direct(query) => vec![&query.matrix],
            LatentQuery::Through { down, up, .. } => vec![&down.matrix, &up.matrix],
        };
        matrices.push(&self.latent.matrix);
        matrices.extend(self.key.matrices.iter().chain(&self.value.matrices));
        if let Some(indexer) = &self.indexer {
            matrices.extend([&indexer.query, &indexer.key, &indexer.weights].map(|linear| &linear.matrix));
        }
        matrices.push(&self.output.matrix);
        matrices
    }
}

impl Indexer {
    fn load(config: &Config, name: &dyn Fn(&str) -> String, tensors: &mut Tensors) -> Result<Self, Error> {
        let (width, heads, size) = (config.embedding_length, config.indexer_heads, config.indexer_size);
        let key_norm = Norm {
            weight: tensors.vector(&name("indexer.k_norm.weight"), size)?,
            bias: tensors.optional_vector(&name("indexer.k_norm.bias"), size)?,
            kind: NormKind::Layer,
            epsilon: config.indexer_epsilon,
        };
        Ok(Self {
            query: tensors.linear(&name("indexer.attn_q_b"), config.query_latent_size, heads * size)?,
            key: tensors.linear(&name("indexer.attn_k"), width, size)?,
            key_norm,
            weights: tensors.linear(&name("indexer.proj"), width, heads)?,
        })
    }
}

/// Splits the matrices that lead from latent space alternately to the keys and to the values of each head, and returns
/// them for the absorbed form, where keys are transposed. Quantization blocks run along rows, so the transposed
/// matrices become 32-bit floats, which represent the same values.
fn keys_and_values(matrices: Vec<Matrix>) -> Result<(Vec<Matrix>, Vec<Matrix>), Error> {
    let heads = matrices.len() / 2;
    let mut keys = memory::room(heads, "the matrices of heads")?;
    let mut values = memory::room(heads, "the matrices of heads")?;
    for (index, matrix) in matrices.into_iter().enumerate() {
        if index % 2 == 0 {
            keys.push(transposed(&matrix)?);
        } else {
            values.push(matrix);
        }
    }
    Ok((keys, values))
}

/// The transposed matrix, in 32-bit floats.
pub(crate) fn transposed(matrix: &Matrix) -> Result<Matrix, Error> {
    const PURPOSE: &str = "transposed weights";
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut numbers = zeroed(rows.checked_mul(columns), PURPOSE)?;
    for (row, numbers) in numbers.chunks_exact_mut(columns).enumerate() {
        matrix.row(row, numbers)?;
    }
    let mut bytes = memory::room(numbers.len().saturating_mul(size_of::<f32>()), PURPOSE)?;
    for column in 0..columns {
        let numbers = numbers[column..].iter().step_by(columns);
        bytes.extend(numbers.flat_map(|number| number.to_le_bytes()));
    }
    Ok(Matrix::new(Format::F32, columns, rows, Bytes::owned(bytes))?)
}
