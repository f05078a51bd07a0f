//! Mixture of experts as in Mixtral (arXiv:2401.04088, section 2.1): a router picks a few feed-forward networks per token.
//! Tokens are grouped by expert, so that a prompt runs as matrix products; what a token's experts give is added in the
//! order of their rank, so that the sum does not depend on the other tokens of the batch.

use llamacpu_kernels::activation::{softmax, swiglu};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::matmul::{InputBuffers, Job, matmul};

use crate::config::{Config, ExpertGating};
use crate::error::{Error, sized};
use crate::feed_forward::{Gated, project, run_network};
use crate::weights::{Linear, SwiGlu};

/// The smallest sum by which the weights of the chosen experts are divided.
const LEAST_WEIGHT_SUM: f32 = 6.103_515_6e-5;

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
}

/// One chosen expert of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Choice {
    expert: usize,
    weight: f32,
}

/// Sets `output` (rows × width) to what the experts give for `input` (rows × width).
pub(crate) fn mixture(
    context: &Context,
    config: &Config,
    (router, experts): (&Linear, &[SwiGlu]),
    input: &[f32],
    (gated, buffers, scratch): (&mut Gated, &mut Buffers, &mut InputBuffers),
    output: &mut [f32],
) -> Result<(), Error> {
    const PURPOSE: &str = "expert buffers";
    let (width, used) = (config.embedding_length, config.experts_used);
    let rows = input.len() / width;
    let scores = sized(&mut buffers.scores, rows.checked_mul(experts.len()), PURPOSE)?;
    project(context, input, rows, scratch, &mut [(router, scores)])?;
    let choices: Vec<Choice> = buffers.scores[..rows * experts.len()]
        .chunks_exact_mut(experts.len())
        .flat_map(|row| choose(context.isa, config, row))
        .collect();
    let slots = rows.checked_mul(used).and_then(|slots| slots.checked_mul(width));
    let results = sized(&mut buffers.results, slots, PURPOSE)?;
    if rows == 1 {
        single_token(context, experts, &choices, input, (gated, scratch), results)?;
    } else {
        for (index, expert) in experts.iter().enumerate() {
            let slots: Vec<usize> = (0..choices.len()).filter(|&slot| choices[slot].expert == index).collect();
            if slots.is_empty() {
                continue;
            }
            let size = slots.len().checked_mul(width);
            let gathered = sized(&mut buffers.gathered, size, PURPOSE)?;
            for (row, &slot) in gathered.chunks_exact_mut(width).zip(&slots) {
                let token = slot / used;
                row.copy_from_slice(&input[token * width..(token + 1) * width]);
            }
            let given = sized(&mut buffers.given, size, PURPOSE)?;
            run_network(context, expert, gathered, slots.len(), (gated, scratch), given)?;
            for (row, &slot) in given.chunks_exact(width).zip(&slots) {
                results[slot * width..(slot + 1) * width].copy_from_slice(row);
            }
        }
    }
    output.fill(0.0);
    for (row, sum) in output.chunks_exact_mut(width).enumerate() {
        for slot in row * used..(row + 1) * used {
            let weight = choices[slot].weight;
            for (total, given) in sum.iter_mut().zip(&results[slot * width..(slot + 1) * width]) {
                *total += weight * given;
            }
        }
    }
    Ok(())
}

/// All experts of one token: their gates and ups share the input, so one product computes them.
fn single_token(
    context: &Context,
    experts: &[SwiGlu],
    choices: &[Choice],
    input: &[f32],
    (gated, scratch): (&mut Gated, &mut InputBuffers),
    results: &mut [f32],
) -> Result<(), Error> {
    let inner = experts[0].gate.matrix.rows();
    let (gate, up) = gated.views(choices.len().checked_mul(inner))?;
    let mut jobs = Vec::with_capacity(2 * choices.len());
    for ((gate, up), choice) in gate.chunks_exact_mut(inner).zip(up.chunks_exact_mut(inner)).zip(choices) {
        jobs.push(Job { weights: &experts[choice.expert].gate.matrix, output: gate });
        jobs.push(Job { weights: &experts[choice.expert].up.matrix, output: up });
    }
    matmul(context, input, 1, scratch, &mut jobs)?;
    swiglu(context, gate, up)?;
    for ((gated, result), choice) in gate.chunks_exact(inner).zip(results.chunks_exact_mut(input.len())).zip(choices) {
        let down = &experts[choice.expert].down.matrix;
        matmul(context, gated, 1, scratch, &mut [Job { weights: down, output: result }])?;
    }
    Ok(())
}

