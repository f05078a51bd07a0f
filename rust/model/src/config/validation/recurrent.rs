//! The settings of recurrent layers.

use super::{HEAD_LIMIT, WIDTH_LIMIT, within};
use crate::Error;
use crate::config::Config;

/// Maximum number of tokens that a convolution sees.
const TAPS_LIMIT: usize = 64;
/// Maximum number of elements in a head: a state grows with the square of it, the file does not.
const SIZE_LIMIT: usize = 1024;

impl Config {
    pub(super) fn validate_recurrent(&self) -> Result<(), Error> {
        let least = usize::from(self.is_recurrent());
        within("recurrent_key_heads", self.recurrent_key_heads, least, HEAD_LIMIT)?;
        within("recurrent_key_size", self.recurrent_key_size, least, SIZE_LIMIT)?;
        within("recurrent_value_size", self.recurrent_value_size, least, SIZE_LIMIT)?;
        within("convolution_size", self.convolution_size, least, TAPS_LIMIT)?;
        if !self.is_recurrent() {
            return Ok(());
        }
        if !self.causal {
            return Err(Error::Model(
                "causal is false: expected no recurrent layers, whose tokens cannot see those behind them".to_owned(),
            ));
        }
        let widest = self.recurrent_key_heads.saturating_mul(self.recurrent_key_size);
        within("recurrent_key_heads times recurrent_key_size", widest, 1, WIDTH_LIMIT)?;
        for (layer, &heads) in self.recurrent_heads.iter().enumerate() {
            if heads == 0 {
                continue;
            }
            within("recurrent_heads", heads, 1, HEAD_LIMIT)?;
            let widest = heads.saturating_mul(self.recurrent_value_size.next_multiple_of(16));
            within("recurrent_heads times recurrent_value_size", widest, 1, WIDTH_LIMIT)?;
            if !heads.is_multiple_of(self.recurrent_key_heads) {
                return Err(Error::Model(format!(
                    "layer {layer} has {heads} recurrent heads for {} key heads: expected a multiple",
                    self.recurrent_key_heads
                )));
            }
            if self.heads[layer] > 0 {
                return Err(Error::Model(format!(
                    "layer {layer} has {} heads of attention and {heads} recurrent heads: expected one of the two",
                    self.heads[layer]
                )));
            }
        }
        Ok(())
    }
}
