//! The settings of models that take rows in place of tokens.

use super::within;
use crate::config::{Input, LAYERS_LIMIT, Norms, SIZE_LIMIT, StatesNorm};
use crate::{Config, Error};

impl Config {
    pub(super) fn validate_rows(&self) -> Result<(), Error> {
        within("states_width", self.states_width, 0, SIZE_LIMIT)?;
        if self.states_norm != StatesNorm::None && self.states_width == 0 {
            return Err(Error::Model("states_norm: expected states_width above 0".to_owned()));
        }
        if self.normed_pairs && self.input != Input::Pairs {
            return Err(Error::Model("normed_pairs: expected \"pairs\" as input".to_owned()));
        }
        within("next_width", self.next_width, 0, SIZE_LIMIT)?;
        self.validate_lent()?;
        if !self.row_window.is_empty() && (self.input != Input::Rows || self.next_width > 0) {
            return Err(Error::Model("row_window: expected a model with sessions whose input is \"rows\"".to_owned()));
        }
        if self.input == Input::Tokens {
            return match self.states_width {
                0 => Ok(()),
                width => Err(Error::Model(format!("states_width is {width}: expected 0 in a model that takes tokens"))),
            };
        }
        // What was rewound too far would have to be computed again from rows that nobody keeps.
        let kept = if self.lent_layers.is_empty() { &self.window[..] } else { &[] };
        let limited = [kept, &self.chunk, &self.recurrent_heads].iter().any(|of| of.iter().any(|&size| size > 0));
        let plain = self.causal && !self.learned_positions && self.token_types == 0 && !self.embedding_norm;
        let other = self.relative_positions > 0 || self.per_layer_input > 0 || !self.cross_layers.is_empty();
        if limited || other || !plain || self.rope.sections.len() > 1 {
            return Err(Error::Model(
                "input is not \"tokens\": expected causal layers with neither windows nor states, and no embeddings of \
                 anything but tokens"
                    .to_owned(),
            ));
        }
        let single = self.layers == 1 && self.latent_size == 0 && self.norms == Norms::Before && !self.parallel;
        if self.input == Input::Pairs && !single {
            return Err(Error::Model(
                "input is \"pairs\": expected one layer, with norms before its blocks".to_owned(),
            ));
        }
        if self.input == Input::Rows && (self.latent_size > 0 || self.kv_heads.contains(&0)) {
            return Err(Error::Model("input is \"rows\": expected keys and values in every layer".to_owned()));
        }
        Ok(())
    }

    /// Every layer reads keys and values of another model, and a row is made of a pair with a state of that one.
    fn validate_lent(&self) -> Result<(), Error> {
        let lent = &self.lent_layers;
        if lent.is_empty() && self.next_width == 0 {
            return Ok(());
        }
        lent.iter().try_for_each(|&layer| within("lent_layers", layer, 0, LAYERS_LIMIT))?;
        let made = self.next_width > 0 && self.states_width == 2 * self.next_width && self.output;
        let plain = self.kv_source.is_empty() && self.keys_as_values.is_empty() && self.alibi == 0.0;
        if lent.len() != self.layers || self.input != Input::Rows || !made || !plain {
            return Err(Error::Model(
                "lent_layers: expected one for each of the layers, whose input is \"rows\" made of twice next_width \
                 numbers, with logits, and with neither keys and values of their own nor linear biases"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}
