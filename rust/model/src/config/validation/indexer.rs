//! Layers that choose the keys that they see.

use super::{HEAD_LIMIT, SIZE_LIMIT, WIDTH_LIMIT, within};
use crate::Error;
use crate::config::Config;

impl Config {
    pub(super) fn validate_indexer(&self) -> Result<(), Error> {
        if self.indexer.is_empty() {
            return Ok(());
        }
        within("indexer_heads", self.indexer_heads, 1, HEAD_LIMIT)?;
        within("indexer_size", self.indexer_size, self.rope.size.max(1), HEAD_LIMIT)?;
        within("indexer_heads times indexer_size", self.indexer_heads * self.indexer_size, 1, WIDTH_LIMIT)?;
        within("indexer_top", self.indexer_top, 1, SIZE_LIMIT)?;
        if !(self.indexer_epsilon.is_finite() && self.indexer_epsilon > 0.0) {
            return Err(Error::Model(format!(
                "indexer_epsilon is {}: expected a positive number",
                self.indexer_epsilon
            )));
        }
        if self.shared_rows {
            return Ok(());
        }
        if self.latent_size == 0 || self.query_latent_size == 0 {
            return Err(Error::Model(
                "indexer is not empty: expected latent attention, and queries that are computed through a latent vector"
                    .to_owned(),
            ));
        }
        let attends = |layer: &usize| self.heads[*layer] > 0 && self.kv_heads[*layer] > 0;
        let mut attending = (0..self.layers).filter(attends);
        if attending.next().is_some_and(|first| !self.indexer[first]) {
            return Err(Error::Model(
                "indexer is false for the first layer with attention: expected one that chooses keys".to_owned(),
            ));
        }
        let near = |values: &[usize]| values.iter().any(|&value| value > 0);
        if near(&self.window) || near(&self.chunk) {
            return Err(Error::Model(
                "indexer is not empty: expected neither windows nor chunks in a model that chooses keys".to_owned(),
            ));
        }
        Ok(())
    }
}
