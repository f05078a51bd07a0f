//! Which experts a token goes through, and with which weights: softmax or logistic scores (arXiv:2401.04088, section
//! 2.1), chosen among all experts or among those of the best groups (arXiv:2405.04434, section 2.2.2; arXiv:2412.19437,
//! 2.1.2).

use llamacpu_kernels::activation::{softmax, sqrt_softplus};
use llamacpu_kernels::cpu::Isa;

use crate::Error;
use crate::config::{Config, ExpertGating, GroupScore};
use crate::rows::multiply;

/// The smallest sum that the weights of the chosen experts are divided by.
const LEAST_WEIGHT_SUM: f32 = 6.103_515_6e-5;
/// What is added to the sum instead, if scores are square roots.
const ADDED_TO_SUM: f32 = 1e-20;

/// How much less than the best a score may be, relative to the greater of its size and the best, to count as near: twice the
/// noise that was put on the scores in training.
const NEARNESS: f32 = 0.02;

/// One chosen expert of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    pub(crate) weight: f32,
}

/// The experts of one token, best first, with their weights; ties go to the lower index. If `table` names them, their scores
/// make the weights only. Overwrites `scores`.
///
/// # Errors
/// `Error::Kernel` if memory runs out.
pub(crate) fn choose(
    isa: Isa,
    config: &Config,
    (bias, table): (Option<&[f32]>, Option<&[u32]>),
    scores: &mut [f32],
) -> Result<Vec<Choice>, Error> {
    let grouped = config.expert_groups > 1;
    // Without a bias, raw scores rank experts as their transformed values would, but without ties from rounding.
    let mut ranks = scores.to_vec();
    match config.expert_gating {
        ExpertGating::Softmax => softmax(isa, scores),
        ExpertGating::Sigmoid => scores.iter_mut().for_each(|score| *score = logistic(isa, *score)),
        ExpertGating::SqrtSoftplus => sqrt_softplus(isa, scores)?,
        ExpertGating::SoftmaxSelected | ExpertGating::SparseMixer => {}
    }
    if let Some(table) = table {
        return Ok(weighted(isa, config, scores, table.iter().map(|&expert| expert as usize).collect()));
    }
    if bias.is_some() || grouped && config.expert_group_score == GroupScore::TwoBest {
        ranks.copy_from_slice(scores);
    }
    if let Some(bias) = bias {
        ranks.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
    }
    ranks.iter_mut().filter(|rank| rank.is_nan()).for_each(|rank| *rank = f32::NEG_INFINITY);
    let candidates = if grouped { of_best_groups(config, &ranks) } else { (0..ranks.len()).collect() };
    let order = best(candidates, config.experts_used, |expert| ranks[expert]);
    Ok(weighted(isa, config, scores, order))
}

/// The chosen experts with their weights.
fn weighted(isa: Isa, config: &Config, scores: &[f32], order: Vec<usize>) -> Vec<Choice> {
    let mut weights: Vec<f32> = order.iter().map(|&expert| scores[expert]).collect();
    match config.expert_gating {
        ExpertGating::SoftmaxSelected => softmax(isa, &mut weights),
        ExpertGating::SparseMixer => weights = mixed(isa, scores, &order),
        ExpertGating::Softmax | ExpertGating::Sigmoid | ExpertGating::SqrtSoftplus => {}
    }
    if config.expert_weights_norm {
        let sum = match config.expert_gating {
            ExpertGating::SqrtSoftplus => weights.iter().sum::<f32>() + ADDED_TO_SUM,
            _ => weights.iter().sum::<f32>().max(LEAST_WEIGHT_SUM),
        };
        for weight in &mut weights {
            *weight /= sum;
        }
    }
    if config.expert_weights_scale != 0.0 && config.expert_weights_scale != 1.0 {
        multiply(&mut weights, config.expert_weights_scale);
    }
    order.into_iter().zip(weights).map(|(expert, weight)| Choice { expert, weight }).collect()
}

/// The weights of experts that are chosen one after the other: each by the softmax over the scores that are near its own,
/// without those of the experts before it (L. Liu et al., "GRIN", arXiv:2409.12136).
fn mixed(isa: Isa, scores: &[f32], order: &[usize]) -> Vec<f32> {
    let weight = |(place, &expert): (usize, &usize)| {
        let best = scores[expert];
        let far = |score: f32| (best - score) / score.abs().max(best) > NEARNESS;
        let others = (0..scores.len()).filter(|other| !order[..=place].contains(other));
        let mut rivals = vec![best];
        rivals.extend(others.map(|other| scores[other]).filter(|score| !far(*score)));
        softmax(isa, &mut rivals);
        rivals[0]
    };
    order.iter().enumerate().map(weight).collect()
}

/// `1 / (1 + exp(-x))`
pub(crate) fn logistic(isa: Isa, x: f32) -> f32 {
    // The logistic function of x is the softmax of (x, 0).
    let mut pair = [x, 0.0];
    softmax(isa, &mut pair);
    pair[0]
}

