//! The step of the optimizer.

use llamacpu_kernels::backward::{AdamW, euclidean_norm};

use super::trainer::{Numbers, Trainer};
use crate::Error;

/// The settings of an update by AdamW (I. Loshchilov and F. Hutter, arXiv:1711.05101).
#[derive(Debug, Clone, Copy)]
pub struct OptimizerStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay rates of the averages of the gradients and of their squares.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// How much of every parameter is taken away, times the learning rate.
    pub weight_decay: f64,
    /// The largest norm of the gradients; longer ones are scaled down.
    pub clip_norm: Option<f64>,
    /// Divides the gradients.
    pub divide_by: f64,
}

impl OptimizerStep {
    fn check(&self) -> Result<(), Error> {
        let wrong = |name: &str, value: f64, expected: &str| {
            Err(Error::Argument(format!("{name} is {value}: expected {expected}")))
        };
        for (name, value) in
            [("learning_rate", self.learning_rate), ("epsilon", self.epsilon), ("weight_decay", self.weight_decay)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(name, value, "a number that is not negative");
            }
        }
        for beta in [self.betas.0, self.betas.1] {
            if !(0.0..1.0).contains(&beta) {
                return wrong("a beta", beta, "a number from 0 to below 1");
            }
        }
        for (name, value) in [("divide_by", Some(self.divide_by)), ("clip_norm", self.clip_norm)] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return wrong(name, value, "a positive number");
            }
        }
        Ok(())
    }
}

impl Trainer {
    /// Updates the parameters, clears the gradients, and returns the norm of the gradients, divided but not yet scaled
    /// down. If it is not finite, parameters and moments stay as they are.
    ///
    /// # Errors
    /// `Error::Argument` if a setting is out of range, with nothing changed; `Error::Memory`.
    pub fn optimizer_step(&mut self, settings: &OptimizerStep) -> Result<f64, Error> {
        settings.check()?;
        // Not interrupted: half an update would be lost work.
        let context = self.model.parts(None).0;
        let Numbers { parameters, gradients, first_moments, second_moments } = &mut self.numbers;
        let norm = euclidean_norm(&context, gradients)? / settings.divide_by;
        if !norm.is_finite() {
            gradients.fill(0.0);
            return Ok(norm);
        }
        // As in PyTorch's `clip_grad_norm_`, whose divisor has a small addend.
        let clipped = settings.clip_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        self.steps += 1;
        let left = |beta: f64| 1.0 - power(beta, self.steps);
        let adam = AdamW {
            gradient_scale: (clipped / settings.divide_by) as f32,
            betas: (settings.betas.0 as f32, settings.betas.1 as f32),
            rate: (settings.learning_rate / left(settings.betas.0)) as f32,
            correction: left(settings.betas.1).sqrt() as f32,
            epsilon: settings.epsilon as f32,
            decay: (1.0 - settings.learning_rate * settings.weight_decay) as f32,
        };
        adam.update(&context, parameters, gradients, (first_moments, second_moments))?;
        Ok(norm)
    }
}

/// `base^exponent` by squaring: the same bits on every processor.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result *= square;
        }
        square *= square;
        left >>= 1;
    }
    result
}
