//! From tensor names to matrices and vectors: every name, shape, size and format is checked here, once.

use std::sync::Arc;

use llamacpu_kernels::matmul::Matrix;

use crate::tensors::{TensorInfo, Tensors};
use crate::{Config, Error};

/// A matrix with an optional bias: `y = W x + b`.
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    /// One number a row of the matrix.
    pub(crate) bias: Option<Vec<f32>>,
}

/// A gated feed-forward network: `down(silu(gate(x)) * up(x))`.
pub(crate) struct SwiGlu {
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// What follows attention in a layer.
pub(crate) enum FeedForward {
    Dense(Box<SwiGlu>),
    Experts { router: Linear, experts: Vec<SwiGlu> },
}

/// One layer of the transformer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) feed_forward: FeedForward,
}

/// All weights of a model.
pub(crate) struct Weights {
    /// vocabulary × embedding; looked up row by row.
    pub(crate) embedding: Arc<Matrix>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// vocabulary × embedding; the same matrix as `embedding` where the file has no own one.
    pub(crate) output: Arc<Matrix>,
    /// Divisors of the rotation angles, one a pair.
    pub(crate) rope_factors: Option<Vec<f32>>,
}

impl Weights {
    /// Finds and checks every tensor that `config` asks for.
    pub(crate) fn load(config: &Config, tensors: &mut Tensors) -> Result<Self, Error> {
        let (width, vocabulary) = (config.embedding_length, config.vocab_size);
        let embedding = Arc::new(tensors.matrix("token_embd.weight", width, vocabulary)?);
        let output = if tensors.has("output.weight") {
            embedding.resident(false);
            Arc::new(tensors.matrix("output.weight", width, vocabulary)?)
        } else {
            // Its rows are looked up in the file even after they were packed: a page a token, read again when needed.
            embedding.keep_rows();
            Arc::clone(&embedding)
        };
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(Layer::load(config, index, tensors)?);
        }
        let output_norm = tensors.vector("output_norm.weight", width)?;
        let rope_factors = tensors.optional_vector("rope_freqs.weight", config.rope.size / 2)?;
        Ok(Self { embedding, layers, output_norm, output, rope_factors })
    }

    /// Bytes of the matrices that a token may go through: those of all layers, all experts counted, and the output.
    pub(crate) fn nbytes(&self) -> usize {
        self.parts().flatten().map(Matrix::nbytes).sum()
    }

    /// The matrices part by part: one part a layer, then the output.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Vec<&Matrix>> {
        self.layers.iter().map(Layer::matrices).chain(std::iter::once(vec![&*self.output]))
    }
}

impl SwiGlu {
    fn linears(&self) -> [&Linear; 3] {
        [&self.gate, &self.up, &self.down]
    }
}

impl FeedForward {
    /// Every projection: the router first, then network by network.
    fn linears(&self) -> Vec<&Linear> {
        match self {
            Self::Dense(network) => network.linears().to_vec(),
            Self::Experts { router, experts } => {
                std::iter::once(router).chain(experts.iter().flat_map(SwiGlu::linears)).collect()
            }
        }
    }
}

impl Layer {
    /// Every matrix of the layer, in the order in which a token meets them.
    pub(crate) fn matrices(&self) -> Vec<&Matrix> {
        let attention = [&self.query, &self.key, &self.value, &self.attention_output];
        attention.into_iter().chain(self.feed_forward.linears()).map(|linear| &linear.matrix).collect()
    }

    fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let width = config.embedding_length;
        let sizes = config.layer(index);
        let rows = [sizes.query_width(), sizes.key_width(), sizes.value_width()];
        let (query, key, value) = if tensors.has(&name("attn_qkv.weight")) {
            let [query, key, value] = three(tensors.linears(&name("attn_qkv"), width, &rows)?)?;
            (query, key, value)
        } else {
            (
                tensors.linear(&name("attn_q"), width, rows[0])?,
                tensors.linear(&name("attn_k"), width, rows[1])?,
                tensors.linear(&name("attn_v"), width, rows[2])?,
            )
        };
        Ok(Self {
            attention_norm: tensors.vector(&name("attn_norm.weight"), width)?,
            query,
            key,
            value,
            attention_output: tensors.linear(&name("attn_output"), sizes.attended_width(), width)?,
            feed_forward_norm: tensors.vector(&name("ffn_norm.weight"), width)?,
            feed_forward: FeedForward::load(config, index, tensors)?,
        })
    }
}

