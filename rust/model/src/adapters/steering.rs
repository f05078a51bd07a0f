//! Vectors that are added to the residual stream after layers.

use std::fmt;
use std::sync::Arc;

use llamacpu_kernels::memory;

use crate::error::{Error, zeroed};

/// The vectors of all layers, their strength included.
pub struct Steering {
    model: Arc<()>,
    /// By layer; `None` where nothing is added.
    layers: Vec<Option<Vec<f32>>>,
}

impl fmt::Debug for Steering {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "vectors for {} layers", self.layers.iter().flatten().count())
    }
}

impl Steering {
    /// Adds up vectors by layer; `count` and `width` are those of the model.
    pub(crate) fn new(
        model: Arc<()>,
        (count, width): (usize, usize),
        vectors: &[(usize, Vec<f32>)],
    ) -> Result<Self, Error> {
        let mut layers: Vec<Option<Vec<f32>>> = memory::room(count, "control vectors")?;
        layers.resize_with(count, || None);
        for (layer, vector) in vectors {
            let Some(sum) = layers.get_mut(*layer) else {
                return Err(Error::Argument(format!("a vector for layer {layer}: expected 0 to {}", count - 1)));
            };
            if vector.len() != width {
                return Err(Error::Argument(format!(
                    "a vector of {} numbers for layer {layer}: expected {width}, the width of the model",
                    vector.len()
                )));
            }
            if sum.is_none() {
                *sum = Some(zeroed(Some(width), "control vectors")?);
            }
            sum.iter_mut().flatten().zip(vector).for_each(|(sum, value)| *sum += value);
        }
        Ok(Self { model, layers })
    }

    pub(crate) fn model(&self) -> &Arc<()> {
        &self.model
    }

    /// What is added after a layer.
    pub(crate) fn after(&self, layer: usize) -> Option<&[f32]> {
        self.layers.get(layer).and_then(Option::as_deref)
    }
}
