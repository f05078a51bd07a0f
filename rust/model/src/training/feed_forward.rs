//! The feed-forward network of a layer.

use llamacpu_kernels::activation::copy;
use llamacpu_kernels::backward::Sum;

use super::activation::{gated_back, plain_back};
use super::adapters::Part;
use super::buffers::Saved;
use super::linear::{Map, Place, Products};
use super::run::Run;
use crate::Error;
use crate::activation::{gated_into, plain};
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
        let Saved { gate, up, low, .. } = &mut *saved;
        let [.., low_of_gate, low_of_up, _] = low;
        let mut maps = Vec::new();
        if let Some(matrix) = &network.gate {
            maps.push(Map { place: place(Part::Gate, matrix), low: low_of_gate, output: &mut gate[..rows * width] });
        }
        maps.push(Map { place: place(Part::Up, &network.up), low: low_of_up, output: &mut up[..rows * width] });
        self.project(&mut maps, input, products)?;
        let inner = &mut inner[..rows * width];
        self.inner(network, saved, inner)?;
        let low = &mut saved.low[Part::Down as usize];
        let place = place(Part::Down, &network.down);
        let Some(output) = output else {
            return self.project_low(place, inner, products, low);
        };
        self.project(&mut [Map { place, low, output }], inner, products)
    }

    /// The input of the last matrix: `function(gate) * up`.
    fn inner(&self, network: &Network, saved: &Saved, inner: &mut [f32]) -> Result<(), Error> {
        let (context, activation) = (self.context, self.config.activation);
        let up = &saved.up[..inner.len()];
        if network.gate.is_some() {
            gated_into(context, activation, (&saved.gate[..inner.len()], up), inner)
        } else {
            copy(context, inner, up)?;
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
        (inner, products): (&mut [f32], &mut Products),
        gradients: &mut [f32],
        of_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let len = self.rows() * network.up.rows();
        let inner = &mut inner[..len];
        let place = |part, linear| Place { layer, part, linear };
        let down = place(Part::Down, &network.down);
        let low = &saved.low[Part::Down as usize];
        if of_input.is_none() && !self.adapted(layer, |part| matches!(part, Part::Gate | Part::Up)) {
            self.inner(network, saved, inner)?;
            return self.project_back(down, (Some(inner), low, gradient), products, gradients, None);
        }
        // First the gradient with respect to the input of the last matrix, then that input itself in its place.
        let wanted = Some((&mut *inner, Sum::SET));
        self.project_back(down, (None, low, gradient), products, gradients, wanted)?;
        let (gate, up) = (&mut saved.gate, &mut saved.up[..len]);
        if network.gate.is_some() {
            gated_back(self.context, self.config.activation, &mut gate[..len], up, inner)?;
        } else {
            plain_back(self.context, self.config.activation, up, inner)?;
        }
        if let Some(target) = self.adapters.of(layer, Part::Down) {
            self.of_a(target, inner, products, gradients)?;
        }
        let mut of_input = of_input;
        let mut sum = Sum::SET;
        if let Some(matrix) = &network.gate {
            let known = (Some(input), &saved.low[Part::Gate as usize][..], &gate[..len]);
            let of_input = of_input.as_deref_mut().map(|of_input| (of_input, sum));
            self.project_back(place(Part::Gate, matrix), known, products, gradients, of_input)?;
            sum = Sum::ADD;
        }
        let known = (Some(input), &saved.low[Part::Up as usize][..], &*up);
        let of_input = of_input.map(|of_input| (of_input, sum));
        self.project_back(place(Part::Up, &network.up), known, products, gradients, of_input)
    }
}
