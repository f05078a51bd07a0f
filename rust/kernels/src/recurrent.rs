//! Recurrent layers: gated delta networks (S. Yang et al., "Gated Delta Networks: Improving Mamba2 with Delta Rule",
//! arXiv:2412.06464) behind a short causal convolution.
//!
//! A sequence has a state of fixed size: the last inputs of the convolution, and for each value head a matrix that maps
//! keys to values. Tokens go through it one after the other, whatever the number of them in a call, so that the results
//! do not depend on where a text was divided. Value heads are independent of each other; within a head, sixteen columns
//! of the matrix are a block that stays in the L1 cache while all tokens pass.

mod convolution;
mod recurrence;
mod shape;

use crate::Error;
use crate::context::Context;
use crate::shared::SharedSlice;

use convolution::{PIECE_ROWS, convolve};
use recurrence::{Head, advance};
use shape::Place;
pub use shape::{DeltaItem, DeltaNet, DeltaWeights};

/// Runs the tokens of all items through the network: convolution, `silu`, the recurrence, the norm of each value head and
/// its gate.
///
/// For each token, with queries and keys divided by their length (and queries by the root of their size), the matrix of a
/// head first decays, `S = exp(decay softplus(time)) S`, then learns what it lacks, `S = S + k (write (v - S' k))'`, and
/// is read, `o = S' q`. The output is `norm(o) silu(gate)`. `scratch` has [`DeltaNet::scratch`] numbers per token.
///
/// # Errors
/// `Error::Shape` if the sizes do not fit together; `Error::Cancelled` if the context was interrupted.
pub fn delta_net(
    context: &Context,
    net: &DeltaNet,
    weights: &DeltaWeights,
    items: &mut [DeltaItem],
    scratch: &mut [f32],
) -> Result<(), Error> {
    check(net, weights, items, scratch)?;
    let mut places = Vec::with_capacity(items.len());
    let mut start = 0;
    for item in &*items {
        let tokens = item.channels.len() / net.channels();
        let gates = start + tokens * net.channels();
        let products = gates + 2 * tokens * net.value_heads;
        places.push(Place { tokens, mixed: start, gates, products });
        start = products + tokens * net.key_heads;
    }
    let results = SharedSlice::new(&mut *scratch);

    // Heads of keys, then heads of values, in as many groups as there may be threads waiting for a single token.
    let heads = net.key_heads + net.value_heads;
    let groups = heads.min(8);
    let mut pieces = Vec::new();
    for (item, place) in places.iter().enumerate() {
        for first in (0..place.tokens).step_by(PIECE_ROWS) {
            pieces.extend((0..groups).map(|group| (item, first, group)));
        }
    }
    let inputs: &[DeltaItem] = items;
    context.for_each(pieces.len(), &|piece| {
        let (item, first, group) = pieces[piece];
        let rows = first..(first + PIECE_ROWS).min(places[item].tokens);
        for head in heads * group / groups..heads * (group + 1) / groups {
            // SAFETY: a piece writes the results of its own heads and rows, and `Context::for_each` hands it out once.
            unsafe { convolve(context.isa, net, weights, &inputs[item], places[item], (head, rows.clone()), &results) };
        }
    })?;

    let results = &*scratch;
    let states: Vec<_> = items
        .iter_mut()
        .map(|item| {
            let DeltaItem { channels, gate, before, state, output, .. } = item;
            (&**channels, *gate, *before, SharedSlice::new(state), SharedSlice::new(output))
        })
        .collect();
    context.for_each(states.len() * net.value_heads, &|piece| {
        let (item, head) = (piece / net.value_heads, piece % net.value_heads);
        let (channels, gate, before, state, output) = &states[item];
        let (place, key_head, size) = (places[item], net.key_head(head), net.head_numbers());
        let first = net.tail() + head * size;
        let results = |start: usize, len: usize| &results[start..][..len];
        // SAFETY: the matrices of heads do not overlap, and `Context::for_each` hands every head out once.
        let matrix = unsafe { state.part(first, size) };
        let head_work = Head {
            net,
            weights,
            index: head,
            query: results(place.query(net, key_head), place.tokens * net.key_size),
            key: results(place.key(net, key_head), place.tokens * net.key_size),
            value: results(place.value(net, head), place.tokens * net.value_size),
            decay: results(place.decay(head), place.tokens),
            write: results(place.write(net, head), place.tokens),
            product: results(place.product(key_head), place.tokens),
            gate: *gate,
            before: before.map(|before| &before[first..][..size]),
        };
        // SAFETY: the elements of heads in the rows of the output do not overlap.
        unsafe { advance(context.isa, &head_work, matrix, output) };
        let part = |head: usize| net.channels() * head / net.value_heads;
        let (start, end) = (part(head), part(head + 1));
        for row in 0..net.taps - 1 {
            // SAFETY: the channels of heads do not overlap, and the convolution has ended.
            let to = unsafe { state.part(row * net.channels() + start, end - start) };
            let from = place.tokens + row;
            match from.checked_sub(net.taps - 1) {
                Some(token) => to.copy_from_slice(&channels[token * net.channels()..][start..end]),
                None => match before {
                    Some(before) => to.copy_from_slice(&before[from * net.channels()..][start..end]),
                    None => to.fill(0.0),
                },
            }
        }
    })
}

fn check(net: &DeltaNet, weights: &DeltaWeights, items: &[DeltaItem], scratch: &[f32]) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Shape(format!("recurrent layer: {what}")));
    let sizes = [net.key_heads, net.value_heads, net.key_size, net.value_size, net.taps];
    if sizes.contains(&0) || !net.value_heads.is_multiple_of(net.key_heads) {
        return wrong(format!("{net:?}; expected sizes above 0 and a multiple of the key heads"));
    }
    let own = [
        ("convolution", weights.convolution.len(), net.taps * net.channels()),
        ("decay", weights.decay.len(), net.value_heads),
        ("time", weights.time.len(), net.value_heads),
        ("norm", weights.norm.len(), net.value_size),
    ];
    for (name, found, expected) in own {
        if found != expected {
            return wrong(format!("{found} numbers of {name}; expected {expected}"));
        }
    }
    let mut tokens = 0;
    for item in items {
        let rows = item.channels.len() / net.channels();
        tokens += rows;
        let state = net.state_numbers().unwrap_or(usize::MAX);
        let found = [
            ("channels", item.channels.len(), rows * net.channels()),
            ("write", item.write.len(), rows * net.value_heads),
            ("time", item.time.len(), rows * net.value_heads),
            ("gate", item.gate.map_or(rows * net.value_width(), <[f32]>::len), rows * net.value_width()),
            ("output", item.output.len(), rows * net.value_width()),
            ("state", item.state.len(), state),
            ("the state before", item.before.map_or(state, <[f32]>::len), state),
        ];
        for (name, found, expected) in found {
            if found != expected {
                return wrong(format!("{found} numbers of {name} for {rows} tokens; expected {expected}"));
            }
        }
    }
    if scratch.len() < tokens * net.scratch() {
        return wrong(format!("{} numbers of scratch memory for {tokens} tokens", scratch.len()));
    }
    Ok(())
}
