//! Mixture of experts (Mixtral, arXiv:2401.04088, section 2.1; shared experts: DeepSeekMoE, arXiv:2401.06066): a router
//! picks a few feed-forward networks per token. Tokens are grouped by expert so that a prompt runs as matrix products.
//! Each token's expert outputs are added in order of rank, so that the sum does not depend on the other tokens of the
//! batch.

use llamacpu_kernels::activation::add;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::Matrix;

use crate::activation::{gated, plain};
use crate::config::Config;
use crate::error::{Error, sized};
use crate::feed_forward::{NetworkBuffers, Projection, project, project_rows, run_network};
use crate::norms::{normalize, normalize_in_place};
use crate::routing::{Choice, choose, logistic};
use crate::rows::{for_rows, multiply};
use crate::scratch::Scratch;
use crate::weights::{Beside, Experts, Network};

const PURPOSE: &str = "expert buffers";

/// The minimum number of slots (a token paired with one of its experts) that justify a separate parallel region.
const LEAST_SLOTS: usize = 128;

/// Buffers of the expert layers.
#[derive(Default)]
pub(crate) struct ExpertBuffers {
    /// rows: their tokens
    pub(crate) tokens: Vec<u32>,
    /// rows × experts
    scores: Vec<f32>,
    /// slots of some experts × width
    gathered: Vec<f32>,
    /// rows × experts used × width
    results: Vec<f32>,
    /// rows × width
    shared: Vec<f32>,
    /// rows
    shared_weights: Vec<f32>,
    /// rows × width each: what the router and the experts read, and what the experts give
    beside: [Vec<f32>; 3],
}

/// A dense network and experts side by side: sets `output` to the sum of what the two give, each normalized. `input` is that
/// of the network; the experts and their router read the stream through norms of their own.
pub(crate) fn beside(
    context: &Context,
    (config, weights): (&Config, &Beside),
    (stream, input): (&[f32], &[f32]),
    (inner, buffers, scratch): (&mut NetworkBuffers, &mut ExpertBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let rows = input.len() / config.embedding_length;
    let mut own = std::mem::take(&mut buffers.beside);
    let [routed, normed, result] = &mut own;
    let routed = sized(routed, Some(input.len()), PURPOSE)?;
    let normed = sized(normed, Some(input.len()), PURPOSE)?;
    let result = sized(result, Some(input.len()), PURPOSE)?;
    normalize(context, config, &weights.router_norm, stream, routed)?;
    normalize(context, config, &weights.experts_norm, stream, normed)?;
    mixture(context, (config, &weights.experts), (routed, normed), (inner, buffers, scratch), result)?;
    normalize_in_place(context, config, Some(&weights.experts_output_norm), result)?;
    run_network(context, config.function(), &weights.network, input, rows, (inner, scratch), output)?;
    normalize_in_place(context, config, Some(&weights.network_output_norm), output)?;
    add(context, output, result)?;
    buffers.beside = own;
    Ok(())
}

/// Sets `output` (rows × width) to the experts' output for `input` (rows × width); the router reads `routed`.
pub(crate) fn mixture(
    context: &Context,
    (config, weights): (&Config, &Experts),
    (routed, input): (&[f32], &[f32]),
    (inner, buffers, scratch): (&mut NetworkBuffers, &mut ExpertBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let (width, used, experts) = (config.embedding_length, config.experts_used, &weights.networks[..]);
    let rows = input.len() / width;
    let scores = sized(&mut buffers.scores, rows.checked_mul(experts.len()), PURPOSE)?;
    project(context, routed, rows, scratch, &mut [(&weights.router, &mut *scores)])?;
    let bias = weights.selection_bias.as_deref();
    let mut choices: Vec<Choice> = Vec::with_capacity(rows * used);
    for (row, scores) in scores.chunks_exact_mut(experts.len()).enumerate() {
        let table = weights.table.as_deref().map(|table| of_token(table, used, buffers.tokens.get(row))).transpose()?;
        choices.extend(choose(context.isa, config, (bias, table), scores)?);
    }
    if let Some(scales) = &weights.scales {
        for choice in &mut choices {
            choice.weight *= scales[choice.expert];
        }
    }
    read_ahead(experts, &choices);
    for choice in &choices {
        weights.admit(choice.expert);
    }
    let slots = rows.checked_mul(used).and_then(|slots| slots.checked_mul(width));
    let results = sized(&mut buffers.results, slots, PURPOSE)?;
    // The slots of an expert are adjacent, in the order of their tokens.
    let mut slots: Vec<usize> = (0..choices.len()).collect();
    slots.sort_by_key(|&slot| choices[slot].expert);
    let mut rest = &mut *results;
    for slots in parts(&slots, &choices, rows.max(LEAST_SLOTS)) {
        let (own, others) = rest.split_at_mut(slots.len() * width);
        rest = others;
        let gathered = sized(&mut buffers.gathered, slots.len().checked_mul(width), PURPOSE)?;
        let input = if rows == 1 && !config.expert_weights_on_input {
            input
        } else {
            for_rows(context, gathered, width, &|index, row| {
                let token = slots[index] / used;
                row.copy_from_slice(&input[token * width..(token + 1) * width]);
                if config.expert_weights_on_input {
                    multiply(row, choices[slots[index]].weight);
                }
                Ok(())
            })?;
            gathered
        };
        run_experts(context, config, experts, (slots, &choices), input, (inner, scratch), own)?;
    }
    let mut places = vec![0; slots.len()];
    slots.iter().enumerate().for_each(|(place, &slot)| places[slot] = place);
    let results = &*results;
    for_rows(context, output, width, &|row, sum| {
        sum.fill(0.0);
        for slot in row * used..(row + 1) * used {
            let weight = if config.expert_weights_on_input { 1.0 } else { choices[slot].weight };
            for (total, given) in sum.iter_mut().zip(&results[places[slot] * width..][..width]) {
                *total += weight * given;
            }
        }
        Ok(())
    })?;
    let Some(network) = &weights.shared else { return Ok(()) };
    let shared = sized(&mut buffers.shared, Some(input.len()), PURPOSE)?;
    run_network(context, config.function(), network, input, rows, (inner, scratch), shared)?;
    if let Some(gate) = &weights.shared_gate {
        let shares = sized(&mut buffers.shared_weights, Some(rows), PURPOSE)?;
        project(context, input, rows, scratch, &mut [(gate, &mut *shares)])?;
        for (row, &share) in shared.chunks_exact_mut(width).zip(&*shares) {
            multiply(row, logistic(context.isa, share));
        }
    }
    Ok(add(context, output, shared)?)
}

/// The experts of a token.
fn of_token<'a>(table: &'a [u32], used: usize, token: Option<&u32>) -> Result<&'a [u32], Error> {
    let experts = token.and_then(|&token| table.chunks_exact(used).nth(token as usize));
    experts.ok_or_else(|| {
        Error::Argument("a table says which experts a token goes through: expected tokens of the vocabulary".to_owned())
    })
}

