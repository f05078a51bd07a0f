//! The loss of the tokens that have a target, and its gradient, for some rows of logits at a time.

use llamacpu_kernels::activation::soft_cap;
use llamacpu_kernels::backward::{
    Sum, View, add_bias, cross_entropy, cross_entropy_in_bytes, multiply_bytes, soft_cap_backward,
};

use super::linear::Products;
use super::run::Run;
use crate::Error;
use crate::norms::{normalize, rows_norm};
use crate::weights::{Output, Weights};

/// Buffers of the loss, which are those of layers at other times; see `Work`. Each holds tokens × the width given in its comment.
pub(super) struct Ends<'a> {
    /// embedding: the normalized states that have a target
    pub(super) states: &'a mut [f32],
    /// embedding: the gradient with respect to them
    pub(super) gradients: &'a mut [f32],
    /// Rows of logits at a time × vocabulary.
    pub(super) logits: &'a mut [f32],
    /// Rows of gradients at a time, and rows of logits.
    pub(super) rows: (usize, usize),
    /// Rows of logits × rank, if the output matrix has an adapter.
    pub(super) low: &'a mut [f32],
    pub(super) products: Products<'a>,
}

impl Run<'_> {
    /// Returns the sum of the losses and the number of targets. Where gradients are wanted, sets the first one to that with
    /// respect to the stream behind the last layer, and adds those of the output's adapter to the second one.
    pub(super) fn loss(
        &self,
        weights: &Weights,
        stream: &[f32],
        targets: &[i32],
        ends: Ends,
        wanted: Option<(&mut [f32], &mut [f32])>,
    ) -> Result<(f64, usize), Error> {
        let Some(output) = &weights.output else {
            return Err(Error::Model("the model has no output matrix, so there are no losses".to_owned()));
        };
        let (context, config, width) = (self.context, self.config, self.config.embedding_length);
        // Rows with a target, and the target.
        let known = targets.iter().enumerate().filter_map(|(row, target)| Some((row, u32::try_from(*target).ok()?)));
        let known: Vec<(usize, u32)> = known.collect();
        let Ends { states, gradients, logits, rows: (gradient_rows, logit_rows), low, mut products } = ends;
        let adapter = self.adapters.of_output();
        let (mut gradient, mut of_adapters) = wanted.unzip();
        // The states before the norm are gathered where the gradients will be.
        let (states, gathered) = (&mut states[..known.len() * width], &mut gradients[..known.len() * width]);
        for ((row, _), to) in known.iter().zip(gathered.chunks_exact_mut(width)) {
            to.copy_from_slice(&stream[row * width..][..width]);
        }
        match &weights.output_norm {
            Some(norm) => normalize(context, config, norm, gathered, states)?,
            None => states.copy_from_slice(gathered),
        }
        let wants = gradient.is_some();
        // The gradients of many rows are multiplied together, so that the output matrix is dequantized once for all of them.
        let in_bytes = wants && !self.in_floats(&output.matrix);
        let fused = in_bytes && config.logit_soft_cap == 0.0 && adapter.is_none();
        let together = if in_bytes { gradient_rows } else { logit_rows };
        let mut sum = 0.0;
        for group in (0..known.len()).step_by(together) {
            let count = together.min(known.len() - group);
            if in_bytes {
                products.base.bytes.resize(context, count, config.vocab_size)?;
            }
            for first in (group..group + count).step_by(logit_rows) {
                let some = &known[first..(first + logit_rows).min(group + count)];
                let targets: Vec<u32> = some.iter().map(|(_, target)| *target).collect();
                let input = &mut states[first * width..][..some.len() * width];
                let logits = &mut logits[..some.len() * config.vocab_size];
                let low = &mut low[..adapter.map_or(0, |_| some.len() * self.adapters.rank)];
                self.logits(output, input, &mut products, (low, logits))?;
                let mut losses = vec![0.0; some.len()];
                if fused {
                    let place = (&mut *products.base.bytes, first - group);
                    cross_entropy_in_bytes(context, logits, &targets, &mut losses, place)?;
                } else {
                    self.losses(logits, &targets, &mut losses, wants)?;
                }
                sum += losses.iter().sum::<f64>();
                let Some(gradients) = of_adapters.as_deref_mut().filter(|_| !fused) else { continue };
                let of_logits = View::new(logits, some.len(), config.vocab_size)?;
                let mut products = products.from((first - group) * self.adapters.rank);
                if let Some(target) = adapter {
                    self.adapter_back(target, (Some(&*input), low, of_logits), &mut products, gradients)?;
                }
                if in_bytes {
                    products.base.bytes.set_rows(context, first - group, of_logits)?;
                    continue;
                }
                self.backward(&output.matrix, of_logits, &mut products.base, (Sum::SET, &mut *input))?;
                if let Some(target) = adapter {
                    self.adapter_input(target, &mut products, input)?;
                }
            }
            if in_bytes {
                let of_states = &mut states[group * width..][..count * width];
                let scale = if fused { config.logit_scale } else { 1.0 };
                multiply_bytes(context, products.base.bytes, &output.matrix, Sum { scale, add: false }, of_states)?;
                if let Some(target) = adapter {
                    self.adapter_input(target, &mut products, of_states)?;
                }
            }
        }
        if let Some(gradient) = &mut gradient {
            if let Some(norm) = &weights.output_norm {
                rows_norm(config, norm).backward(context, gathered, states)?;
            }
            gradient.fill(0.0);
            for ((row, _), from) in known.iter().zip(states.chunks_exact(width)) {
                gradient[row * width..][..width].copy_from_slice(from);
            }
        }
        Ok((sum, known.len()))
    }

    /// Sets the logits of the rows of `input`, before the cap, and `A x` of the output's adapter.
    fn logits(
        &self,
        output: &Output,
        input: &[f32],
        products: &mut Products,
        (low, logits): (&mut [f32], &mut [f32]),
    ) -> Result<(), Error> {
        let rows = logits.len() / self.config.vocab_size;
        let product = (&*output.matrix, &mut *logits);
        self.forward((input, rows), &mut products.base, std::iter::once(product))?;
        if let Some(bias) = &output.bias {
            add_bias(self.context, logits, bias)?;
        }
        if let Some(target) = self.adapters.of_output() {
            self.adapt(target, input, products, (low, logits))?;
        }
        self.scaled(logits, self.config.logit_scale)
    }

    /// The losses of logits before the cap, which are replaced by the gradient with respect to the logits before their scale,
    /// if it is wanted.
    fn losses(&self, logits: &mut [f32], targets: &[u32], losses: &mut [f64], wants: bool) -> Result<(), Error> {
        let cap = self.config.logit_soft_cap;
        if cap > 0.0 {
            soft_cap(self.context, logits, cap)?;
        }
        if cap > 0.0 && wants {
            self.capped(logits, targets, losses, cap)?;
        } else {
            cross_entropy(self.context, logits, targets, losses, wants)?;
        }
        if wants { self.scaled(logits, self.config.logit_scale) } else { Ok(()) }
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
