//! From tensor names to matrices and vectors: every name, shape, size and format is checked here, once.

mod attention;
mod classifier;
mod cross_attention;
mod embedding;
mod feed_forward;
mod latent;
mod layer_input;
mod parts;
mod recurrent;
mod row_inputs;
mod shared_rows;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use llamacpu_kernels::matmul::Matrix;

pub(crate) use attention::{Attention, HeadAttention};
pub(crate) use classifier::Classifier;
pub(crate) use cross_attention::CrossAttention;
pub(crate) use embedding::{DistanceTable, Embedding, token_type};
pub(crate) use feed_forward::{Beside, Experts, FeedForward, Network};
pub(crate) use latent::{HeadMatrices, Indexer, LatentAttention, LatentQuery, transposed};
pub(crate) use layer_input::{LayerInput, PerLayerInputs};
pub(crate) use parts::{Linear, Norm};
pub(crate) use recurrent::{Controls, Inputs, RecurrentLayer};
pub(crate) use row_inputs::RowWeights;
pub(crate) use shared_rows::{Chooser, Compressor, SharedRows};
pub(crate) use streams::{Link, Links};

use crate::config::{Input, Norms};
use crate::tensors::{TensorInfo, Tensors};
use crate::{Config, Error};

/// One layer of the transformer; parts that a layer lacks are `None`.
pub(crate) struct Layer {
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) attention: Option<Attention>,
    /// Applied to the attention output, or to the stream after adding it.
    pub(crate) attention_output_norm: Option<Norm>,
    /// Applied to the stream after adding the input of attention once more.
    pub(crate) second_attention_norm: Option<Norm>,
    pub(crate) feed_forward_norm: Option<Norm>,
    pub(crate) feed_forward: Option<FeedForward>,
    /// Applied to the feed-forward output, or to the stream after adding it.
    pub(crate) feed_forward_output_norm: Option<Norm>,
    /// What the layer consists of instead, if it attends to pictures.
    pub(crate) cross: Option<Box<CrossAttention>>,
    /// Adds the token's second embedding for this layer.
    pub(crate) input: Option<LayerInput>,
    /// Between the residual streams and the blocks, if there are several.
    pub(crate) links: Option<Box<Links>>,
    /// Multiplies the stream at the end.
    pub(crate) scale: Option<f32>,
}

/// All weights of a model.
pub(crate) struct Weights {
    pub(crate) embedding: Embedding,
    /// `None` if tokens enter the first layer.
    pub(crate) rows: Option<RowWeights>,
    /// `None` if tokens have no second embedding.
    pub(crate) inputs: Option<PerLayerInputs>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Option<Norm>,
    /// Between the residual streams and that norm, if there are several.
    pub(crate) output_link: Option<Link>,
    /// `None` if the final states are the result.
    pub(crate) output: Option<Output>,
    /// `None` if attention ignores distances or encodes them by rotation.
    pub(crate) distances: Option<DistanceTable>,
    /// `None` if states are not classified.
    pub(crate) classifier: Option<Classifier>,
    pub(crate) rope_factors: RopeFactors,
    /// Bytes of memory left for experts, once it is limited.
    allowance: Arc<AtomicUsize>,
}

/// Computes logits from the last hidden state.
pub(crate) struct Output {
    /// vocabulary × embedding; shared with the embedding if the file has no separate output matrix.
    pub(crate) matrix: Arc<Matrix>,
    pub(crate) bias: Option<Vec<f32>>,
    /// Number of the matrix among those that adapters can change; also if it is shared with the embedding.
    pub(crate) slot: usize,
}

/// Divisors of the rotation angles, one per pair.
#[derive(Default)]
pub(crate) struct RopeFactors {
    /// For every session.
    pub(crate) always: Option<Vec<f32>>,
    /// For sessions within the original context, and for longer ones.
    pub(crate) short_and_long: Option<(Vec<f32>, Vec<f32>)>,
}