/// Starts reading all chosen experts that are on disk at once, so that the rest load while the first of them computes.
fn read_ahead(experts: &[Network], choices: &[Choice]) {
    let mut asked = vec![false; experts.len()];
    for choice in choices {
        if !std::mem::replace(&mut asked[choice.expert], true) {
            experts[choice.expert].matrices().for_each(Matrix::read_ahead);
        }
    }
}

/// Slots ordered by expert, cut at expert boundaries into parts of at most `most` slots, or of a single expert.
fn parts<'a>(slots: &'a [usize], choices: &[Choice], most: usize) -> Vec<&'a [usize]> {
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    for own in by_expert(slots, choices) {
        if end > start && end + own.len() - start > most {
            parts.push(&slots[start..end]);
            start = end;
        }
        end += own.len();
    }
    parts.push(&slots[start..end]);
    parts
}

/// Groups the slots by expert.
fn by_expert<'a>(slots: &'a [usize], choices: &[Choice]) -> impl Iterator<Item = &'a [usize]> {
    slots.chunk_by(|&left, &right| choices[left].expert == choices[right].expert)
}

/// Sets `results` (slots × width) to the output of each slot's expert for its row of `input`: the gates and ups of all
/// experts form one parallel region, the downs another. `input` has a single row for all slots, or one row per slot.
fn run_experts(
    context: &Context,
    config: &Config,
    experts: &[Network],
    (slots, choices): (&[usize], &[Choice]),
    input: &[f32],
    (inner, scratch): (&mut NetworkBuffers, &mut Scratch),
    results: &mut [f32],
) -> Result<(), Error> {
    let (width, inner_width) = (config.embedding_length, experts[0].up.rows());
    let common = input.len() == width;
    let mut first = 0;
    let mut networks = Vec::new();
    for own in by_expert(slots, choices) {
        networks.push((&experts[choices[own[0]].expert], first, own.len()));
        first += own.len();
    }
    // Rows are slots here; their adapters are those of their tokens.
    let (used, tokens) = (config.experts_used, choices.len() / config.experts_used);
    let mut sets = Vec::new();
    if !scratch.adapted.is_empty() {
        sets.extend(slots.iter().map(|slot| scratch.adapted.set_of(tokens, slot / used)));
    }
    let set_of = |row: usize| sets.get(row).copied().flatten();
    let both = inner.whole(slots.len().checked_mul(2).and_then(|rows| rows.checked_mul(inner_width)))?;
    let mut projections = Vec::with_capacity(2 * networks.len());
    for &(network, row, tokens) in &networks {
        let from = if common { 0 } else { row };
        let outputs = network.gate.iter().map(|gate| (gate, 0)).chain([(&network.up, slots.len())]);
        projections.extend(outputs.map(|(linear, skip)| Projection { linear, tokens, from, to: skip + row, row }));
    }
    project_rows(context, input, both, scratch, &projections, &set_of)?;
    let (gate, up) = both.split_at_mut(slots.len() * inner_width);
    let gated_values = if experts[0].gate.is_some() {
        gated(context, config.function(), gate, up)?;
        gate
    } else {
        plain(context, config.activation, up)?;
        up
    };
    let downs = networks.iter().map(|&(network, row, tokens)| {
        let linear = &network.down;
        Projection { linear, tokens, from: row, to: row, row }
    });
    project_rows(context, gated_values, results, scratch, &downs.collect::<Vec<_>>(), &set_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_cut_between_experts() {
        let experts = [0, 0, 0, 1, 4, 4, 5, 5, 5, 5, 5, 7];
        let choices: Vec<Choice> = experts.iter().map(|&expert| Choice { expert, weight: 1.0 }).collect();
        let slots: Vec<usize> = (0..choices.len()).collect();
        let lengths = |most| parts(&slots, &choices, most).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(lengths(4), [4, 2, 5, 1]);
        assert_eq!(lengths(5), [4, 2, 5, 1]);
        assert_eq!(lengths(6), [6, 6]);
        assert_eq!(lengths(12), [12]);
        assert_eq!(parts(&slots, &choices, 4).concat(), slots);
    }
}
