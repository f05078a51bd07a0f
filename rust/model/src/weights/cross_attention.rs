//! The weights of layers that attend to pictures.

use llamacpu_kernels::matmul::Matrix;

use super::feed_forward::Network;
use super::{Linear, Norm};
use crate::tensors::Tensors;
use crate::{Config, Error};

/// A layer that attends to the states of pictures.
pub(crate) struct CrossAttention {
    pub(crate) attention_norm: Norm,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    /// Of each head, with shared weights.
    pub(crate) query_norm: Norm,
    pub(crate) key_norm: Norm,
    pub(crate) output: Linear,
    /// Its hyperbolic tangent is the factor of what attention adds.
    pub(crate) attention_gate: f32,
    pub(crate) feed_forward_norm: Norm,
    pub(crate) network: Network,
    /// The same for the feed-forward network.
    pub(crate) feed_forward_gate: f32,
}

impl CrossAttention {
    pub(super) fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Option<Box<Self>>, Error> {
        if !config.cross_layers.contains(&index) {
            return Ok(None);
        }
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, head) = (config.embedding_length, config.key_size);
        let (queries, keys) = (config.cross_heads * head, config.cross_kv_heads * head);
        let gate = |tensors: &mut Tensors, part: &str| Ok::<_, Error>(tensors.vector(&name(part), 1)?[0]);
        let network = |part: &str| format!("blk.{index}.ffn_{part}");
        Ok(Some(Box::new(Self {
            attention_norm: tensors.norm(config, &name("attn_norm"), width)?,
            query: tensors.linear(&name("cross_attn_q_proj"), width, queries)?,
            key: tensors.linear(&name("cross_attn_k_proj"), width, keys)?,
            value: tensors.linear(&name("cross_attn_v_proj"), width, keys)?,
            query_norm: tensors.norm(config, &name("cross_attn_q_norm"), head)?,
            key_norm: tensors.norm(config, &name("cross_attn_k_norm"), head)?,
            output: tensors.linear(&name("cross_attn_o_proj"), queries, width)?,
            attention_gate: gate(tensors, "cross_attn_attn_gate")?,
            feed_forward_norm: tensors.norm(config, &name("ffn_norm"), width)?,
            network: Network::load(config, &network, config.cross_feed_forward, tensors)?,
            feed_forward_gate: gate(tensors, "cross_attn_mlp_gate")?,
        })))
    }

    pub(super) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = [&self.query, &self.key, &self.value, &self.output];
        linears.into_iter().map(|linear| &linear.matrix).chain(self.network.matrices())
    }
}