impl Weights {
    /// Finds and checks every tensor that `config` requires.
    pub(crate) fn load(config: &Config, tensors: &mut Tensors) -> Result<Self, Error> {
        let embedding = Embedding::load(config, tensors)?;
        let output = config.output.then(|| Output::load(config, embedding.tokens.as_ref(), tensors)).transpose()?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(Layer::load(config, index, tensors)?);
        }
        let width = config.embedding_length;
        let output_norm = config.output_norm.then(|| tensors.norm(config, "output_norm", width)).transpose()?;
        Ok(Self {
            embedding,
            rows: RowWeights::load(config, tensors)?,
            inputs: PerLayerInputs::load(config, tensors)?,
            layers,
            output_norm,
            output_link: Link::of_output(config, tensors)?,
            output,
            distances: DistanceTable::load(config, tensors)?,
            classifier: Classifier::load(config, tensors)?,
            rope_factors: RopeFactors::load(config, tensors)?,
            allowance: Arc::default(),
        })
    }

    /// Size in bytes of the matrices that a token may go through: all layers, all experts counted, and the output.
    pub(crate) fn nbytes(&self) -> usize {
        self.parts().flatten().map(Matrix::nbytes).sum()
    }

    /// Keeps at most `bytes` of weights in memory: first those that every token goes through, then experts, in the order in
    /// which they are used. Products read the remaining weights from the file each time; their size in bytes is returned,
    /// as if experts were used in the order of the file.
    pub(crate) fn limit(&self, bytes: usize) -> usize {
        let routed: Vec<&Matrix> = self.layers.iter().flat_map(Layer::routed).collect();
        let all: usize = self.parts().flatten().map(Matrix::resident_bytes).sum();
        let always = all - routed.iter().map(|matrix| matrix.resident_bytes()).sum::<usize>();
        let for_experts = bytes.checked_sub(always);
        self.allowance.store(for_experts.unwrap_or(0), Ordering::Relaxed);
        self.layers.iter().filter_map(Layer::experts).for_each(|experts| experts.ration(&self.allowance));
        let (candidates, mut room) = match for_experts {
            Some(room) => (routed, room),
            None => (self.parts().flatten().collect(), bytes),
        };
        let mut left = 0;
        for matrix in candidates {
            if let Some(rest) = room.checked_sub(matrix.resident_bytes()) {
                room = rest;
            } else {
                matrix.resident(false);
                left += matrix.nbytes();
            }
        }
        left
    }

    /// The matrices of each part: one part per layer, then the output.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Vec<&Matrix>> {
        let layers = self.layers.iter().enumerate().map(|(index, layer)| {
            let before = self.inputs.iter().filter(|_| index == 0).map(|inputs| &inputs.projection.matrix);
            let rows = self.rows.iter().filter(|_| index == 0).flat_map(RowWeights::matrices);
            before.chain(rows).chain(layer.matrices()).collect()
        });
        let link = self.output_link.as_ref().map(|link| &link.map.matrix);
        layers.chain(self.output.iter().map(move |output| link.into_iter().chain([&*output.matrix]).collect()))
    }
}

impl Output {
    fn load(config: &Config, embedding: Option<&Arc<Matrix>>, tensors: &mut Tensors) -> Result<Self, Error> {
        let (width, vocabulary) = (config.embedding_length, config.vocab_size);
        let separate = tensors.has("output.weight");
        let matrix = if let Some(embedding) = embedding.filter(|_| !separate) {
            // Rows are looked up in the file even after packing: one page per token, read again when needed.
            embedding.keep_rows();
            Arc::clone(embedding)
        } else {
            if let Some(embedding) = embedding {
                embedding.resident(false);
            }
            Arc::new(tensors.matrix("output.weight", width, vocabulary)?)
        };
        let bias = tensors.optional_vector("output.bias", vocabulary)?;
        Ok(Self { matrix, bias, slot: tensors.slot("output.weight", (vocabulary, width), (0, 0)) })
    }
}

impl RopeFactors {
    fn load(config: &Config, tensors: &mut Tensors) -> Result<Self, Error> {
        let pairs = config.rope.size / 2;
        let always = tensors.optional_vector("rope_freqs.weight", pairs)?;
        let short = tensors.optional_vector("rope_factors_short.weight", pairs)?;
        let long = tensors.optional_vector("rope_factors_long.weight", pairs)?;
        Ok(Self { always, short_and_long: short.zip(long) })
    }
}

