//! The settings of models that take rows in place of tokens.

use super::within;
use crate::config::{Input, Norms, SIZE_LIMIT, StatesNorm};
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
        if self.input == Input::Tokens {
            return match self.states_width {
                0 => Ok(()),
                width => Err(Error::Model(format!("states_width is {width}: expected 0 in a model that takes tokens"))),
            };
        }
        // What was rewound too far would have to be computed again from rows that nobody keeps.
        let limited =
            [&self.window, &self.chunk, &self.recurrent_heads].iter().any(|of| of.iter().any(|&size| size > 0));
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
}
