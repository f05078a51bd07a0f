//! The loss of the tokens that have a target, and its gradient, for some rows of logits at a time.

use llamacpu_kernels::activation::soft_cap;
use llamacpu_kernels::backward::{Sum, View, add_bias, cross_entropy, soft_cap_backward};

use super::linear::Base;
use super::run::Run;
use crate::Error;
use crate::norms::{normalize, rows_norm};
use crate::weights::Weights;

/// Buffers of the loss; see `Buffers`.
pub(super) struct Ends<'a> {
    pub(super) states: &'a mut [f32],
    pub(super) gradients: &'a mut [f32],
    pub(super) logits: &'a mut [f32],
    pub(super) logit_rows: usize,
    pub(super) base: Base<'a>,
}

impl Run<'_> {
    /// Returns the sum of the losses and the number of targets. Sets `gradient`, if it is wanted, to the gradient with
    /// respect to the stream behind the last layer.
    pub(super) fn loss(
        &self,
        weights: &Weights,
        stream: &[f32],
        targets: &[i32],
        ends: Ends,
        gradient: Option<&mut [f32]>,
    ) -> Result<(f64, usize), Error> {
        let Some(output) = &weights.output else {
            return Err(Error::Model("the model has no output matrix, so there are no losses".to_owned()));
        };
        let (context, config, width) = (self.context, self.config, self.config.embedding_length);
        // Rows with a target, and the target.
        let wanted = targets.iter().enumerate().filter_map(|(row, target)| Some((row, u32::try_from(*target).ok()?)));
        let wanted: Vec<(usize, u32)> = wanted.collect();
        let Ends { states, gradients, logits, logit_rows, mut base } = ends;
        // The states before the norm are gathered where the gradients will be.
        let (states, gathered) = (&mut states[..wanted.len() * width], &mut gradients[..wanted.len() * width]);
        for ((row, _), to) in wanted.iter().zip(gathered.chunks_exact_mut(width)) {
            to.copy_from_slice(&stream[row * width..][..width]);
        }
        match &weights.output_norm {
            Some(norm) => normalize(context, config, norm, gathered, states)?,
            None => states.copy_from_slice(gathered),
        }
        let cap = config.logit_soft_cap;
        let (mut sum, wants) = (0.0, gradient.is_some());
        for first in (0..wanted.len()).step_by(logit_rows) {
            let some = &wanted[first..wanted.len().min(first + logit_rows)];
            let targets: Vec<u32> = some.iter().map(|(_, target)| *target).collect();
            let logits = &mut logits[..some.len() * config.vocab_size];
            let mut losses = vec![0.0; some.len()];
            let input = &states[first * width..][..some.len() * width];
            base.packed.set(context, View::new(input, some.len(), width)?)?;
            self.forward(&output.matrix, input, some.len(), &mut base, logits)?;
            if let Some(bias) = &output.bias {
                add_bias(context, logits, bias)?;
            }
            self.scaled(logits, config.logit_scale)?;
            if cap > 0.0 {
                soft_cap(context, logits, cap)?;
            }
            if cap > 0.0 && wants {
                self.capped(logits, &targets, &mut losses, cap)?;
            } else {
                cross_entropy(context, logits, &targets, &mut losses, wants)?;
            }
            sum += losses.iter().sum::<f64>();
            if wants {
                self.scaled(logits, config.logit_scale)?;
                let to = &mut states[first * width..][..some.len() * width];
                let of_logits = View::new(logits, some.len(), config.vocab_size)?;
                self.backward(&output.matrix, of_logits, &mut base, (Sum::SET, to))?;
            }
        }
        if let Some(gradient) = gradient {
            if let Some(norm) = &weights.output_norm {
                rows_norm(config, norm).backward(context, gathered, states)?;
            }
            gradient.fill(0.0);
            for ((row, _), from) in wanted.iter().zip(states.chunks_exact(width)) {
                gradient[row * width..][..width].copy_from_slice(from);
            }
        }
        Ok((sum, wanted.len()))
    }

    /// Losses and gradients of capped logits, a row at a time: the derivative of the cap needs them once more.
    fn capped(&self, logits: &mut [f32], targets: &[u32], losses: &mut [f64], cap: f32) -> Result<(), Error> {
        let mut row = Vec::new();
        let size = self.config.vocab_size;
        let row = crate::error::sized(&mut row, Some(size), "logits")?;
        for ((logits, target), loss) in logits.chunks_exact_mut(size).zip(targets).zip(losses.chunks_exact_mut(1)) {
            row.copy_from_slice(logits);
            cross_entropy(self.context, logits, std::slice::from_ref(target), loss, true)?;
            soft_cap_backward(self.context, row, logits, cap)?;
        }
        Ok(())
    }
}