impl Layer {
    /// Every matrix of the layer, in the order in which a token goes through them.
    pub(crate) fn matrices(&self) -> Vec<&Matrix> {
        let attention = self.attention.iter().flat_map(Attention::matrices);
        let feed_forward = self.feed_forward.iter().flat_map(FeedForward::matrices);
        let crossing = self.cross.iter().flat_map(|cross| cross.matrices());
        let input = self.input.iter().flat_map(LayerInput::matrices);
        let links = self.links.iter().flat_map(|links| links.matrices());
        attention.chain(feed_forward).chain(crossing).chain(input).chain(links).collect()
    }

    /// The experts of the layer, if it has any.
    fn experts(&self) -> Option<&Experts> {
        match &self.feed_forward {
            Some(FeedForward::Experts(experts)) => Some(experts),
            Some(FeedForward::Beside(both)) => Some(&both.experts),
            _ => None,
        }
    }

    /// The matrices that only tokens routed to them go through.
    fn routed(&self) -> Vec<&Matrix> {
        self.experts().iter().flat_map(|experts| &experts.networks).flat_map(Network::matrices).collect()
    }

    fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Self, Error> {
        let sizes = config.layer(index);
        let mut norm = |wanted: bool, part: &str| {
            let name = format!("blk.{index}.{part}");
            if wanted { tensors.norm(config, &name, config.embedding_length).map(Some) } else { Ok(None) }
        };
        let of_output = |norm: Option<Norm>| {
            let epsilon =
                if config.output_norm_epsilon > 0.0 { config.output_norm_epsilon } else { config.norm_epsilon };
            norm.map(|norm| Norm { epsilon, ..norm })
        };
        let before = matches!(config.norms, Norms::Before | Norms::Both);
        let behind = config.norms != Norms::Before;
        let behind_names = match config.norms {
            Norms::Stream => ["attn_output_norm", "layer_output_norm"],
            _ => ["post_attention_norm", "post_ffw_norm"],
        };
        let (attends, feeds) = (sizes.heads > 0 || sizes.delta_net.is_some(), sizes.feed_forward > 0);
        let shared = config.parallel && !config.parallel_norm;
        let starts = index > 0 || config.first_attention_norm && config.input != Input::Pairs;
        Ok(Self {
            attention_norm: norm(before && starts && (attends || shared), &config.attention_norm)?,
            attention_output_norm: of_output(norm(behind && attends, behind_names[0])?),
            second_attention_norm: norm(config.second_attention_norm && attends, "attn_norm_2")?,
            feed_forward_norm: norm(before && feeds && !shared, &config.feed_forward_norm)?,
            feed_forward_output_norm: of_output(norm(behind && feeds, behind_names[1])?),
            attention: Attention::load(config, index, tensors)?,
            feed_forward: FeedForward::load(config, index, tensors)?,
            cross: CrossAttention::load(config, index, tensors)?,
            input: LayerInput::load(config, index, tensors)?,
            links: Links::load(config, index, tensors)?.map(Box::new),
            scale: match config.layer_scale.get(index) {
                Some(true) => Some(tensors.vector(&format!("blk.{index}.layer_output_scale.weight"), 1)?[0]),
                _ => None,
            },
        })
    }
}

/// Refuses unread tensors without which a model would produce wrong text. Returns the names of those that do not
/// matter, except those that the configuration says to ignore.
pub(crate) fn refuse_unread(config: &Config, unread: &[&TensorInfo]) -> Result<Vec<String>, Error> {
    let named = |name: &&str| !config.ignored_tensors.iter().any(|start| name.starts_with(start.as_str()));
    let matters = |name: &&str| {
        // Frequencies that old converters stored and no reader uses, since they follow from the metadata.
        let frequencies =
            ["attn_rot_embd.weight", ".rope_freqs.weight", ".attention.rope.freqs", ".rotary_emb.inv_freq"];
        !frequencies.iter().any(|end| name.ends_with(end))
    };
    let unread = || unread.iter().map(|tensor| tensor.name.as_str()).filter(named);
    let names: Vec<_> = unread().filter(matters).take(4).collect();
    if names.is_empty() {
        return Ok(unread().map(str::to_owned).collect());
    }
    Err(Error::Model(format!(
        "the architecture {:?} has no use for the tensors {}: the file was written for another graph, and running it \
         without them would give wrong results",
        config.architecture,
        names.join(", ")
    )))
}
