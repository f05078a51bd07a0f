//! Mixture of experts (Mixtral, arXiv:2401.04088, section 2.1; shared experts: DeepSeekMoE, arXiv:2401.06066): a router
//! picks a few feed-forward networks per token. Tokens are grouped by expert, so that a prompt runs as matrix products;
//! what a token's experts give is added in the order of their rank, so that the sum does not depend on the other tokens of
//! the batch.

use llamacpu_kernels::activation::add;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{InputBuffers, Job, matmul};

use crate::activation::gated;
use crate::config::Config;
use crate::error::{Error, sized};
use crate::feed_forward::{Inner, project, run_network};
use crate::routing::{Choice, choose, logistic};
use crate::rows::multiply;
use crate::weights::{Experts, Linear, Network};

const PURPOSE: &str = "expert buffers";

/// Buffers of the expert layers.
#[derive(Default)]
pub(crate) struct Buffers {
    /// rows × experts
    scores: Vec<f32>,
    /// rows of one expert × width
    gathered: Vec<f32>,
    /// rows of one expert × width
    given: Vec<f32>,
    /// rows × experts used × width
    results: Vec<f32>,
    /// rows × width
    shared: Vec<f32>,
    /// rows
    shared_weights: Vec<f32>,
}

/// Sets `output` (rows × width) to what the experts give for `input` (rows × width).
pub(crate) fn mixture(
    context: &Context,
    config: &Config,
    weights: &Experts,
    input: &[f32],
    (inner, buffers, scratch): (&mut Inner, &mut Buffers, &mut InputBuffers),
    output: &mut [f32],
) -> Result<(), Error> {
    let (width, used, experts) = (config.embedding_length, config.experts_used, &weights.networks[..]);
    let rows = input.len() / width;
    let scores = sized(&mut buffers.scores, rows.checked_mul(experts.len()), PURPOSE)?;
    project(context, input, rows, scratch, &mut [(&weights.router, &mut *scores)])?;
    let bias = weights.selection_bias.as_deref();
    let choices: Vec<Choice> =
        scores.chunks_exact_mut(experts.len()).flat_map(|row| choose(context.isa, config, bias, row)).collect();
    let slots = rows.checked_mul(used).and_then(|slots| slots.checked_mul(width));
    let results = sized(&mut buffers.results, slots, PURPOSE)?;
    if rows == 1 && !config.expert_weights_on_input && experts.iter().all(is_gated_without_bias) {
        single_token(context, config, experts, &choices, input, (inner, scratch), results)?;
    } else {
        // The slots of an expert stand together, in the order of their tokens.
        let mut slots: Vec<usize> = (0..choices.len()).collect();
        slots.sort_by_key(|&slot| choices[slot].expert);
        for slots in slots.chunk_by(|&left, &right| choices[left].expert == choices[right].expert) {
            let size = slots.len().checked_mul(width);
            let gathered = sized(&mut buffers.gathered, size, PURPOSE)?;
            for (row, &slot) in gathered.chunks_exact_mut(width).zip(slots) {
                let token = slot / used;
                row.copy_from_slice(&input[token * width..(token + 1) * width]);
                if config.expert_weights_on_input {
                    multiply(row, choices[slot].weight);
                }
            }
            let given = sized(&mut buffers.given, size, PURPOSE)?;
            let expert = &experts[choices[slots[0]].expert];
            run_network(context, config.activation, expert, gathered, slots.len(), (inner, scratch), given)?;
            for (row, &slot) in given.chunks_exact(width).zip(slots) {
                results[slot * width..(slot + 1) * width].copy_from_slice(row);
            }
        }
    }
    output.fill(0.0);
    for (row, sum) in output.chunks_exact_mut(width).enumerate() {
        for slot in row * used..(row + 1) * used {
            let weight = if config.expert_weights_on_input { 1.0 } else { choices[slot].weight };
            for (total, given) in sum.iter_mut().zip(&results[slot * width..(slot + 1) * width]) {
                *total += weight * given;
            }
        }
    }
    let Some(network) = &weights.shared else { return Ok(()) };
    let shared = sized(&mut buffers.shared, Some(input.len()), PURPOSE)?;
    run_network(context, config.activation, network, input, rows, (inner, scratch), shared)?;
    if let Some(gate) = &weights.shared_gate {
        let shares = sized(&mut buffers.shared_weights, Some(rows), PURPOSE)?;
        project(context, input, rows, scratch, &mut [(gate, &mut *shares)])?;
        for (row, &share) in shared.chunks_exact_mut(width).zip(&*shares) {
            multiply(row, logistic(context.isa, share));
        }
    }
    Ok(add(context, output, shared)?)
}

fn is_gated_without_bias(network: &Network) -> bool {
    let plain = |linear: &Linear| linear.bias.is_none();
    network.gate.as_ref().is_some_and(plain) && plain(&network.up) && plain(&network.down)
}

/// All experts of one token: their gates and ups share the input, so one product computes them.
fn single_token(
    context: &Context,
    config: &Config,
    experts: &[Network],
    choices: &[Choice],
    input: &[f32],
    (inner, scratch): (&mut Inner, &mut InputBuffers),
    results: &mut [f32],
) -> Result<(), Error> {
    let width = experts[0].up.rows();
    let (gate, up) = inner.views(choices.len().checked_mul(width))?;
    let mut jobs = Vec::with_capacity(2 * choices.len());
    for ((gate, up), choice) in gate.chunks_exact_mut(width).zip(up.chunks_exact_mut(width)).zip(choices) {
        let expert = &experts[choice.expert];
        if let Some(weights) = &expert.gate {
            jobs.push(Job { weights: &weights.matrix, output: gate });
        }
        jobs.push(Job { weights: &expert.up.matrix, output: up });
    }
    matmul(context, input, 1, scratch, &mut jobs)?;
    gated(context, config.activation, gate, up)?;
    for ((gated, result), choice) in gate.chunks_exact(width).zip(results.chunks_exact_mut(input.len())).zip(choices) {
        let down = &experts[choice.expert].down.matrix;
        matmul(context, gated, 1, scratch, &mut [Job { weights: down, output: result }])?;
    }
    Ok(())
}
