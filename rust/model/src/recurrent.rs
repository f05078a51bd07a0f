//! Recurrent layers: the projections around a gated delta network (S. Yang et al., arXiv:2412.06464; Qwen3-Next), whose
//! state takes the place of keys and values.

use std::ops::Range;

use llamacpu_kernels::context::Context;
use llamacpu_kernels::recurrent::{DeltaItem, DeltaNet, delta_net};

use crate::error::{Error, sized, zeroed};
use crate::feed_forward::project;
use crate::kv::{LayerState, Pages, input_numbers};
use crate::pass::{Pass, Segment, keep_last};
use crate::scratch::Scratch;
use crate::weights::{Attention, Controls, Inputs, RecurrentLayer, Weights};

const PURPOSE: &str = "recurrent layers";

/// Buffers of recurrent layers; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct RecurrentBuffers {
    /// queries, keys and values
    channels: Vec<f32>,
    /// value heads × value size
    gate: Vec<f32>,
    /// value heads: how much they write
    write: Vec<f32>,
    /// value heads: the time that passes
    time: Vec<f32>,
    /// channels and gate, as one matrix computes them
    inputs: Vec<f32>,
    /// 2 × value heads: write and time, as one matrix computes them
    controls: Vec<f32>,
    /// value heads × value size
    read: Vec<f32>,
    /// what the network needs
    scratch: Vec<f32>,
}

/// Same as [`crate::attention::run`], for a recurrent layer: continues the states instead of writing pages.
pub(crate) fn run(
    pass: &Pass,
    weights: &RecurrentLayer,
    input: &[f32],
    segments: &mut [Segment],
    (buffers, scratch): (&mut RecurrentBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let (context, rows, net) = (pass.context, pass.places.len(), &weights.net);
    let RecurrentBuffers { channels, gate, write, time, inputs, controls, read, scratch: numbers } = buffers;
    let channels = sized(channels, rows.checked_mul(net.channels()), PURPOSE)?;
    let gate = sized(gate, rows.checked_mul(net.value_width()), PURPOSE)?;
    let write = sized(write, rows.checked_mul(net.value_heads), PURPOSE)?;
    let time = sized(time, rows.checked_mul(net.value_heads), PURPOSE)?;
    let read = sized(read, rows.checked_mul(net.value_width()), PURPOSE)?;
    let numbers = sized(numbers, rows.checked_mul(net.scratch()), PURPOSE)?;

    let mut projections = Vec::with_capacity(4);
    let mut joined_inputs = match &weights.inputs {
        Inputs::Separate { channels: of_channels, gate: of_gate } => {
            projections.extend([(of_channels, &mut *channels), (of_gate, &mut *gate)]);
            None
        }
        Inputs::Joined(all) => Some((all, sized(inputs, rows.checked_mul(all.rows()), PURPOSE)?)),
    };
    let mut joined_controls = match &weights.controls {
        Controls::Separate { write: of_write, time: of_time } => {
            projections.extend([(of_write, &mut *write), (of_time, &mut *time)]);
            None
        }
        Controls::Joined(both) => Some((both, sized(controls, rows.checked_mul(both.rows()), PURPOSE)?)),
    };
    for (linear, output) in joined_inputs.iter_mut().chain(&mut joined_controls) {
        projections.push((linear, output));
    }
    project(context, input, rows, scratch, &mut projections)?;
    drop(projections);
    if let Some((_, joined)) = joined_inputs {
        part_inputs(net, joined, channels, gate);
    }
    if let Some((_, joined)) = joined_controls {
        part_controls(net, joined, write, time);
    }

    let mut parts = Vec::with_capacity(segments.len());
    let mut row = 0;
    for segment in &mut *segments {
        let rows = row..row + segment.tokens.len();
        row = rows.end;
        let state = segment.pages.state(pass.layer)?;
        let middle = rows.start + state.middle.as_ref().map_or(0, |(tokens, _)| *tokens);
        let last = |width: usize| middle * width..rows.end * width;
        note([&channels[last(net.channels())], &write[last(net.value_heads)], &time[last(net.value_heads)]], state.log);
        parts.push((rows, middle, state));
    }
    let tables = Tables { channels, write, time, gate };
    let own = weights.delta_weights();
    let mut rest = &mut *read;
    // A long text goes through the network in two parts, between which its state is kept.
    let (mut items, mut left, mut second) = (Vec::new(), Vec::new(), Vec::with_capacity(parts.len()));
    for (rows, middle, LayerState { before, middle: kept, state, .. }) in parts {
        let (whole, others) = rest.split_at_mut(rows.len() * net.value_width());
        rest = others;
        let (start, end) = whole.split_at_mut((middle - rows.start) * net.value_width());
        match kept {
            Some((_, kept)) => {
                items.push(tables.item(net, rows.start..middle, (before, kept), start));
                left.push((middle..rows.end, state, end));
            }
            None => second.push(tables.item(net, rows, (before, state), end)),
        }
    }
    if !items.is_empty() {
        delta_net(context, net, &own, &mut items, numbers)?;
    }
    for (DeltaItem { state: kept, .. }, (rows, state, end)) in items.into_iter().zip(left) {
        second.push(tables.item(net, rows, (Some(kept), state), end));
    }
    delta_net(context, net, &own, &mut second, numbers)?;
    drop(second);
    if pass.kept == 0 {
        return Ok(());
    }
    if pass.kept < rows {
        keep_last(segments, read, net.value_width(), |segment| (segment.tokens.len(), segment.kept));
    }
    let read = &read[..pass.kept * net.value_width()];
    project(context, read, pass.kept, scratch, &mut [(&weights.output, output)])
}

/// Copies the inputs of some tokens to where a session keeps them.
fn note(inputs: [&[f32]; 3], log: &mut [f32]) {
    let mut rest = log;
    for values in inputs {
        let (own, others) = rest.split_at_mut(values.len());
        own.copy_from_slice(values);
        rest = others;
    }
}

/// What the network reads of all rows.
struct Tables<'a> {
    channels: &'a [f32],
    write: &'a [f32],
    time: &'a [f32],
    gate: &'a [f32],
}

