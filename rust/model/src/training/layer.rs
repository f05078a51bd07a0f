//! A layer forward and backward. It follows `forward.rs`, the definition of what a layer computes.

use llamacpu_kernels::activation::{add, add_into, copy};

use super::adapters::Part;
use super::attention::{Gradients, Heads};
use super::buffers::{Saved, Work};
use super::linear::{Base, Products};
use super::run::Run;
use crate::Error;
use crate::config::Norms;
use crate::norms::{normalize, normalize_in_place, rows_norm};
use crate::rotations::Angles;
use crate::weights::{Attention, FeedForward, HeadAttention, Layer, Network, Norm};

/// The attention of a layer; others have been refused.
fn heads(weights: &Layer) -> Option<&HeadAttention> {
    match &weights.attention {
        Some(Attention::Heads(heads)) => Some(heads),
        _ => None,
    }
}

/// The network of a layer; others have been refused.
fn network(weights: &Layer) -> Option<&Network> {
    match &weights.feed_forward {
        Some(FeedForward::Dense(network)) => Some(network),
        _ => None,
    }
}

impl Run<'_> {
    /// Sets `saved` for the layer's input, and `output` to its output, if it is wanted.
    pub(super) fn layer(
        &self,
        (index, weights): (usize, &Layer),
        input: &[f32],
        (saved, work): (&mut Saved, &mut Work),
        output: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Work { normed, branch, query, key, shared, low, packed, packed_low, bytes, inputs, angles, .. } = work;
        let (normed, branch) = (&mut normed[..input.len()], &mut branch[..input.len()]);
        let products = &mut Products { base: Base { packed, bytes, inputs }, packed_low, low };
        self.normalized(weights.attention_norm.as_ref(), input, normed)?;
        let mut middle = std::mem::take(&mut saved.middle);
        if let Some(attention) = heads(weights) {
            let heads = &mut Heads { query, key, angles };
            self.attention((index, attention), normed, saved, (heads, products), Some(&mut *branch))?;
            let norm = weights.attention_output_norm.as_ref();
            self.join(norm, (input, branch), &mut saved.behind[0], &mut middle[..input.len()])?;
        } else {
            copy(self.context, &mut middle[..input.len()], input)?;
        }
        saved.middle = middle;
        if let Some(network) = network(weights) {
            if !self.config.parallel {
                self.normalized(weights.feed_forward_norm.as_ref(), &saved.middle[..input.len()], normed)?;
            }
            // The product is needed for the output, and by a norm behind it.
            let wanted = output.is_some() || weights.feed_forward_output_norm.is_some();
            let result = wanted.then_some(&mut *branch);
            self.feed_forward((index, network), normed, saved, (shared, products), result)?;
            if wanted {
                // Without an output, only what the norm needs is computed: the stream goes to a buffer that is free.
                let stream = output.unwrap_or(normed);
                let norm = weights.feed_forward_output_norm.as_ref();
                let before = &saved.middle[..input.len()];
                self.join(norm, (before, branch), &mut saved.behind[1], stream)?;
            }
        } else if let Some(output) = output {
            copy(self.context, output, &saved.middle[..input.len()])?;
        }
        Ok(())
    }

    fn normalized(&self, norm: Option<&Norm>, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        if let Some(norm) = norm {
            return normalize(self.context, self.config, norm, input, output);
        }
        Ok(copy(self.context, output, input)?)
    }

    /// Sets the output to the sum of the stream and a block's output, `branch`; keeps what the norm behind the block normalizes.
    /// Overwrites `branch`.
    fn join(
        &self,
        norm: Option<&Norm>,
        (stream, branch): (&[f32], &mut [f32]),
        behind: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), Error> {
        let of_stream = self.config.norms == Norms::Stream;
        if norm.is_some() && !of_stream {
            copy(self.context, &mut behind[..branch.len()], branch)?;
            normalize_in_place(self.context, self.config, norm, branch)?;
        }
        self.scaled(branch, self.config.residual_scale)?;
        add_into(self.context, (stream, branch), output)?;
        if norm.is_some() && of_stream {
            copy(self.context, &mut behind[..output.len()], output)?;
            normalize_in_place(self.context, self.config, norm, output)?;
        }
        Ok(())
    }

    /// The reverse of `join`: `gradient` becomes that with respect to the stream before. Returns the gradient with respect to
    /// the block's output, which is in `branch` if it is another one.
    fn join_back<'b>(
        &self,
        norm: Option<&Norm>,
        gradient: &'b mut [f32],
        branch: &'b mut [f32],
        behind: &[f32],
    ) -> Result<&'b [f32], Error> {
        let of_stream = self.config.norms == Norms::Stream;
        let norm = norm.map(|norm| rows_norm(self.config, norm));
        if let Some(norm) = norm.as_ref().filter(|_| of_stream) {
            norm.backward(self.context, &behind[..gradient.len()], gradient)?;
        }
        let norm = norm.filter(|_| !of_stream);
        if norm.is_none() && self.config.residual_scale == 1.0 {
            return Ok(gradient);
        }
        copy(self.context, branch, gradient)?;
        self.scaled(branch, self.config.residual_scale)?;
        if let Some(norm) = norm {
            norm.backward(self.context, &behind[..branch.len()], branch)?;
        }
        Ok(branch)
    }

    /// Turns the gradient with respect to the layer's output into that with respect to its input, and adds the gradients
    /// of its adapters. Where nothing is learned before it, the gradient with respect to its input is not computed.
    pub(super) fn layer_back(
        &self,
        (index, weights): (usize, &Layer),
        input: &[f32],
        (saved, work, back): (&mut Saved, &mut Work, &Angles),
        (gradient, of_input): (&mut [f32], &mut [f32]),
        gradients: &mut [f32],
    ) -> Result<(), Error> {
        let Work {
            normed,
            branch,
            query,
            key,
            wide,
            of_key,
            of_value,
            shared,
            low,
            packed,
            packed_low,
            bytes,
            inputs,
            angles,
        } = work;
        let (normed, branch) = (&mut normed[..input.len()], &mut branch[..input.len()]);
        let products = &mut Products { base: Base { packed, bytes, inputs }, packed_low, low };
        let first = self.adapters.is_first(index);
        let attends = !first || self.adapted(index, Part::of_attention);
        let parallel = self.config.parallel;
        let attention_norm = weights.attention_norm.as_ref();
        let mut started = false;
        if let Some(network) = network(weights) {
            let (behind, middle) = (std::mem::take(&mut saved.behind[1]), std::mem::take(&mut saved.middle));
            let of_output = self.join_back(weights.feed_forward_output_norm.as_ref(), gradient, branch, &behind)?;
            let norm = if parallel { attention_norm } else { weights.feed_forward_norm.as_ref() };
            let entry = if parallel { input } else { &middle[..input.len()] };
            self.normalized(norm, entry, normed)?;
            let buffers = (&mut shared[..], &mut *products);
            let wanted = (!first || attends && !parallel).then_some(&mut *of_input);
            let known = (&*normed, of_output);
            self.feed_forward_back((index, network), known, saved, buffers, gradients, wanted)?;
            if parallel {
                started = true;
            } else if attends {
                if let Some(norm) = norm {
                    rows_norm(self.config, norm).backward(self.context, entry, of_input)?;
                }
                add(self.context, gradient, of_input)?;
            }
            (saved.behind[1], saved.middle) = (behind, middle);
        }
        if let Some(attention) = heads(weights).filter(|_| attends) {
            // In parallel blocks both outputs are added to one stream, of which `gradient` is still the gradient.
            let behind = std::mem::take(&mut saved.behind[0]);
            let of_output = self.join_back(weights.attention_output_norm.as_ref(), gradient, branch, &behind)?;
            self.normalized(attention_norm, input, normed)?;
            let heads = &mut Heads { query, key, angles };
            let [of_query, attended] = wide;
            let of = Gradients { query: of_query, attended, key: of_key, value: of_value };
            let known = (&*normed, of_output);
            let buffers = (heads, back, of, products);
            if started && !first {
                // Two gradients with respect to the same input: the second one takes the place of its input.
                let mut sum = std::mem::take(&mut saved.middle);
                let wanted = Some(&mut sum[..input.len()]);
                self.attention_back((index, attention), known, saved, buffers, gradients, wanted)?;
                add(self.context, of_input, &sum[..input.len()])?;
                saved.middle = sum;
            } else {
                let wanted = (!first).then_some(&mut *of_input);
                self.attention_back((index, attention), known, saved, buffers, gradients, wanted)?;
            }
            saved.behind[0] = behind;
            started = true;
        }
        if first || !started {
            return Ok(());
        }
        if let Some(norm) = attention_norm {
            rows_norm(self.config, norm).backward(self.context, input, of_input)?;
        }
        Ok(add(self.context, gradient, of_input)?)
    }
}
