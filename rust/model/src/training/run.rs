//! What the parts of a step share.

use llamacpu_kernels::activation::scale;
use llamacpu_kernels::context::Context;

use super::adapters::{Adapters, Part};
use crate::Error;
use crate::config::Config;
use crate::rotations::{Place, Rotations};

/// A step on some tokens.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) config: &'a Config,
    pub(super) rotations: &'a Rotations,
    pub(super) adapters: &'a Adapters,
    pub(super) parameters: &'a [f32],
    /// Starts of the sequences, and at the end the number of tokens.
    pub(super) segments: &'a [usize],
    pub(super) places: &'a [Place],
    /// Whether products with quantized weights are computed in floats; see [`super::shape::TrainerShape`].
    pub(super) exact: bool,
}

impl Run<'_> {
    /// Number of tokens.
    pub(super) fn rows(&self) -> usize {
        self.places.len()
    }

    /// `values *= factor`, skipped if the factor is 1.
    pub(super) fn scaled(&self, values: &mut [f32], factor: f32) -> Result<(), Error> {
        if factor == 1.0 { Ok(()) } else { Ok(scale(self.context, values, factor)?) }
    }

    /// Whether any of these parts of a layer has an adapter.
    pub(super) fn adapted(&self, layer: usize, wanted: impl Fn(Part) -> bool) -> bool {
        self.adapters.any(layer, wanted)
    }
}
