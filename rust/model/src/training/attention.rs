//! Attention of a layer over the packed sequences.

use llamacpu_kernels::activation::copy;
use llamacpu_kernels::attention::Visible;
use llamacpu_kernels::backward::{AttentionGradients, AttentionShape, Sum, attention_backward, attention_forward};

use super::adapters::Part;
use super::buffers::Saved;
use super::linear::{Map, Place, Products};
use super::run::Run;
use crate::Error;
use crate::attention::temperature_factor;
use crate::config::{LayerConfig, QueryKeyNorm, Sight};
use crate::norms::{heads_norm, normalize_heads};
use crate::rotations::Angles;
use crate::rows::{for_rows, multiply};
use crate::weights::{HeadAttention, Norm};

/// Queries and keys as attention sees them, and the angles of their rotation.
pub(super) struct Heads<'a> {
    pub(super) query: &'a mut [f32],
    pub(super) key: &'a mut [f32],
    pub(super) angles: &'a Angles,
}

/// Buffers for gradients.
pub(super) struct Gradients<'a> {
    /// With respect to queries.
    pub(super) query: &'a mut [f32],
    /// With respect to what queries attend to.
    pub(super) attended: &'a mut [f32],
    pub(super) key: &'a mut [f32],
    pub(super) value: &'a mut [f32],
}

