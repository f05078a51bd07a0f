//! Linear maps with their adapters: `y = W x + b + scale · B A x`, and its gradients.

use llamacpu_kernels::backward::{
    Packed, PackedBytes, Right, Sum, View, add_bias, multiply, multiply_bytes, multiply_narrow, multiply_turned,
};
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix, matmul};

use super::adapters::{Part, Target};
use super::run::Run;
use crate::Error;
use crate::weights::Linear;

/// Buffers of the products with the model's own weights.
pub(super) struct Base<'a> {
    pub(super) packed: &'a mut Packed,
    pub(super) bytes: &'a mut PackedBytes,
    pub(super) inputs: &'a mut InputBuffers,
}

/// Buffers of all products.
pub(super) struct Products<'a> {
    pub(super) base: Base<'a>,
    pub(super) packed_low: &'a mut Packed,
    /// rows × rank, at least
    pub(super) low: &'a mut [f32],
}

impl Products<'_> {
    /// The same buffers, but of the products of A only what follows the first numbers.
    pub(super) fn from(&mut self, numbers: usize) -> Products<'_> {
        let Base { packed, bytes, inputs } = &mut self.base;
        let base = Base { packed, bytes, inputs };
        Products { base, packed_low: self.packed_low, low: &mut self.low[numbers..] }
    }
}

impl Run<'_> {
    /// Whether products with the matrix are computed in floats.
    pub(super) fn in_floats(&self, matrix: &Matrix) -> bool {
        self.exact || !matrix.is_quantized()
    }

    /// Sets every output to the product of its matrix and all rows of the input.
    pub(super) fn forward<'b>(
        &self,
        (input, rows): (&[f32], usize),
        base: &mut Base,
        products: impl Iterator<Item = (&'b Matrix, &'b mut [f32])>,
    ) -> Result<(), Error> {
        let (mut jobs, mut arranged) = (Vec::new(), false);
        for (weights, output) in products {
            if !self.in_floats(weights) {
                jobs.push(Job { weights, output });
                continue;
            }
            if !arranged {
                base.packed.set(self.context, View::new(input, rows, weights.columns())?)?;
                arranged = true;
            }
            multiply(self.context, base.packed, Right::Rows(weights), Sum::SET, output)?;
        }
        if jobs.is_empty() {
            return Ok(());
        }
        // Together, because the input is quantized once for all of them.
        Ok(matmul(self.context, input, rows, base.inputs, &mut jobs)?)
    }

    /// Sets or adds to `output` the product of the transposed matrix and every row of `gradient`.
    pub(super) fn backward(
        &self,
        matrix: &Matrix,
        gradient: View,
        base: &mut Base,
        (sum, output): (Sum, &mut [f32]),
    ) -> Result<(), Error> {
        if self.in_floats(matrix) {
            base.packed.set(self.context, gradient)?;
            return Ok(multiply(self.context, base.packed, Right::Columns(matrix), sum, output)?);
        }
        base.bytes.set(self.context, gradient)?;
        Ok(multiply_bytes(self.context, base.bytes, matrix, sum, output)?)
    }
}

/// A linear map of a layer.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) layer: usize,
    pub(super) part: Part,
    pub(super) linear: &'a Linear,
}

/// A linear map in the forward pass.
pub(super) struct Map<'a> {
    pub(super) place: Place<'a>,
    /// rows × rank, at least, if there is an adapter: `A x`.
    pub(super) low: &'a mut [f32],
    pub(super) output: &'a mut [f32],
}

impl Run<'_> {
    /// Sets the output of every map for the rows of `input`, and keeps `A x` where there is an adapter.
    pub(super) fn project(&self, maps: &mut [Map], input: &[f32], products: &mut Products) -> Result<(), Error> {
        let bases = maps.iter_mut().map(|map| (&map.place.linear.matrix, &mut *map.output));
        self.forward((input, self.rows()), &mut products.base, bases)?;
        for Map { place: Place { layer, part, linear }, low, output } in maps {
            if let Some(bias) = &linear.bias {
                add_bias(self.context, output, bias)?;
            }
            if let Some(target) = self.adapters.of(*layer, *part) {
                let low = &mut low[..self.rows() * self.adapters.rank];
                self.adapt(target, input, products, (low, output))?;
            }
        }
        Ok(())
    }

    /// From the gradient with respect to the output: adds the gradients of the adapter, and sets or adds to `of_input`
    /// the gradient with respect to the input, if it is wanted. Without an input, the gradient of A is left to `of_a`.
    pub(super) fn project_back(
        &self,
        Place { layer, part, linear }: Place,
        (input, low, gradient): (Option<&[f32]>, &[f32], &[f32]),
        products: &mut Products,
        gradients: &mut [f32],
        of_input: Option<(&mut [f32], Sum)>,
    ) -> Result<(), Error> {
        let rows = self.rows();
        let (outputs, inputs) = (linear.rows(), linear.matrix.columns());
        let gradient = View::new(gradient, rows, outputs)?;
        let target = self.adapters.of(layer, part);
        if target.is_none() && of_input.is_none() {
            return Ok(());
        }
        let mut of_input = of_input;
        if let Some((of_input, sum)) = &mut of_input {
            self.backward(&linear.matrix, gradient, &mut products.base, (*sum, of_input))?;
        }
        let Some(target) = target else { return Ok(()) };
        let low = &low[..rows * self.adapters.rank];
        let input = input.map(|input| &input[..rows * inputs]);
        self.adapter_back(target, (input, low, gradient), products, gradients)?;
        of_input.map_or(Ok(()), |(of_input, _)| self.adapter_input(target, products, of_input))
    }
}