/// The experts of the best groups.
fn of_best_groups(config: &Config, ranks: &[f32]) -> Vec<usize> {
    let size = ranks.len() / config.expert_groups;
    let counted = if config.expert_group_score == GroupScore::TwoBest { 2 } else { 1 };
    let score = |group: usize| {
        let members = (group * size..(group + 1) * size).collect();
        best(members, counted, |expert| ranks[expert]).into_iter().map(|expert| ranks[expert]).sum::<f32>()
    };
    let scores: Vec<f32> = (0..config.expert_groups).map(score).collect();
    let mut groups = best((0..scores.len()).collect(), config.expert_groups_used, |group| scores[group]);
    groups.sort_unstable();
    groups.into_iter().flat_map(|group| group * size..(group + 1) * size).collect()
}

/// The `count` best of candidates given in ascending order, best first.
fn best(mut candidates: Vec<usize>, count: usize, rank: impl Fn(usize) -> f32) -> Vec<usize> {
    let order = |&left: &usize, &right: &usize| rank(right).total_cmp(&rank(left)).then(left.cmp(&right));
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(order);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    fn chosen(change: impl FnOnce(&mut Config), scores: &[f32]) -> Vec<(usize, f32)> {
        biased(change, scores, None)
    }

    fn biased(change: impl FnOnce(&mut Config), scores: &[f32], bias: Option<&[f32]>) -> Vec<(usize, f32)> {
        let mut config = Config { experts: scores.len(), experts_used: 2, ..config() };
        change(&mut config);
        let choices = choose(Isa::SCALAR, &config, (bias, None), &mut scores.to_vec()).unwrap();
        choices.into_iter().map(|choice| (choice.expert, choice.weight)).collect()
    }

    fn near(got: &[(usize, f32)], expected: &[(usize, f32)]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(got.0, expected.0, "{got:?} {expected:?}");
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
    fn experts_may_be_chosen_in_turn() {
        let mixer = |config: &mut Config| {
            config.expert_gating = ExpertGating::SparseMixer;
            config.expert_weights_norm = false;
        };
        // 2 % of the best count: 9.9 beside 10, nothing beside 9.9 but itself, since 10 is taken.
        let share = 1.0 / (1.0 + (-0.1f32).exp());
        near(&chosen(mixer, &[5.0, 10.0, 9.9, 9.6]), &[(1, share), (2, 1.0)]);
        near(&chosen(mixer, &[-1.0, -3.0, -1.01, -5.0]), &[(0, 1.0 / (1.0 + (-0.01f32).exp())), (2, 1.0)]);
        near(&chosen(mixer, &[0.0, 0.0, 0.0]), &[(0, 1.0 / 3.0), (1, 0.5)]);
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
    fn a_bias_changes_the_choice_and_not_the_weights() {
        let plain = |config: &mut Config| config.expert_weights_norm = false;
        let scores = [1.0f32.ln(), 4.0f32.ln(), 2.0f32.ln(), 3.0f32.ln()];
        near(&biased(plain, &scores, Some(&[0.5, 0.0, 0.0, -1.0])), &[(0, 0.1), (1, 0.4)]);
    }

    #[test]
    fn experts_come_from_the_best_groups() {
        let groups = |score: GroupScore| {
            move |config: &mut Config| {
                config.expert_gating = ExpertGating::Sigmoid;
                config.expert_weights_norm = false;
                (config.expert_groups, config.expert_groups_used, config.expert_group_score) = (2, 1, score);
            }
        };
        let scores = [3.0f32.ln(), -20.0, 0.0, 0.0];
        near(&chosen(groups(GroupScore::Best), &scores), &[(0, 0.75), (1, 0.0)]);
        near(&chosen(groups(GroupScore::TwoBest), &scores), &[(2, 0.5), (3, 0.5)]);
    }

    #[test]
    fn a_table_may_name_the_experts() {
        let rooted = |config: &mut Config| {
            config.expert_gating = ExpertGating::SqrtSoftplus;
            config.expert_weights_scale = 1.5;
        };
        // ln(1 + exp(ln(e^4 - 1))) is 4, and so on.
        let scores = [4.0f32, 1.0, 9.0, -1e30].map(|square| if square > 0.0 { square.exp_m1().ln() } else { square });
        near(&chosen(rooted, &scores), &[(2, 0.9), (0, 0.6)]);
        let mut config = Config { experts: 4, experts_used: 2, ..config() };
        rooted(&mut config);
        let choices = choose(Isa::SCALAR, &config, (None, Some(&[1, 0])), &mut scores.to_vec()).unwrap();
        let choices: Vec<_> = choices.into_iter().map(|choice| (choice.expert, choice.weight)).collect();
        near(&choices, &[(1, 0.5), (0, 1.0)]);
        let choices = choose(Isa::SCALAR, &config, (None, Some(&[3, 3])), &mut scores.to_vec()).unwrap();
        assert!(choices.iter().all(|choice| choice.weight == 0.0));
    }

    #[test]
    fn ties_and_nan_have_an_order() {
        let experts = |scores: &[f32]| chosen(|_| {}, scores).into_iter().map(|choice| choice.0).collect::<Vec<_>>();
        assert_eq!(experts(&[1.0, 2.0, 2.0, 2.0]), [1, 2]);
        assert_eq!(experts(&[f32::NAN, 1.0, f32::NAN, 2.0]), [3, 1]);
        assert_eq!(experts(&[f32::NAN; 3]), [0, 1]);
    }
}
