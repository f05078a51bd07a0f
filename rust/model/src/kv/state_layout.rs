//! Where the numbers of each recurrent layer are in a state of all layers, and what states take.

use llamacpu_kernels::recurrent::DeltaNet;

use crate::{Config, Error};

/// The purpose of states, used in messages.
pub(super) const PURPOSE: &str = "the states of recurrent layers";
/// The most tokens whose inputs are kept: a draft and what was accepted before it.
pub(crate) const LOGGED_TOKENS: usize = 32;
/// The most states that are kept for rewinding, besides those that the last steps need.
pub(crate) const CHECKPOINTS: usize = 3;

/// Where the numbers of each layer are in a state, and in the inputs of a token.
#[derive(Debug, Default)]
pub(crate) struct StateLayout {
    /// `None` for layers without a state.
    pub(super) layers: Vec<Option<StatePlace>>,
    /// Numbers in a state of all layers.
    pub(super) numbers: usize,
    /// Numbers in the inputs of a token, all layers together.
    pub(super) inputs: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct StatePlace {
    pub(super) net: DeltaNet,
    pub(super) state: usize,
    pub(super) input: usize,
}

/// Numbers in the inputs of a token in a layer: channels, how much every head writes, and the time that passes.
pub(crate) fn input_numbers(net: &DeltaNet) -> usize {
    input_widths(net).iter().sum()
}

pub(super) fn input_widths(net: &DeltaNet) -> [usize; 3] {
    [net.channels(), net.value_heads, net.value_heads]
}

impl StateLayout {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let too_large = || Error::Memory { bytes: usize::MAX, purpose: PURPOSE };
        let mut layout = Self::default();
        for index in 0..config.layers {
            let Some(net) = config.layer(index).delta_net else {
                layout.layers.push(None);
                continue;
            };
            layout.layers.push(Some(StatePlace { net, state: layout.numbers, input: layout.inputs }));
            let numbers = net.state_numbers().and_then(|own| layout.numbers.checked_add(own));
            layout.numbers = numbers.filter(|numbers| *numbers <= isize::MAX as usize / 64).ok_or_else(too_large)?;
            layout.inputs = layout.inputs.checked_add(input_numbers(&net)).ok_or_else(too_large)?;
        }
        Ok(layout)
    }

    /// Size of a state in bytes; 0 if no layer has one.
    pub(crate) fn nbytes(&self) -> usize {
        self.numbers * size_of::<f32>()
    }

    /// The most that a session of `tokens` tokens keeps between two steps, in bytes.
    pub(crate) fn bytes_for(&self, tokens: usize) -> usize {
        if tokens == 0 {
            return 0;
        }
        let inputs = self.inputs.saturating_mul(LOGGED_TOKENS * size_of::<f32>());
        self.nbytes().saturating_mul(3 + CHECKPOINTS).saturating_add(inputs)
    }

    pub(super) fn place(&self, layer: usize) -> Result<StatePlace, Error> {
        let place = self.layers.get(layer).copied().flatten();
        place.ok_or_else(|| Error::Argument(format!("layer {layer} has no state")))
    }
}
