//! The weights of attention.

use llamacpu_kernels::attention::alibi_slopes;
use llamacpu_kernels::matmul::Matrix;

use super::{LatentAttention, Linear, Norm, RecurrentLayer, SharedRows};
use crate::config::{AttentionGate, Input, LayerConfig, QueryKeyNorm};
use crate::tensors::Tensors;
use crate::{Config, Error};

/// The part of a layer that mixes tokens.
pub(crate) enum Attention {
    /// Attention with separate keys and values.
    Heads(Box<HeadAttention>),
    /// Attention whose keys and values are computed from a shared latent vector.
    Latent(Box<LatentAttention>),
    /// Attention whose rows are keys and values at once.
    Shared(Box<SharedRows>),
    /// A matrix in place of attention.
    Linear(Linear),
    /// A gated delta network in place of attention.
    Recurrent(Box<RecurrentLayer>),
}

/// Grouped-query attention: query heads share key and value heads.
pub(crate) struct HeadAttention {
    pub(crate) query: Linear,
    /// `None` in layers that read the keys and values of another one.
    pub(crate) key: Option<Linear>,
    /// `None` where the projected keys are the values, and as above.
    pub(crate) value: Option<Linear>,
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

impl Attention {
    pub(super) fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, sizes) = (config.embedding_length, config.layer(index));
        if let Some(net) = sizes.delta_net {
            return Ok(Some(Self::Recurrent(Box::new(RecurrentLayer::load(config, net, &name, tensors)?))));
        }
        if sizes.heads == 0 {
            return Ok(None);
        }
        if sizes.kv_heads == 0 {
            return Ok(Some(Self::Linear(tensors.linear(&name("attn_output"), width, width)?)));
        }
        if config.shared_rows {
            return Ok(Some(Self::Shared(Box::new(SharedRows::load(config, &sizes, &name, tensors)?))));
        }
        if sizes.latent_size > 0 {
            return Ok(Some(Self::Latent(Box::new(LatentAttention::load(config, &sizes, &name, tensors)?))));
        }
        let gate = if config.attention_gate == AttentionGate::Query { sizes.attended_width() } else { 0 };
        let rows = [sizes.query_width() + gate, sizes.key_width(), sizes.value_width()];
        let inputs = if config.input == Input::Pairs { 2 * width } else { width };
        let own = sizes.lent.is_none() && sizes.kv_source == index;
        let (query, key, value) = if own && tensors.has(&name("attn_qkv.weight")) {
            let [query, key, value] = three(tensors.linears(&name("attn_qkv"), inputs, &rows)?)?;
            (query, Some(key), (!sizes.keys_as_values).then_some(value))
        } else {
            let mut linear = |part: &str, rows| tensors.linear(&name(part), inputs, rows);
            let query = linear("attn_q", rows[0])?;
            let key = own.then(|| linear("attn_k", rows[1])).transpose()?;
            (query, key, (own && !sizes.keys_as_values).then(|| linear("attn_v", rows[2])).transpose()?)
        };
        Ok(Some(Self::Heads(Box::new(HeadAttention {
            query,
            key,
            value,
            norms: QueryKeyNorms::load(config, (&sizes, own), &name, tensors)?,
            sinks: tensors.optional_vector(&name("attn_sinks.weight"), sizes.heads)?,
            slopes: (config.alibi > 0.0).then(|| alibi_slopes(sizes.heads, config.alibi)),
            gate: match config.attention_gate {
                AttentionGate::None | AttentionGate::Query => None,
                AttentionGate::Own => Some(tensors.linear(&name("attn_gate"), width, sizes.attended_width())?),
            },
            output: tensors.linear(&name("attn_output"), sizes.attended_width(), width)?,
        }))))
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Heads(heads) => {
                let inputs = [&heads.query].into_iter().chain(&heads.key).chain(&heads.value).chain(&heads.gate);
                inputs.chain([&heads.output]).map(|linear| &linear.matrix).collect()
            }
            Self::Latent(latent) => latent.matrices(),
            Self::Shared(shared) => shared.matrices(),
            Self::Linear(linear) => vec![&linear.matrix],
            Self::Recurrent(layer) => layer.matrices(),
        }
    }
}

impl HeadAttention {
    /// The maps of keys and values.
    ///
    /// # Errors
    /// `Error::Model` if the layer lacks one of them.
    pub(crate) fn own(&self) -> Result<[&Linear; 2], Error> {
        let both = self.key.as_ref().zip(self.value.as_ref());
        both.map(|(key, value)| [key, value]).ok_or_else(|| {
            Error::Model("a layer has no matrix of its own for keys or for values: expected both".to_owned())
        })
    }
}

impl QueryKeyNorms {
    fn load(
        config: &Config,
        (sizes, own): (&LayerConfig, bool),
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
                    Ok::<_, Error>(Some(Norm { weight, bias: None, kind: config.norm, epsilon: config.norm_epsilon }))
                };
                return Ok(Self {
                    query: table("attn_q_norm.weight", sizes.heads)?,
                    key: if own { table("attn_k_norm.weight", sizes.kv_heads)? } else { None },
                });
            }
        };
        Ok(Self {
            query: Some(tensors.norm(config, &name("attn_q_norm"), query)?),
            key: own.then(|| tensors.norm(config, &name("attn_k_norm"), key)).transpose()?,
        })
    }
}

fn three(linears: Vec<Linear>) -> Result<[Linear; 3], Error> {
    linears.try_into().map_err(|_| Error::Model("a fused attention matrix must have three parts".to_owned()))
}