impl FeedForward {
    fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, inner) = (config.embedding_length, config.layer(index).feed_forward);
        if config.experts == 0 || !tensors.has(&name("ffn_gate_inp.weight")) {
            return Ok(Self::Dense(Box::new(SwiGlu {
                gate: tensors.linear(&name("ffn_gate"), width, inner)?,
                up: tensors.linear(&name("ffn_up"), width, inner)?,
                down: tensors.linear(&name("ffn_down"), inner, width)?,
            })));
        }
        let router = tensors.linear(&name("ffn_gate_inp"), width, config.experts)?;
        let gates_and_ups = if tensors.has(&name("ffn_gate_up_exps.weight")) {
            let mut halves =
                tensors.stack(&name("ffn_gate_up_exps.weight"), width, &[inner, inner], config.experts)?.into_iter();
            let mut pairs = Vec::with_capacity(config.experts);
            while let (Some(gate), Some(up)) = (halves.next(), halves.next()) {
                pairs.push((gate, up));
            }
            pairs
        } else {
            let gates = expert_matrices(tensors, index, "ffn_gate", width, inner, config.experts)?;
            let ups = expert_matrices(tensors, index, "ffn_up", width, inner, config.experts)?;
            gates.into_iter().zip(ups).collect()
        };
        let downs = expert_matrices(tensors, index, "ffn_down", inner, width, config.experts)?;
        let experts = gates_and_ups.into_iter().zip(downs).map(|((gate, up), down)| SwiGlu {
            gate: Linear::plain(gate),
            up: Linear::plain(up),
            down: Linear::plain(down),
        });
        Ok(Self::Experts { router, experts: experts.collect() })
    }
}

impl Linear {
    fn plain(matrix: Matrix) -> Self {
        Self { matrix, bias: None }
    }
}

/// One matrix an expert: slices of a stacked tensor, or the single tensors of old Mixtral files.
fn expert_matrices(
    tensors: &mut Tensors,
    layer: usize,
    part: &str,
    columns: usize,
    rows: usize,
    experts: usize,
) -> Result<Vec<Matrix>, Error> {
    if tensors.has(&format!("blk.{layer}.{part}.0.weight")) {
        return (0..experts)
            .map(|expert| tensors.matrix(&format!("blk.{layer}.{part}.{expert}.weight"), columns, rows))
            .collect();
    }
    tensors.stack(&format!("blk.{layer}.{part}_exps.weight"), columns, &[rows], experts)
}

fn three(linears: Vec<Linear>) -> Result<[Linear; 3], Error> {
    linears.try_into().map_err(|_| Error::Model("a fused attention matrix must have three parts".to_owned()))
}

impl Tensors<'_> {
    /// A matrix `NAME.weight` with its optional `NAME.bias`.
    fn linear(&mut self, name: &str, columns: usize, rows: usize) -> Result<Linear, Error> {
        let matrix = self.matrix(&format!("{name}.weight"), columns, rows)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { matrix, bias })
    }

    /// The parts of one matrix `NAME.weight` that holds several below each other, each with its part of `NAME.bias`.
    fn linears(&mut self, name: &str, columns: usize, parts: &[usize]) -> Result<Vec<Linear>, Error> {
        let matrices = self.stack(&format!("{name}.weight"), columns, parts, 1)?;
        let bias = self.optional_vector(&format!("{name}.bias"), parts.iter().sum())?;
        let mut start = 0;
        let mut linears = Vec::with_capacity(parts.len());
        for (matrix, &rows) in matrices.into_iter().zip(parts) {
            let bias = bias.as_ref().map(|bias| bias[start..start + rows].to_vec());
            linears.push(Linear { matrix, bias });
            start += rows;
        }
        Ok(linears)
    }
}

/// Tensors that were not read and change the result of a layer that is run: ignoring them would give wrong text.
pub(crate) fn refuse_unread(config: &Config, unread: &[&TensorInfo]) -> Result<(), Error> {
    let belongs_to_a_layer = |tensor: &&&TensorInfo| {
        let mut parts = tensor.name.splitn(3, '.');
        let layer = (parts.next() == Some("blk")).then(|| parts.next().and_then(|number| number.parse::<usize>().ok()));
        let rest = parts.next().unwrap_or_default();
        layer.flatten().is_some_and(|layer| layer < config.layers)
            // Frequencies that old converters stored and no reader uses: they follow from the metadata.
            && !matches!(rest, "attn_rot_embd.weight" | "rope_freqs.weight" | "attention.rope.freqs")
    };
    let names: Vec<_> = unread.iter().filter(belongs_to_a_layer).map(|tensor| tensor.name.as_str()).take(4).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::Model(format!(
        "the architecture {:?} has no use for the tensors {}: the file was written for another graph, and running it \
         without them would give wrong results",
        config.architecture,
        names.join(", ")
    )))
}