impl<'a> Tables<'a> {
    /// Some rows, which belong to one session.
    fn item(
        &self,
        net: &DeltaNet,
        rows: Range<usize>,
        (before, state): (Option<&'a [f32]>, &'a mut [f32]),
        output: &'a mut [f32],
    ) -> DeltaItem<'a> {
        let part = |width: usize| rows.start * width..rows.end * width;
        DeltaItem {
            channels: &self.channels[part(net.channels())],
            write: &self.write[part(net.value_heads)],
            time: &self.time[part(net.value_heads)],
            gate: Some(&self.gate[part(net.value_width())]),
            before,
            state,
            output,
        }
    }
}

/// Runs the tokens since the last state, up to `tokens`, through the recurrence alone, if their inputs are all there.
/// Returns whether they were.
pub(crate) fn run_again(context: &Context, weights: &Weights, pages: &mut Pages, tokens: usize) -> Result<bool, Error> {
    let Some(inputs) = pages.logged(tokens)? else { return Ok(false) };
    pages.begin_replay(tokens)?;
    for (layer, rows) in inputs {
        let Some(Attention::Recurrent(weights)) = &weights.layers[layer].attention else { continue };
        let net = &weights.net;
        let count = rows.len() / input_numbers(net);
        let (channels, rest) = rows.split_at(count * net.channels());
        let (write, time) = rest.split_at(count * net.value_heads);
        let mut read = zeroed(count.checked_mul(net.value_width()), PURPOSE)?;
        let mut numbers = zeroed(count.checked_mul(net.scratch()), PURPOSE)?;
        let LayerState { before, state, .. } = pages.state(layer)?;
        let item = DeltaItem { channels, write, time, gate: None, before, state, output: &mut read };
        delta_net(context, net, &weights.delta_weights(), &mut [item], &mut numbers)?;
    }
    pages.commit_replay();
    Ok(true)
}

/// Parts the rows of a joined matrix: for each key head, its query and key, and the values and gates of its value heads.
fn part_inputs(net: &DeltaNet, joined: &[f32], channels: &mut [f32], gate: &mut [f32]) {
    let (key, value) = (net.key_size, net.value_width() / net.key_heads);
    let rows = channels.chunks_exact_mut(net.channels()).zip(gate.chunks_exact_mut(net.value_width()));
    for (joined, (channels, gate)) in joined.chunks_exact(net.channels() + net.value_width()).zip(rows) {
        let (queries, rest) = channels.split_at_mut(net.key_heads * key);
        let (keys, values) = rest.split_at_mut(net.key_heads * key);
        let heads = queries.chunks_exact_mut(key).zip(keys.chunks_exact_mut(key));
        let heads = heads.zip(values.chunks_exact_mut(value)).zip(gate.chunks_exact_mut(value));
        for (joined, (((query, keys), values), gate)) in joined.chunks_exact(2 * (key + value)).zip(heads) {
            query.copy_from_slice(&joined[..key]);
            keys.copy_from_slice(&joined[key..2 * key]);
            values.copy_from_slice(&joined[2 * key..2 * key + value]);
            gate.copy_from_slice(&joined[2 * key + value..]);
        }
    }
}

/// Parts the rows of a joined matrix: for each key head, what its value heads write, and then the time that passes.
fn part_controls(net: &DeltaNet, joined: &[f32], write: &mut [f32], time: &mut [f32]) {
    let size = net.value_heads / net.key_heads;
    let heads = write.chunks_exact_mut(size).zip(time.chunks_exact_mut(size));
    for (both, (write, time)) in joined.chunks_exact(2 * size).zip(heads) {
        write.copy_from_slice(&both[..size]);
        time.copy_from_slice(&both[size..]);
    }
}
