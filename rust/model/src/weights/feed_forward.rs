//! The weights of feed-forward networks and of mixtures of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use llamacpu_kernels::matmul::Matrix;

use super::{Linear, Norm};
use crate::config::{ExpertGating, Gate, NormKind};
use crate::rows::multiply;
use crate::tensors::Tensors;
use crate::{Config, Error};

/// A feed-forward network: `down(function(gate(x)) * up(x))`, or `down(function(up(x)))` without a gate.
pub(crate) struct Network {
    pub(crate) gate: Option<Linear>,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// What follows attention in a layer.
pub(crate) enum FeedForward {
    Dense(Box<Network>),
    Experts(Box<Experts>),
    /// Both, side by side.
    Beside(Box<Beside>),
}

/// A dense network and experts whose outputs are added, each with norms of its own.
pub(crate) struct Beside {
    pub(crate) network: Network,
    pub(crate) network_output_norm: Norm,
    pub(crate) experts: Experts,
    /// Of what the router reads; includes its factor of each element.
    pub(crate) router_norm: Norm,
    pub(crate) experts_norm: Norm,
    pub(crate) experts_output_norm: Norm,
}

/// A mixture of experts.
pub(crate) struct Experts {
    pub(crate) router: Linear,
    /// Added to an expert's score for selection, but not to its weight.
    pub(crate) selection_bias: Option<Vec<f32>>,
    /// For each token of the vocabulary, the experts that it goes through; `None` if scores choose them.
    pub(crate) table: Option<Vec<u32>>,
    /// Factors of the weights of the chosen experts.
    pub(crate) scales: Option<Vec<f32>>,
    pub(crate) networks: Vec<Network>,
    /// The network that all tokens go through in addition.
    pub(crate) shared: Option<Network>,
    /// One row; the logistic function of its product with the input is the weight of `shared`.
    pub(crate) shared_gate: Option<Linear>,
    /// Bytes of memory left for the experts of all layers; absent if all of them fit.
    allowance: OnceLock<Arc<AtomicUsize>>,
    /// For each expert, whether it has asked for its part of the allowance.
    asked: Vec<AtomicBool>,
}

impl Network {
    pub(super) fn load(
        config: &Config,
        name: &dyn Fn(&str) -> String,
        inner: usize,
        tensors: &mut Tensors,
    ) -> Result<Self, Error> {
        let width = config.embedding_length;
        let (gate, up) = match config.gate {
            Gate::Own => {
                (Some(tensors.linear(&name("gate"), width, inner)?), tensors.linear(&name("up"), width, inner)?)
            }
            Gate::None => (None, tensors.linear(&name("up"), width, inner)?),
            Gate::Fused => {
                let mut halves = tensors.linears(&name("up"), width, &[inner, inner])?;
                let up = halves.pop().ok_or_else(|| Error::Model("a fused matrix must have two parts".to_owned()))?;
                (halves.pop(), up)
            }
        };
        Ok(Self { gate, up, down: tensors.linear(&name("down"), inner, width)? })
    }

    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.gate.iter().chain([&self.up, &self.down]).map(|linear| &linear.matrix)
    }
}

impl FeedForward {
    pub(super) fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Option<Self>, Error> {
        let inner = config.layer(index).feed_forward;
        if inner == 0 {
            return Ok(None);
        }
        let routed = config.experts > 0 && tensors.has(&format!("blk.{index}.ffn_gate_inp.weight"));
        if routed && config.experts_beside {
            return Ok(Some(Self::Beside(Box::new(Beside::load(config, index, tensors)?))));
        }
        if routed {
            return Ok(Some(Self::Experts(Box::new(Experts::load(config, index, tensors)?))));
        }
        let name = |part: &str| format!("blk.{index}.ffn_{part}");
        Ok(Some(Self::Dense(Box::new(Network::load(config, &name, inner, tensors)?))))
    }

