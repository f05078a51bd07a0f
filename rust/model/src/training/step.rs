//! A step: tokens in, the loss out, and gradients added up.

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::backward::View;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::Matrix;

use super::adapters::Target;
use super::buffers::Buffers;
use super::check::batch;
use super::linear::{Base, Products};
use super::loss::Ends;
use super::run::Run;
use super::trainer::{Numbers, Trainer};
use crate::embedding::embed_rows;
use crate::model::Interrupted;
use crate::rotations::{Angles, Place};
use crate::weights::Weights;
use crate::{Error, Model};

/// The tokens of packed sequences and what is to follow each: see [`Trainer::step`].
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Token ids.
    pub tokens: &'a [i32],
    /// Starts of the sequences, and at the end the number of tokens.
    pub segments: &'a [i32],
    /// What is to follow each token; -1 where nothing is learned.
    pub targets: &'a [i32],
}

impl Trainer {
    /// Runs the batch forward and backward and adds the gradients of the sum of losses to those of earlier steps. Returns
    /// the sum of the losses and the number of targets. After an error all gradients are 0.
    ///
    /// # Errors
    /// `Error::Argument` if the batch does not fit; `Error::Kernel` if the step was cancelled, a file has changed or
    /// memory ran out; `Error::Memory`.
    pub fn step(&mut self, batch: &Batch, interrupted: Option<Interrupted>) -> Result<(f64, usize), Error> {
        let result = self.run(batch, true, interrupted);
        if result.is_err() {
            self.clear_gradients();
        }
        result
    }

    /// The sum of the losses and the number of targets of a batch, forward only.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn loss(&mut self, batch: &Batch, interrupted: Option<Interrupted>) -> Result<(f64, usize), Error> {
        self.run(batch, false, interrupted)
    }

    fn run(&mut self, input: &Batch, learns: bool, interrupted: Option<Interrupted>) -> Result<(f64, usize), Error> {
        let Self { model, adapters, numbers, buffers, exact, .. } = self;
        batch(model.config(), buffers.capacity, input.tokens, input.segments, input.targets)?;
        let segments: Vec<usize> = input.segments.iter().map(|start| *start as usize).collect();
        let places = places(model, &segments);
        let Numbers { parameters, gradients, .. } = numbers;
        model.with_files(|| {
            let (context, config, weights) = model.parts(interrupted);
            let run = Run {
                context: &context,
                config,
                rotations: model.rotations(),
                adapters,
                parameters,
                segments: &segments,
                places: &places,
                exact: *exact,
            };
            // A file that was packed before may have given its pages back.
            weights.layers.iter().flat_map(|layer| layer.matrices()).for_each(Matrix::keep_rows);
            run.run(weights, input, buffers, learns.then_some(&mut gradients[..]))
        })
    }
}

/// The place of every token: positions start anew in each sequence.
fn places(model: &Model, segments: &[usize]) -> Vec<Place> {
    let of_segment = |pair: &[usize]| {
        let tokens = pair[1] - pair[0];
        let long = model.rotations().is_long(tokens);
        (0..tokens).map(move |position| Place { position, turned: [position; 3], long, second: false })
    };
    segments.windows(2).flat_map(of_segment).collect()
}

/// Stops if the caller asks for it.
fn check_interrupt(context: &Context) -> Result<(), Error> {
    if context.interrupted.is_some_and(|interrupted| interrupted()) {
        Err(KernelError::Cancelled.into())
    } else {
        Ok(())
    }
}