impl Run<'_> {
    /// Adds to `output` the product of an adapter and the rows of `input`. Sets `low` to `A x`.
    pub(super) fn adapt(
        &self,
        target: &Target,
        input: &[f32],
        products: &mut Products,
        (low, output): (&mut [f32], &mut [f32]),
    ) -> Result<(), Error> {
        self.lower(target, input, products.packed_low, low)?;
        self.raise((target, self.adapters.scale), products.packed_low, low, output)
    }

    /// Sets `low` to the product of A and the rows of `input`.
    fn lower(&self, target: &Target, input: &[f32], packed: &mut Packed, low: &mut [f32]) -> Result<(), Error> {
        let rank = self.adapters.rank;
        let a = View::new(&self.parameters[self.adapters.ranges(target).0], rank, target.columns)?;
        packed.set_columns(self.context, a)?;
        let input = View::new(input, low.len() / rank, target.columns)?;
        Ok(multiply_narrow(self.context, input, packed, Sum::SET, low)?)
    }

    /// Adds to `output` the product of B, a factor and the rows of `low`.
    pub(super) fn raise(
        &self,
        (target, scale): (&Target, f32),
        packed: &mut Packed,
        low: &[f32],
        output: &mut [f32],
    ) -> Result<(), Error> {
        let rank = self.adapters.rank;
        let b = View::new(&self.parameters[self.adapters.ranges(target).1], target.rows, rank)?.transposed();
        packed.set(self.context, View::new(low, low.len() / rank, rank)?)?;
        Ok(multiply(self.context, packed, Right::Numbers(b), Sum { scale, add: true }, output)?)
    }

    /// Adds the gradients of an adapter to `gradients`: that of A, unless there is no input, and that of B, from `A x` and
    /// the gradient with respect to the output. Leaves the gradient with respect to `A x` in `products.low`.
    pub(super) fn adapter_back(
        &self,
        target: &Target,
        (input, low, gradient): (Option<&[f32]>, &[f32], View),
        products: &mut Products,
        gradients: &mut [f32],
    ) -> Result<(), Error> {
        let (context, rank, scale) = (self.context, self.adapters.rank, self.adapters.scale);
        let rows = low.len() / rank;
        let b = self.adapters.ranges(target).1;
        let between = &mut products.low[..low.len()];
        let weights = View::new(&self.parameters[b.clone()], target.rows, rank)?.transposed();
        products.packed_low.set_columns(context, weights)?;
        multiply_narrow(context, gradient, products.packed_low, Sum { scale, add: false }, between)?;
        if let Some(input) = input {
            self.of_a(target, input, products, gradients)?;
        }
        products.packed_low.set(context, View::new(low, rows, rank)?.transposed())?;
        let gradient = Right::Numbers(gradient);
        Ok(multiply_turned(context, products.packed_low, gradient, Sum { scale, add: true }, &mut gradients[b])?)
    }

    /// Adds the gradient of A for the rows of `input`, from the gradient with respect to `A x` that `adapter_back` has left.
    pub(super) fn of_a(
        &self,
        target: &Target,
        input: &[f32],
        products: &mut Products,
        gradients: &mut [f32],
    ) -> Result<(), Error> {
        let rank = self.adapters.rank;
        let rows = input.len() / target.columns;
        let between = View::new(&products.low[..rows * rank], rows, rank)?;
        products.packed_low.set(self.context, between.transposed())?;
        let input = Right::Numbers(View::new(input, rows, target.columns)?);
        let to = &mut gradients[self.adapters.ranges(target).0];
        Ok(multiply(self.context, products.packed_low, input, Sum::ADD, to)?)
    }

    /// Adds to `of_input` what follows from the gradient with respect to `A x` that `adapter_back` has left.
    pub(super) fn adapter_input(
        &self,
        target: &Target,
        products: &mut Products,
        of_input: &mut [f32],
    ) -> Result<(), Error> {
        let rank = self.adapters.rank;
        let rows = of_input.len() / target.columns;
        products.packed_low.set(self.context, View::new(&products.low[..rows * rank], rows, rank)?)?;
        let a = Right::Numbers(View::new(&self.parameters[self.adapters.ranges(target).0], rank, target.columns)?);
        Ok(multiply(self.context, products.packed_low, a, Sum::ADD, of_input)?)
    }
}

impl Run<'_> {
    /// Only `A x` of the rows of `input`, where the output itself is not needed.
    pub(super) fn project_low(
        &self,
        Place { layer, part, .. }: Place,
        input: &[f32],
        products: &mut Products,
        low: &mut [f32],
    ) -> Result<(), Error> {
        let Some(target) = self.adapters.of(layer, part) else { return Ok(()) };
        self.lower(target, input, products.packed_low, &mut low[..self.rows() * self.adapters.rank])
    }
}