impl Run<'_> {
    /// Sets everything that `saved` has of attention for the input, and `output` if it is wanted.
    pub(super) fn attention(
        &self,
        (layer, weights): (usize, &HeadAttention),
        input: &[f32],
        saved: &mut Saved,
        (heads, products): (&mut Heads, &mut Products),
        output: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let (rows, sizes) = (self.rows(), self.config.layer(layer));
        let place = |part, linear| Place { layer, part, linear };
        let Saved { query, key, value, attended, logarithms, low, .. } = saved;
        let query = &mut query[..rows * sizes.query_width()];
        let key = &mut key[..rows * sizes.key_width()];
        let value = &mut value[..rows * sizes.value_width()];
        let attended = &mut attended[..rows * sizes.attended_width()];
        let logarithms = &mut logarithms[..rows * sizes.heads];
        let [key_map, value_map] = weights.own()?;
        let [low_of_query, low_of_key, low_of_value, low, ..] = low;
        let mut maps = [
            Map { place: place(Part::Query, &weights.query), low: low_of_query, output: &mut *query },
            Map { place: place(Part::Key, key_map), low: low_of_key, output: &mut *key },
            Map { place: place(Part::Value, value_map), low: low_of_value, output: &mut *value },
        ];
        self.project(&mut maps, input, products)?;
        self.seen(&sizes, weights, (query, key), heads)?;
        let seen = (&heads.query[..query.len()], &heads.key[..key.len()], &*value);
        attention_forward(self.context, &self.shape(&sizes, weights), seen, attended, logarithms)?;
        let place = place(Part::Output, &weights.output);
        let Some(output) = output else {
            return self.project_low(place, attended, products, low);
        };
        self.project(&mut [Map { place, low, output }], attended, products)
    }

    fn shape<'a>(&'a self, sizes: &LayerConfig, weights: &'a HeadAttention) -> AttentionShape<'a> {
        let config = self.config;
        AttentionShape {
            segments: self.segments,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            key_size: sizes.key_size,
            value_size: sizes.value_size,
            scale: config.score_scale(sizes),
            soft_cap: (config.attention_soft_cap > 0.0).then_some(config.attention_soft_cap),
            sinks: weights.sinks.as_deref(),
            visible: match sizes.sight {
                Sight::Everything => Visible::Causal,
                Sight::Window(tokens) => Visible::Window(tokens),
                Sight::Chunk(tokens) => Visible::Chunk(tokens),
            },
        }
    }

    /// Queries and keys as attention sees them: normalized, rotated and scaled.
    fn seen(
        &self,
        sizes: &LayerConfig,
        weights: &HeadAttention,
        (query, key): (&[f32], &[f32]),
        heads: &mut Heads,
    ) -> Result<(), Error> {
        let behind = sizes.query_key_norm == QueryKeyNorm::Unweighted;
        let Heads { query: seen_query, key: seen_key, angles } = heads;
        for (from, to, norm, width) in [
            (query, &mut **seen_query, &weights.norms.query, sizes.query_width()),
            (key, &mut **seen_key, &weights.norms.key, sizes.key_width()),
        ] {
            let to = &mut to[..from.len()];
            copy(self.context, to, from)?;
            if !behind {
                normalize_heads(self.context, self.config, sizes, norm.as_ref(), to)?;
            }
            let turned = (&mut *to, width);
            self.rotations.turn(self.context, angles, sizes.rotation, turned, (sizes.key_size, 0))?;
            if behind {
                normalize_heads(self.context, self.config, sizes, norm.as_ref(), to)?;
            }
        }
        self.warm(sizes, &mut seen_query[..query.len()])
    }

    /// Scales the queries of distant positions, or their gradients.
    fn warm(&self, sizes: &LayerConfig, query: &mut [f32]) -> Result<(), Error> {
        if sizes.temperature == 0.0 {
            return Ok(());
        }
        for_rows(self.context, query, sizes.query_width(), &|row, query| {
            multiply(query, temperature_factor(self.config, sizes, self.places[row].position));
            Ok(())
        })
    }

    /// From the gradient with respect to the output: adds those of the adapters, and sets `of_input` if it is wanted.
    /// `back` holds the angles of the reverse rotation.
    pub(super) fn attention_back(
        &self,
        (layer, weights): (usize, &HeadAttention),
        (input, gradient): (&[f32], &[f32]),
        saved: &Saved,
        (heads, back, of, products): (&mut Heads, &Angles, Gradients, &mut Products),
        gradients: &mut [f32],
        of_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let (rows, sizes) = (self.rows(), self.config.layer(layer));
        let place = |part, linear| Place { layer, part, linear };
        let Saved { query, key, value, attended, logarithms, low, .. } = saved;
        let query = &query[..rows * sizes.query_width()];
        let key = &key[..rows * sizes.key_width()];
        let value = &value[..rows * sizes.value_width()];
        let attended = &attended[..rows * sizes.attended_width()];
        let logarithms = &logarithms[..rows * sizes.heads];
        let known = (Some(attended), &low[Part::Output as usize][..], gradient);
        let before = |part| matches!(part, Part::Query | Part::Key | Part::Value);
        let [key_map, value_map] = weights.own()?;
        if of_input.is_none() && !self.adapted(layer, before) {
            return self.project_back(place(Part::Output, &weights.output), known, products, gradients, None);
        }
        let of_attended = &mut of.attended[..attended.len()];
        let wanted = Some((&mut *of_attended, Sum::SET));
        self.project_back(place(Part::Output, &weights.output), known, products, gradients, wanted)?;

        self.seen(&sizes, weights, (query, key), heads)?;
        let seen = (&heads.query[..query.len()], &heads.key[..key.len()], value);
        let of_query = &mut of.query[..query.len()];
        let of_key = &mut of.key[..key.len()];
        let of_value = &mut of.value[..value.len()];
        let targets = AttentionGradients { query: &mut *of_query, key: &mut *of_key, value: &mut *of_value };
        let known = (attended, logarithms, &*of_attended);
        attention_backward(self.context, &self.shape(&sizes, weights), seen, known, targets)?;
        self.warm(&sizes, of_query)?;
        let norms = &weights.norms;
        let spare = (&mut *heads.query, heads.angles, back);
        self.heads_back(&sizes, norms.query.as_ref(), (query, sizes.query_width()), of_query, spare)?;
        let spare = (&mut *heads.key, heads.angles, back);
        self.heads_back(&sizes, norms.key.as_ref(), (key, sizes.key_width()), of_key, spare)?;

        let mut of_input = of_input;
        let mut sum = Sum::SET;
        for (part, linear, gradient) in [
            (Part::Query, &weights.query, &*of_query),
            (Part::Key, key_map, &*of_key),
            (Part::Value, value_map, &*of_value),
        ] {
            let known = (Some(input), &low[part as usize][..], gradient);
            let wanted = of_input.as_deref_mut().map(|of_input| (of_input, sum));
            self.project_back(place(part, linear), known, products, gradients, wanted)?;
            sum = Sum::ADD;
        }
        Ok(())
    }

    /// From the gradient with respect to normalized, rotated heads to that with respect to the heads before.
    fn heads_back(
        &self,
        sizes: &LayerConfig,
        norm: Option<&Norm>,
        (heads, width): (&[f32], usize),
        gradient: &mut [f32],
        (spare, angles, back): (&mut [f32], &Angles, &Angles),
    ) -> Result<(), Error> {
        let context = self.context;
        let norm = heads_norm(self.config, sizes, norm);
        let size = (sizes.key_size, 0);
        if let (Some(norm), QueryKeyNorm::Unweighted) = (&norm, sizes.query_key_norm) {
            let turned = &mut spare[..heads.len()];
            copy(context, turned, heads)?;
            self.rotations.turn(context, angles, sizes.rotation, (&mut *turned, width), size)?;
            norm.backward(context, turned, gradient)?;
            return self.rotations.turn(context, back, sizes.rotation, (gradient, width), size);
        }
        self.rotations.turn(context, back, sizes.rotation, (&mut *gradient, width), size)?;
        norm.map_or(Ok(()), |norm| Ok(norm.backward(context, heads, gradient)?))
    }
}