impl Run<'_> {
    fn run(
        &self,
        weights: &Weights,
        batch: &Batch,
        buffers: &mut Buffers,
        gradients: Option<&mut [f32]>,
    ) -> Result<(f64, usize), Error> {
        let (config, layers) = (self.config, self.config.layers);
        let len = self.rows() * config.embedding_length;
        let Buffers {
            work, streams, saved, gradient, of_input, embedded, output_low, gradient_rows, logit_rows, ..
        } = buffers;
        let kept = saved.len() - 1;
        // Which of the places a layer uses, and whether it keeps it.
        let place = |layer: usize| if layer + kept >= layers { 1 + layer + kept - layers } else { 0 };

        let tokens: Vec<u32> = batch.tokens.iter().map(|token| *token as u32).collect();
        embed_rows(self.context, (config, &weights.embedding), &tokens, (self.places, None), &mut streams[0][..len])?;
        let embedded = &mut embedded[..self.adapters.of_embedding().map_or(0, |_| self.rows() * self.adapters.rank)];
        if let Some(target) = self.adapters.of_embedding() {
            self.look_up(target, &tokens, embedded);
            let scale = self.adapters.scale * config.embedding_scale;
            self.raise((target, scale), &mut work.packed_low, embedded, &mut streams[0][..len])?;
        }
        self.rotations.set(self.context, self.places, &mut work.angles)?;
        for (index, layer) in weights.layers.iter().enumerate() {
            check_interrupt(self.context)?;
            let (before, behind) = streams.split_at_mut(index + 1);
            let (input, output) = (&before[index][..len], &mut behind[0][..len]);
            self.layer((index, layer), input, (&mut saved[place(index)], work), Some(output))?;
        }
        check_interrupt(self.context)?;
        let (states, of_states) = (&mut work.normed, &mut work.branch);
        let rows = (*gradient_rows, *logit_rows);
        let base = Base { packed: &mut work.packed, bytes: &mut work.bytes, inputs: &mut work.inputs };
        let products = Products { base, packed_low: &mut work.packed_low, low: &mut work.low };
        let ends = Ends { states, gradients: of_states, logits: &mut work.shared, rows, low: output_low, products };
        let stream = &streams[layers][..len];
        let Some(gradients) = gradients else {
            return self.loss(weights, stream, batch.targets, ends, None);
        };
        let gradient = &mut gradient[..len];
        let wanted = Some((&mut *gradient, &mut *gradients));
        let result = self.loss(weights, stream, batch.targets, ends, wanted)?;

        let mut back = Angles::default();
        self.rotations.set(self.context, self.places, &mut back)?;
        self.rotations.reverse(&mut back);
        for index in (self.adapters.first_layer()..layers).rev() {
            check_interrupt(self.context)?;
            let (layer, input, saved) = (&weights.layers[index], &streams[index][..len], &mut saved[place(index)]);
            if place(index) == 0 {
                self.layer((index, layer), input, (&mut *saved, &mut *work), None)?;
            }
            let of_stream = (&mut *gradient, &mut of_input[..len]);
            self.layer_back((index, layer), input, (saved, work, &back), of_stream, gradients)?;
        }
        if let Some(target) = self.adapters.of_embedding() {
            self.scaled(gradient, config.embedding_scale)?;
            let base = Base { packed: &mut work.packed, bytes: &mut work.bytes, inputs: &mut work.inputs };
            let products = &mut Products { base, packed_low: &mut work.packed_low, low: &mut work.low };
            let gradient = View::new(gradient, self.rows(), config.embedding_length)?;
            self.adapter_back(target, (None, embedded, gradient), products, gradients)?;
            self.spread(target, &tokens, &products.low[..embedded.len()], gradients);
        }
        Ok(result)
    }

    /// Sets every row of `low` to the column of A that belongs to its token.
    fn look_up(&self, target: &Target, tokens: &[u32], low: &mut [f32]) {
        let a = &self.parameters[self.adapters.ranges(target).0];
        for (token, numbers) in tokens.iter().zip(low.chunks_exact_mut(self.adapters.rank)) {
            let column = a[*token as usize..].iter().step_by(target.columns);
            numbers.iter_mut().zip(column).for_each(|(number, value)| *number = *value);
        }
    }

    /// Adds every row of `low` to the gradient of the column of A that belongs to its token.
    fn spread(&self, target: &Target, tokens: &[u32], low: &[f32], gradients: &mut [f32]) {
        let a = &mut gradients[self.adapters.ranges(target).0];
        for (token, numbers) in tokens.iter().zip(low.chunks_exact(self.adapters.rank)) {
            let column = a[*token as usize..].iter_mut().step_by(target.columns);
            column.zip(numbers).for_each(|(sum, number)| *sum += number);
        }
    }
}
