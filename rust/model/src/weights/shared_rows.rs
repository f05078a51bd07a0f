//! The weights of attention whose rows are keys and values at once, and of their compressed entries (DeepSeek V4).

use llamacpu_kernels::matmul::Matrix;

use super::{HeadMatrices, Linear, Norm};
use crate::config::LayerConfig;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// Attention over rows that all heads share as key and value.
pub(crate) struct SharedRows {
    /// To the latent vector of the queries.
    pub(crate) query_down: Linear,
    pub(crate) query_norm: Norm,
    pub(crate) query_up: Linear,
    pub(crate) row: Linear,
    pub(crate) row_norm: Norm,
    /// A score per head that takes part in the softmax but has no value.
    pub(crate) sinks: Vec<f32>,
    /// For each group of heads, a matrix.
    pub(crate) groups: HeadMatrices,
    pub(crate) output: Linear,
    /// Makes the entries that stand for several tokens; `None` if the layer sees only its window.
    pub(crate) compressor: Option<Compressor>,
    /// Chooses which of them are seen; `None` if all are.
    pub(crate) chooser: Option<Chooser>,
}

/// Makes one entry of several tokens.
pub(crate) struct Compressor {
    pub(crate) value: Linear,
    pub(crate) gate: Linear,
    /// tokens × width of the gates: added to the gates by the token's place in the window
    pub(crate) bias: Vec<f32>,
    pub(crate) norm: Norm,
}

/// Ranks compressed entries by entries of its own.
pub(crate) struct Chooser {
    /// From the latent vector of the queries.
    pub(crate) query: Linear,
    /// The factor of each head's score.
    pub(crate) weights: Linear,
    pub(crate) compressor: Compressor,
}

impl SharedRows {
    pub(super) fn load(
        config: &Config,
        sizes: &LayerConfig,
        name: &dyn Fn(&str) -> String,
        tensors: &mut Tensors,
    ) -> Result<Self, Error> {
        let (width, between) = (config.embedding_length, config.query_latent_size);
        let (count, rank) = (config.output_groups, config.output_rank);
        let tensor = name("attn_output_a.weight");
        let columns = sizes.attended_width() / count;
        let matrices = tensors.fused(&tensor, columns, &[rank], count)?;
        let slots = (0..count).map(|group| tensors.slot(&tensor, (rank, columns), (group * rank, 0))).collect();
        let compressed = |size| CompressorSize { size, series: if sizes.indexer { 2 } else { 1 } };
        Ok(Self {
            query_down: tensors.linear(&name("attn_q_a"), width, between)?,
            query_norm: tensors.norm(config, &name("attn_q_a_norm"), between)?,
            query_up: tensors.linear(&name("attn_q_b"), between, sizes.query_width())?,
            row: tensors.linear(&name("attn_kv"), width, sizes.key_size)?,
            row_norm: tensors.norm(config, &name("attn_kv_a_norm"), sizes.key_size)?,
            sinks: tensors.vector(&name("attn_sinks.weight"), sizes.heads)?,
            groups: HeadMatrices { matrices, slots },
            output: tensors.linear(&name("attn_output_b"), count * rank, width)?,
            compressor: (sizes.compression > 0)
                .then(|| {
                    let name = |part: &str| name(&format!("attn_compressor_{part}"));
                    Compressor::load(config, sizes, compressed(sizes.key_size), &name, tensors)
                })
                .transpose()?,
            chooser: sizes
                .indexer
                .then(|| {
                    let (heads, size) = (config.indexer_heads, config.indexer_size);
                    let part = |part: &str| name(&format!("indexer_compressor_{part}"));
                    Ok::<_, Error>(Chooser {
                        query: tensors.linear(&name("indexer.attn_q_b"), between, heads * size)?,
                        weights: tensors.linear(&name("indexer.proj"), width, heads)?,
                        compressor: Compressor::load(config, sizes, compressed(size), &part, tensors)?,
                    })
                })
                .transpose()?,
        })
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        let mut matrices = vec![&self.query_down.matrix, &self.query_up.matrix, &self.row.matrix];
        let of_chooser = self.chooser.iter().map(|chooser| &chooser.compressor);
        for compressor in self.compressor.iter().chain(of_chooser) {
            matrices.extend([&compressor.value.matrix, &compressor.gate.matrix]);
        }
        if let Some(chooser) = &self.chooser {
            matrices.extend([&chooser.query.matrix, &chooser.weights.matrix]);
        }
        matrices.extend(&self.groups.matrices);
        matrices.push(&self.output.matrix);
        matrices
    }
}

/// Elements of an entry, and how many series of them tokens have.
struct CompressorSize {
    size: usize,
    series: usize,
}

impl Compressor {
    fn load(
        config: &Config,
        sizes: &LayerConfig,
        CompressorSize { size, series }: CompressorSize,
        name: &dyn Fn(&str) -> String,
        tensors: &mut Tensors,
    ) -> Result<Self, Error> {
        let (width, rows) = (config.embedding_length, series * size);
        Ok(Self {
            value: tensors.linear(&name("kv"), width, rows)?,
            gate: tensors.linear(&name("gate"), width, rows)?,
            bias: tensors.table(&name("ape.weight"), rows, sizes.compression)?,
            norm: tensors.norm(config, &name("norm"), size)?,
        })
    }
}
