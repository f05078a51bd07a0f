//! Adapters of a model, their gradients and moments, and the buffers of a step.

use std::sync::Arc;

use super::adapters::{Adapters, Trainable, listed, nbytes};
use super::buffers::Buffers;
use super::check;
use super::shape::TrainerShape;
use crate::error::zeroed;
use crate::{Error, Model};

/// Adapters of a model, their gradients and moments, and the buffers of a step.
pub struct Trainer {
    pub(super) model: Arc<Model>,
    pub(super) adapters: Adapters,
    pub(super) numbers: Numbers,
    pub(super) buffers: Buffers,
    pub(super) exact: bool,
    pub(super) steps: u64,
}

/// One number per parameter, in the order of `Adapters`.
pub(crate) struct Numbers {
    pub(crate) parameters: Vec<f32>,
    pub(crate) gradients: Vec<f32>,
    pub(crate) first_moments: Vec<f32>,
    pub(crate) second_moments: Vec<f32>,
}

impl Trainer {
    /// Allocates adapters and buffers. The product of an adapter is multiplied by `alpha / rank`. A is drawn from `seed`,
    /// uniformly within ±1/sqrt(columns), and B is 0.
    ///
    /// # Errors
    /// `Error::Model` if the model has a part that cannot be trained; `Error::Argument` if a target does not exist or a
    /// number is out of range; `Error::Memory`.
    pub fn new(model: Arc<Model>, shape: &TrainerShape, alpha: f32, seed: u64) -> Result<Self, Error> {
        check::model(&model)?;
        check::shape(&model, shape, alpha)?;
        let adapters = Adapters::new(&model, shape, alpha)?;
        let purpose = "adapters and their moments";
        let mut numbers = Numbers {
            parameters: zeroed(Some(adapters.len), purpose)?,
            gradients: zeroed(Some(adapters.len), purpose)?,
            first_moments: zeroed(Some(adapters.len), purpose)?,
            second_moments: zeroed(Some(adapters.len), purpose)?,
        };
        adapters.initialize(&mut numbers.parameters, seed);
        let buffers = Buffers::new(&model, &adapters, shape)?;
        Ok(Self { model, adapters, numbers, buffers, exact: shape.exact, steps: 0 })
    }

    /// The parameters in order: name, rows, columns.
    pub fn names(&self) -> Vec<Trainable> {
        self.adapters.names()
    }

    /// All parameters.
    pub fn parameters(&self) -> &[f32] {
        &self.numbers.parameters
    }

    /// The gradients added up since the last optimizer step.
    pub fn gradients(&self) -> &[f32] {
        &self.numbers.gradients
    }

    /// The first and second moments, and the number of optimizer steps.
    pub fn moments(&self) -> (&[f32], &[f32], u64) {
        (&self.numbers.first_moments, &self.numbers.second_moments, self.steps)
    }

    /// Sets all parameters.
    ///
    /// # Errors
    /// `Error::Argument` if there are not as many.
    pub fn set_parameters(&mut self, values: &[f32]) -> Result<(), Error> {
        self.check_count(values)?;
        self.numbers.parameters.copy_from_slice(values);
        Ok(())
    }

    /// Continues from the parameters, moments and steps of another trainer of this shape; clears the gradients.
    ///
    /// # Errors
    /// `Error::Argument` if there are not as many.
    pub fn restore(&mut self, parameters: &[f32], moments: (&[f32], &[f32]), steps: u64) -> Result<(), Error> {
        [parameters, moments.0, moments.1].into_iter().try_for_each(|values| self.check_count(values))?;
        self.numbers.parameters.copy_from_slice(parameters);
        self.numbers.first_moments.copy_from_slice(moments.0);
        self.numbers.second_moments.copy_from_slice(moments.1);
        self.steps = steps;
        self.clear_gradients();
        Ok(())
    }

    /// Sets all gradients to 0.
    pub fn clear_gradients(&mut self) {
        self.numbers.gradients.fill(0.0);
    }

    /// Size in bytes of everything that the trainer holds.
    pub fn nbytes(&self) -> usize {
        self.buffers.nbytes + nbytes(self.adapters.len)
    }

    fn check_count(&self, values: &[f32]) -> Result<(), Error> {
        if values.len() == self.adapters.len {
            return Ok(());
        }
        Err(Error::Argument(format!(
            "{} numbers for adapters of {} parameters: expected as many",
            values.len(),
            self.adapters.len
        )))
    }
}

/// The matrices that can have an adapter.
///
/// # Errors
/// `Error::Model` if the model has a part that cannot be trained.
pub fn trainable(model: &Model) -> Result<Vec<Trainable>, Error> {
    check::model(model)?;
    Ok(listed(model))
}

/// Bytes that a trainer of this shape allocates at most: buffers and adapters, without the model's weights, for which see
/// [`training_weights_nbytes`](super::training_weights_nbytes).
///
/// # Errors
/// `Error::Model` and `Error::Argument` as [`Trainer::new`].
pub fn training_nbytes(model: &Model, shape: &TrainerShape) -> Result<usize, Error> {
    check::model(model)?;
    check::shape(model, shape, 1.0)?;
    let adapters = Adapters::new(model, shape, 1.0)?;
    let buffers = Buffers::empty(model, shape).plan(model.config(), &adapters, shape)?;
    Ok(buffers.saturating_add(nbytes(adapters.len)))
}
