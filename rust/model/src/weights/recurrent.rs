//! The weights of recurrent layers.

use llamacpu_kernels::matmul::Matrix;
use llamacpu_kernels::recurrent::{DeltaNet, DeltaWeights};

use super::Linear;
use crate::error::zeroed;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// A gated delta network with the projections around it.
pub(crate) struct RecurrentLayer {
    pub(crate) net: DeltaNet,
    pub(crate) inputs: Inputs,
    pub(crate) controls: Controls,
    pub(crate) output: Linear,
    convolution: Vec<f32>,
    decay: Vec<f32>,
    time: Vec<f32>,
    norm: Vec<f32>,
    epsilon: f32,
}

/// Queries, keys and values before the convolution, and the gate of the output.
pub(crate) enum Inputs {
    /// By two matrices.
    Separate { channels: Linear, gate: Linear },
    /// By one, whose rows are for each key head its query, its key, and the values and gates of its value heads.
    Joined(Linear),
}

/// How much every value head writes, and the time that passes.
pub(crate) enum Controls {
    /// By two matrices.
    Separate { write: Linear, time: Linear },
    /// By one, whose rows are for each key head those that write, of its value heads, and then those of the time.
    Joined(Linear),
}

impl RecurrentLayer {
    pub(super) fn load(
        config: &Config,
        net: DeltaNet,
        name: &dyn Fn(&str) -> String,
        tensors: &mut Tensors,
    ) -> Result<Self, Error> {
        let (width, heads) = (config.embedding_length, net.value_heads);
        let controls = if tensors.has(&name("ssm_ba.weight")) {
            Controls::Joined(tensors.linear(&name("ssm_ba"), width, 2 * heads)?)
        } else {
            Controls::Separate {
                write: tensors.linear(&name("ssm_beta"), width, heads)?,
                time: tensors.linear(&name("ssm_alpha"), width, heads)?,
            }
        };
        let inputs = if tensors.has(&name("ssm_in.weight")) {
            let rows = net.channels() + net.value_width();
            Inputs::Joined(tensors.linear(&name("ssm_in"), width, rows)?)
        } else {
            Inputs::Separate {
                channels: tensors.linear(&name("attn_qkv"), width, net.channels())?,
                gate: tensors.linear(&name("attn_gate"), width, net.value_width())?,
            }
        };
        let by_channel = tensors.table(&name("ssm_conv1d.weight"), net.taps, net.channels())?;
        let mut convolution = zeroed(Some(by_channel.len()), "weights")?;
        for (tap, row) in convolution.chunks_exact_mut(net.channels()).enumerate() {
            row.iter_mut().zip(by_channel[tap..].iter().step_by(net.taps)).for_each(|(to, from)| *to = *from);
        }
        Ok(Self {
            net,
            inputs,
            controls,
            output: tensors.linear(&name("ssm_out"), net.value_width(), width)?,
            convolution,
            decay: tensors.vector(&name("ssm_a"), heads)?,
            time: tensors.vector(&name("ssm_dt.bias"), heads)?,
            norm: tensors.vector(&name("ssm_norm.weight"), net.value_size)?,
            epsilon: config.norm_epsilon,
        })
    }

    /// The weights that are no matrices.
    pub(crate) fn delta_weights(&self) -> DeltaWeights<'_> {
        let Self { convolution, decay, time, norm, epsilon, .. } = self;
        DeltaWeights { convolution, decay, time, norm, epsilon: *epsilon }
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        let mut linears = match &self.inputs {
            Inputs::Separate { channels, gate } => vec![channels, gate],
            Inputs::Joined(all) => vec![all],
        };
        match &self.controls {
            Controls::Separate { write, time } => linears.extend([write, time]),
            Controls::Joined(both) => linears.push(both),
        }
        linears.push(&self.output);
        linears.into_iter().map(|linear| &linear.matrix).collect()
    }
}