    /// Every matrix: the router first, then each network in turn.
    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Dense(network) => network.matrices().collect(),
            Self::Experts(experts) => experts.matrices().collect(),
            Self::Beside(both) => both.network.matrices().chain(both.experts.matrices()).collect(),
        }
    }
}

impl Beside {
    fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let width = config.embedding_length;
        let mut weight = tensors.vector(&name("ffn_gate_inp.scale"), width)?;
        multiply(&mut weight, 1.0 / (width as f32).sqrt());
        let mut norm = |part: &str| tensors.norm(config, &name(part), width);
        Ok(Self {
            network_output_norm: norm("post_ffw_norm_1")?,
            experts_norm: norm("pre_ffw_norm_2")?,
            experts_output_norm: norm("post_ffw_norm_2")?,
            router_norm: Norm { weight, bias: None, kind: NormKind::Rms, epsilon: config.norm_epsilon },
            network: Network::load(
                config,
                &|part| name(&format!("ffn_{part}")),
                config.layer(index).feed_forward,
                tensors,
            )?,
            experts: Experts::load(config, index, tensors)?,
        })
    }
}

impl Experts {
    fn load(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, count) = (config.embedding_length, config.experts);
        let router = tensors.linear(&name("ffn_gate_inp"), width, count)?;
        let table = (index < config.hashed_layers)
            .then(|| tensors.integers(&name("ffn_gate_tid2eid.weight"), config.experts_used, config.vocab_size))
            .transpose()?;
        if let Some(expert) = table.iter().flatten().find(|&&expert| expert as usize >= count) {
            return Err(Error::Model(format!(
                "the tensor {:?} names expert {expert}; expected 0 to {}",
                name("ffn_gate_tid2eid.weight"),
                count - 1
            )));
        }
        let bias = name("exp_probs_b.bias");
        let selection_bias = match config.expert_gating {
            // A table takes the place of the choice, so that a bias of it would be refused as unread.
            _ if table.is_some() => None,
            ExpertGating::SqrtSoftplus => Some(tensors.vector(&bias, count)?),
            _ => tensors.optional_vector(&bias, count)?,
        };
        let scales =
            if config.experts_beside { tensors.optional_vector(&name("ffn_down_exps.scale"), count)? } else { None };
        let networks = if tensors.has(&name("ffn_up.0.weight")) {
            // Files from 2023: one tensor per expert.
            (0..count)
                .map(|expert| {
                    let name = |part: &str| format!("blk.{index}.ffn_{part}.{expert}");
                    Network::load(config, &name, config.expert_width(index), tensors)
                })
                .collect::<Result<_, _>>()?
        } else {
            stacked(config, index, tensors)?
        };
        let shared_name = |part: &str| format!("blk.{index}.ffn_{part}_shexp");
        let (shared, shared_gate) = match config.shared_feed_forward {
            0 => (None, None),
            inner => {
                let gate = name("ffn_gate_inp_shexp");
                let gate =
                    tensors.has(&format!("{gate}.weight")).then(|| tensors.linear(&gate, width, 1)).transpose()?;
                (Some(Network::load(config, &shared_name, inner, tensors)?), gate)
            }
        };
        let asked = networks.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self {
            router,
            selection_bias,
            table,
            scales,
            networks,
            shared,
            shared_gate,
            allowance: OnceLock::new(),
            asked,
        })
    }

    /// Every matrix: the router first, then each network in turn.
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        std::iter::once(&self.router.matrix)
            .chain(self.networks.iter().chain(&self.shared).flat_map(Network::matrices))
            .chain(self.shared_gate.iter().map(|gate| &gate.matrix))
    }

    /// Leaves all experts on disk until they are used for the first time; see [`Self::admit`].
    pub(super) fn ration(&self, allowance: &Arc<AtomicUsize>) {
        self.allowance.get_or_init(|| Arc::clone(allowance));
        for (network, asked) in self.networks.iter().zip(&self.asked) {
            network.matrices().for_each(|matrix| matrix.resident(false));
            asked.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that an expert is about to be used: it may stay in memory from now on, if the allowance suffices. The experts that
    /// are used first are those that a conversation is about.
    pub(crate) fn admit(&self, expert: usize) {
        let Some(allowance) = self.allowance.get() else { return };
        if self.asked[expert].swap(true, Ordering::Relaxed) {
            return;
        }
        let size: usize = self.networks[expert].matrices().map(Matrix::resident_bytes).sum();
        let rest = |left: usize| left.checked_sub(size);
        if allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok() {
            self.networks[expert].matrices().for_each(|matrix| matrix.resident(true));
        }
    }
}

/// The experts from stacked tensors, with gates and ups either in separate tensors or stacked row by row in one.
fn stacked(config: &Config, index: usize, tensors: &mut Tensors) -> Result<Vec<Network>, Error> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let (width, count, inner) = (config.embedding_length, config.experts, config.expert_width(index));
    let downs = tensors.linear_stack(&name("ffn_down_exps"), inner, width, count)?;
    let gates_and_ups: Vec<(Option<Linear>, Linear)> = if tensors.has(&name("ffn_gate_up_exps.weight")) {
        let tensor = name("ffn_gate_up_exps.weight");
        let halves = tensors.stack(&tensor, width, &[inner, inner], count)?;
        let bias = tensors.optional_table(&name("ffn_gate_up_exps.bias"), 2 * inner, count)?;
        let mut halves = halves.into_iter().enumerate().map(|(half, matrix)| {
            let bias = bias.as_ref().map(|bias| bias[half * inner..(half + 1) * inner].to_vec());
            let slot = tensors.slot(&tensor, (inner, width), (half % 2 * inner, half / 2));
            Linear { matrix, bias, slot }
        });
        let mut pairs = Vec::with_capacity(count);
        while let (Some(gate), Some(up)) = (halves.next(), halves.next()) {
            pairs.push((Some(gate), up));
        }
        pairs
    } else {
        let ups = tensors.linear_stack(&name("ffn_up_exps"), width, inner, count)?;
        if config.gate == Gate::None {
            ups.into_iter().map(|up| (None, up)).collect()
        } else {
            let gates = tensors.linear_stack(&name("ffn_gate_exps"), width, inner, count)?;
            gates.into_iter().map(Some).zip(ups).collect()
        }
    };
    let networks = gates_and_ups.into_iter().zip(downs).map(|((gate, up), down)| Network { gate, up, down });
    Ok(networks.collect())
}

