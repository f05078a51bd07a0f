//! The feed-forward network of a layer.

use llamacpu_kernels::activation::copy;
use llamacpu_kernels::backward::{Sum, View};

use super::activation::{gated_back, plain_back};
use super::adapters::Part;
use super::buffers::Saved;
use super::linear::{Place, Products};
use super::run::Run;
use crate::Error;
use crate::activation::{gated, plain};
use crate::weights::Network;

impl Run<'_> {
    /// Sets `saved.gate` and `saved.up` for the input, and `output` to the network's output if it is wanted.
    pub(super) fn feed_forward(
        &self,
        (layer, network): (usize, &Network),
        input: &[f32],
        saved: &mut Saved,
        (inner, products): (&mut [f32], &mut Products),
        output: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let (rows, width) = (self.rows(), network.up.rows());
        let place = |part, linear| Place { layer, part, linear };
        let entries = [Some(&network.up), network.gate.as_ref()];
        let entries: Vec<_> = entries.into_iter().flatten().map(|linear| &linear.matrix).collect();
        self.arrange(&entries, View::new(input, rows, self.config.embedding_length)?, &mut products.base)?;
        if let Some(gate) = &network.gate {
            let low = &mut saved.low[Part::Gate as usize];
            self.project(place(Part::Gate, gate), input, products, low, &mut saved.gate[..rows * width])?;
        }
        let low = &mut saved.low[Part::Up as usize];
        self.project(place(Part::Up, &network.up), input, products, low, &mut saved.up[..rows * width])?;
        let inner = &mut inner[..rows * width];
        self.inner(network, saved, inner)?;
        let low = &mut saved.low[Part::Down as usize];
        let Some(output) = output else {
            return self.project_low(place(Part::Down, &network.down), inner, products, low);
        };
        self.arrange(&[&network.down.matrix], View::new(inner, rows, width)?, &mut products.base)?;
        self.project(place(Part::Down, &network.down), inner, products, low, output)
    }

    /// The input of the last matrix: `function(gate) * up`.
    fn inner(&self, network: &Network, saved: &Saved, inner: &mut [f32]) -> Result<(), Error> {
        let (context, activation) = (self.context, self.config.activation);
        if network.gate.is_some() {
            copy(context, inner, &saved.gate[..inner.len()])?;
            gated(context, activation, inner, &saved.up[..inner.len()])
        } else {
            copy(context, inner, &saved.up[..inner.len()])?;
            plain(context, activation, inner)
        }
    }

    /// From the gradient with respect to the output: adds those of the adapters, and sets `of_input` if it is wanted.
    /// Overwrites what was saved.
    pub(super) fn feed_forward_back(
        &self,
        (layer, network): (usize, &Network),
        (input, gradient): (&[f32], &[f32]),
        saved: &mut Saved,
        (inner, of_inner, products): (&mut [f32], &mut [f32], &mut Products),
        gradients: &mut [f32],
        of_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let len = self.rows() * network.up.rows();
        let (inner, of_inner) = (&mut inner[..len], &mut of_inner[..len]);
        let place = |part, linear| Place { layer, part, linear };
        self.inner(network, saved, inner)?;
        let low = &saved.low[Part::Down as usize];
        let known = (&*inner, &low[..], gradient);
        let more = of_input.is_some() || self.adapted(layer, |part| matches!(part, Part::Gate | Part::Up));
        let of_inner = if more { Some((of_inner, Sum::SET)) } else { None };
        let Some((of_inner, sum)) = of_inner else {
            return self.project_back(place(Part::Down, &network.down), known, products, gradients, None);
        };
        self.project_back(place(Part::Down, &network.down), known, products, gradients, Some((&mut *of_inner, sum)))?;
        let mut of_input = of_input;
        let up = &mut saved.up[..len];
        let mut sum = Sum::SET;
        if let Some(matrix) = &network.gate {
            let gate = &mut saved.gate[..len];
            gated_back(self.context, self.config.activation, gate, up, of_inner)?;
            let known = (input, &saved.low[Part::Gate as usize][..], &*gate);
            let of_input = of_input.as_deref_mut().map(|of_input| (of_input, sum));
            self.project_back(place(Part::Gate, matrix), known, products, gradients, of_input)?;
            sum = Sum::ADD;
        } else {
            plain_back(self.context, self.config.activation, up, of_inner)?;
        }
        let known = (input, &saved.low[Part::Up as usize][..], &*up);
        let of_input = of_input.map(|of_input| (of_input, sum));
        self.project_back(place(Part::Up, &network.up), known, products, gradients, of_input)
    }
}
