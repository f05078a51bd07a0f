//! The weights of attention.

use llamacpu_kernels::attention::alibi_slopes;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::memory;

use super::{Linear, Norm};
use crate::config::{AttentionGate, LayerConfig, QueryKeyNorm};
use crate::error::zeroed;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// The part of a layer that mixes tokens.
pub(crate) enum Attention {
    /// Attention with separate keys and values.
    Heads(Box<HeadAttention>),
    /// Attention whose keys and values are computed from a shared latent vector.
    Latent(Box<LatentAttention>),
    /// A matrix in place of attention.
    Linear(Linear),
}

/// Grouped-query attention: query heads share key and value heads.
pub(crate) struct HeadAttention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) norms: QueryKeyNorms,
    /// A score per head that takes part in the softmax but has no value.
    pub(crate) sinks: Option<Vec<f32>>,
    /// A slope per head of the linear biases.
    pub(crate) slopes: Option<Vec<f32>>,
    /// The logistic function of its product with the input multiplies the output of attention.
    pub(crate) gate: Option<Linear>,
    pub(crate) output: Linear,
}

/// Norms of queries and keys; `None` if they have no weights.
pub(crate) struct QueryKeyNorms {
    pub(crate) query: Option<Norm>,
    pub(crate) key: Option<Norm>,
}

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
    pub(crate) output: Linear,
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

impl Attention {
    pub(super) fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, sizes) = (config.embedding_length, config.layer(index));
        if sizes.heads == 0 {
            return Ok(None);
        }
        if sizes.kv_heads == 0 {
            return Ok(Some(Self::Linear(tensors.linear(&name("attn_output"), width, width)?)));
        }
        if sizes.latent_size > 0 {
            return Ok(Some(Self::Latent(Box::new(LatentAttention::load(config, &sizes, &name, tensors)?))));
        }
        let rows = [sizes.query_width(), sizes.key_width(), sizes.value_width()];
        let [query, key, value] = if tensors.has(&name("attn_qkv.weight")) {
            three(tensors.linears(&name("attn_qkv"), width, &rows)?)?
        } else {
            [
                tensors.linear(&name("attn_q"), width, rows[0])?,
                tensors.linear(&name("attn_k"), width, rows[1])?,
                tensors.linear(&name("attn_v"), width, rows[2])?,
            ]
        };
        Ok(Some(Self::Heads(Box::new(HeadAttention {
            query,
            key,
            value,
            norms: QueryKeyNorms::load(config, &sizes, &name, tensors)?,
            sinks: tensors.optional_vector(&name("attn_sinks.weight"), sizes.heads)?,
            slopes: (config.alibi > 0.0).then(|| alibi_slopes(sizes.heads, config.alibi)),
            gate: match config.attention_gate {
                AttentionGate::None => None,
                AttentionGate::Own => Some(tensors.linear(&name("attn_gate"), width, sizes.attended_width())?),
            },
            output: tensors.linear(&name("attn_output"), sizes.attended_width(), width)?,
        }))))
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Heads(heads) => {
                let inputs = [&heads.query, &heads.key, &heads.value].into_iter().chain(&heads.gate);
                inputs.chain([&heads.output]).map(|linear| &linear.matrix).collect()
            }
            Self::Latent(latent) => latent.matrices(),
            Self::Linear(linear) => vec![&linear.matrix],
        }
    }
}

impl QueryKeyNorms {
    fn load(
        config: &Config,
        sizes: &LayerConfig,
        name: &dyn Fn(&str) -> String,
        tensors: &mut Tensors,
    ) -> Result<Self, Error> {
        let (query, key) = match sizes.query_key_norm {
            QueryKeyNorm::None | QueryKeyNorm::Unweighted => return Ok(Self { query: None, key: None }),
            QueryKeyNorm::Head | QueryKeyNorm::RotatedHead => (sizes.key_size, sizes.key_size),
            QueryKeyNorm::Width => (sizes.query_width(), sizes.key_width()),
            QueryKeyNorm::EachHead => {
                let mut table = |part: &str, heads: usize| {
                    let weight = tensors.table(&name(part), sizes.key_size, heads)?;
                    Ok::<_, Error>(Some(Norm { weight, bias: None, epsilon: config.norm_epsilon }))
                };
                return Ok(Self {
                    query: table("attn_q_norm.weight", sizes.heads)?,
                    key: table("attn_k_norm.weight", sizes.kv_heads)?,
                });
            }
        };
        Ok(Self {
            query: Some(tensors.norm(config, &name("attn_q_norm"), query)?),
            key: Some(tensors.norm(config, &name("attn_k_norm"), key)?),
        })
    }
}

impl LatentAttention {
    fn load(
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
            output: tensors.linear(&name("attn_output"), sizes.attended_width(), width)?,
        })
    }

    fn matrices(&self) -> Vec<&Matrix> {
        let mut matrices = match &self.query {
            LatentQuery::Direct(query) => vec![&query.matrix],
            LatentQuery::Through { down, up, .. } => vec![&down.matrix, &up.matrix],
        };
        matrices.push(&self.latent.matrix);
        matrices.extend(self.key.matrices.iter().chain(&self.value.matrices));
        matrices.push(&self.output.matrix);
        matrices
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

fn three(linears: Vec<Linear>) -> Result<[Linear; 3], Error> {
    linears.try_into().map_err(|_| Error::Model("a fused attention matrix must have three parts".to_owned()))
}