/// The experts of one token, best first, and their weights; the lower index wins a tie.
fn choose(isa: Isa, config: &Config, scores: &mut [f32]) -> Vec<Choice> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let rank = |expert: usize| if scores[expert].is_nan() { f32::NEG_INFINITY } else { scores[expert] };
    order.sort_by(|&left, &right| rank(right).total_cmp(&rank(left)));
    order.truncate(config.experts_used);
    let mut weights: Vec<f32> = match config.expert_gating {
        ExpertGating::Softmax => {
            softmax(isa, scores);
            order.iter().map(|&expert| scores[expert]).collect()
        }
        ExpertGating::SoftmaxSelected => {
            let mut chosen: Vec<f32> = order.iter().map(|&expert| scores[expert]).collect();
            softmax(isa, &mut chosen);
            chosen
        }
        // The logistic function of x is the softmax of (x, 0).
        ExpertGating::Sigmoid => order
            .iter()
            .map(|&expert| {
                let mut pair = [scores[expert], 0.0];
                softmax(isa, &mut pair);
                pair[0]
            })
            .collect(),
    };
    if config.expert_weights_norm {
        let sum = weights.iter().sum::<f32>().max(LEAST_WEIGHT_SUM);
        for weight in &mut weights {
            *weight /= sum;
        }
    }
    if config.expert_weights_scale != 0.0 && config.expert_weights_scale != 1.0 {
        for weight in &mut weights {
            *weight *= config.expert_weights_scale;
        }
    }
    order.into_iter().zip(weights).map(|(expert, weight)| Choice { expert, weight }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    fn chosen(change: impl FnOnce(&mut Config), scores: &[f32]) -> Vec<(usize, f32)> {
        let mut config = Config { experts: scores.len(), experts_used: 2, ..config() };
        change(&mut config);
        let choices = choose(Isa::SCALAR, &config, &mut scores.to_vec());
        choices.into_iter().map(|choice| (choice.expert, choice.weight)).collect()
    }

    fn near(got: &[(usize, f32)], expected: &[(usize, f32)]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(got.0, expected.0);
            assert!((got.1 - expected.1).abs() < 1e-6, "{got:?} {expected:?}");
        }
    }

    #[test]
    fn the_best_experts_share_one() {
        // The softmax of ln 1, ln 2, ln 3, ln 4 is 0.1, 0.2, 0.3, 0.4.
        let scores = [1.0f32.ln(), 4.0f32.ln(), 2.0f32.ln(), 3.0f32.ln()];
        near(&chosen(|_| {}, &scores), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        near(&chosen(|config| config.expert_weights_norm = false, &scores), &[(1, 0.4), (3, 0.3)]);
        let selected = |config: &mut Config| config.expert_gating = ExpertGating::SoftmaxSelected;
        near(&chosen(selected, &scores), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
    }

    #[test]
    fn scores_alone_may_be_weights() {
        let sigmoid = |config: &mut Config| {
            config.expert_gating = ExpertGating::Sigmoid;
            config.expert_weights_norm = false;
            config.expert_weights_scale = 2.0;
        };
        near(&chosen(sigmoid, &[0.0, -1e30, 3.0f32.ln()]), &[(2, 1.5), (0, 1.0)]);
    }

    #[test]
    fn ties_and_nan_have_an_order() {
        let experts = |scores: &[f32]| chosen(|_| {}, scores).into_iter().map(|choice| choice.0).collect::<Vec<_>>();
        assert_eq!(experts(&[1.0, 2.0, 2.0, 2.0]), [1, 2]);
        assert_eq!(experts(&[f32::NAN, 1.0, f32::NAN, 2.0]), [3, 1]);
        assert_eq!(experts(&[f32::NAN; 3]), [0, 1]);
    }
}