#[cfg(test)]
mod tests {
    use llamacpu_kernels::formats::Format;
    use llamacpu_kernels::mapping::Bytes;

    use super::*;

    fn linear() -> Linear {
        Linear { matrix: Matrix::new(Format::F32, 1, 4, Bytes::owned(vec![0; 16])).unwrap(), bias: None, slot: 0 }
    }

    #[test]
    fn memory_goes_to_the_experts_that_are_used_first() {
        let network = || Network { gate: None, up: linear(), down: linear() };
        let experts = Experts {
            router: linear(),
            selection_bias: None,
            table: None,
            scales: None,
            networks: (0..4).map(|_| network()).collect(),
            shared: None,
            shared_gate: None,
            allowance: OnceLock::new(),
            asked: (0..4).map(|_| AtomicBool::new(false)).collect(),
        };
        let resident = || experts.networks.iter().map(|network| network.up.matrix.is_resident()).collect::<Vec<_>>();
        experts.admit(1);
        assert_eq!(resident(), [true; 4], "without a limit");
        let allowance = Arc::new(AtomicUsize::new(70));
        experts.ration(&allowance);
        assert_eq!(resident(), [false; 4]);
        for expert in [3, 1, 3, 0, 2, 0] {
            experts.admit(expert);
        }
        assert_eq!(resident(), [false, true, false, true]);
        assert_eq!(allowance.load(Ordering::Relaxed), 6);
    }
}
