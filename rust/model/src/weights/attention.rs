//! The weights of attention.

use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::memory;

use super::{Linear, Norm};
use crate::config::{LayerConfig, QueryKeyNorm};
use crate::error::zeroed;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// What mixes the tokens of a layer.
pub(crate) enum Attention {
    /// Attention with keys and values of its own.
    Heads(Box<HeadAttention>),
    /// Attention whose keys and values are made of a common latent vector.
    Latent(Box<LatentAttention>),
    /// A matrix in the place of attention.
    Linear(Linear),
}

/// Attention of query heads that share key and value heads.
pub(crate) struct HeadAttention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) norms: QueryKeyNorms,
    /// A score for each head that takes part in the softmax and has no value.
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) output: Linear,
}

/// Norms of queries and keys; both absent where none has weights.
pub(crate) struct QueryKeyNorms {
    pub(crate) query: Option<Norm>,
    pub(crate) key: Option<Norm>,
}

/// Attention over latent vectors.
pub(crate) struct LatentAttention {
    pub(crate) query: LatentQuery,
    /// Latent vector, then the part of the keys that is rotated.
    pub(crate) latent: Linear,
    pub(crate) latent_norm: Norm,
    /// A head's query to latent space, for each head.
    pub(crate) key: Vec<Matrix>,
    /// From latent space to a head's value, for each head.
    pub(crate) value: Vec<Matrix>,
    pub(crate) output: Linear,
}

/// What queries are made of.
pub(crate) enum LatentQuery {
    /// One matrix.
    Direct(Linear),
    /// A latent vector.
    Through { down: Linear, norm: Norm, up: Linear },
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
            output: tensors.linear(&name("attn_output"), sizes.attended_width(), width)?,
        }))))
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Heads(heads) => {
                vec![&heads.query.matrix, &heads.key.matrix, &heads.value.matrix, &heads.output.matrix]
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
            QueryKeyNorm::Head => (sizes.key_size, sizes.key_size),
            QueryKeyNorm::Width => (sizes.query_width(), sizes.key_width()),
            QueryKeyNorm::EachHead => {
                let mut table = |part: &str, heads: usize| {
                    let weight = tensors.table(&name(part), sizes.key_size, heads)?;
                    Ok::<_, Error>(Some(Norm { weight, bias: None }))
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
                down: tensors.linear(&name("attn_q_a"), width, between)?,
                norm: tensors.norm(config, &name("attn_q_a_norm"), between)?,
                up: tensors.linear(&name("attn_q_b"), between, sizes.query_width())?,
            }
        };
        let (still, value_size) = (sizes.key_size - turned, sizes.value_size);
        let (key, value) = if tensors.has(&name("attn_kv_b.weight")) {
            keys_and_values(tensors.fused(&name("attn_kv_b.weight"), latent, &[still, value_size], sizes.heads)?)?
        } else {
            (
                tensors.stack(&name("attn_k_b.weight"), still, &[latent], sizes.heads)?,
                tensors.stack(&name("attn_v_b.weight"), latent, &[value_size], sizes.heads)?,
            )
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
        matrices.extend(self.key.iter().chain(&self.value));
        matrices.push(&self.output.matrix);
        matrices
    }
}

/// From the matrices that lead from latent space to the keys and to the values of each head, in turn: those of the absorbed form.
/// Keys are the other way round there. Blocks of a quantized format lie along rows, so that those become 32-bit floats, which
/// have the same values.
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

/// The matrix with rows and columns exchanged, in 32-bit floats.
fn transposed(matrix: &Matrix) -> Result<Matrix, Error> {
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
