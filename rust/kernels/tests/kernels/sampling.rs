use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::sampling::*;

use crate::random::Random;

/// Logits similar to those of models, with ties, and some that are NaN.
fn logits(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| match random.below(40) {
            0 => f32::NEG_INFINITY,
            1 => f32::NAN,
            2..8 => random.below(5) as f32 - 2.0,
            8 => -0.0,
            _ => random.unit() * 12.0,
        })
        .collect()
}

fn without_nan(x: f32) -> f32 {
    if x.is_nan() { f32::NEG_INFINITY } else { x }
}

#[test]
fn top_k_is_a_stable_sort_cut_off() {
    let mut random = Random::new(50);
    for count in [0, 1, 2, 16, 127, 128, 129, 1000, 32_000, 128_256] {
        let logits = logits(&mut random, count);
        let mut expected: Vec<(u32, f32)> =
            logits.iter().enumerate().map(|(id, logit)| (id as u32, without_nan(*logit))).collect();
        expected.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("no NaN"));
        for k in [0, 1, 2, 7, 40, 64, 100, 1000, count / 2, count, count + 1] {
            for isa in Isa::available() {
                assert_eq!(top_k(*isa, &logits, k), expected[..k.min(count)], "{} {count} {k}", isa.name());
            }
        }
    }
}

#[test]
fn top_k_of_ascending_and_equal_logits() {
    let ascending: Vec<f32> = (0..5000).map(|i| i as f32).collect();
    let equal = vec![1.5; 5000];
    for isa in Isa::available() {
        assert_eq!(top_k(*isa, &ascending, 3), [(4999, 4999.0), (4998, 4998.0), (4997, 4997.0)]);
        assert_eq!(top_k(*isa, &equal, 3), [(0, 1.5), (1, 1.5), (2, 1.5)]);
        let infinite = [f32::INFINITY, 1.0, f32::INFINITY, f32::NAN];
        let lowest = f32::NEG_INFINITY;
        assert_eq!(top_k(*isa, &infinite, 9), [(0, f32::INFINITY), (2, f32::INFINITY), (1, 1.0), (3, lowest)]);
    }
}

#[test]
fn argmax_is_the_first_of_the_largest() {
    let mut random = Random::new(51);
    for isa in Isa::available() {
        for count in [1, 5, 16, 17, 64, 100, 3000] {
            let mut logits = logits(&mut random, count);
            logits[count / 2] = -1.0;
            assert_eq!(argmax(*isa, &logits), Some(top_k(*isa, &logits, 1)[0].0 as usize));
        }
        assert_eq!(argmax(*isa, &[]), None);
        assert_eq!(argmax(*isa, &[f32::NAN; 20]), None);
        assert_eq!(argmax(*isa, &[f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY]), Some(1));
        assert_eq!(argmax(*isa, &[-0.0, 0.0]), Some(0));
        assert_eq!(argmax(*isa, &[f32::NAN, 2.0, f32::INFINITY, f32::INFINITY]), Some(2));
    }
}

#[test]
fn distributions_are_those_of_the_definition() {
    let mut random = Random::new(52);
    for count in [1, 2, 16, 100, 129, 32_000] {
        let mut logits = logits(&mut random, count);
        logits[0] = 3.0;
        let weights: Vec<f64> = logits.iter().map(|x| f64::from(without_nan(*x)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let entropy: f64 = weights.iter().map(|w| w / total).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
        let first = distribution(Isa::SCALAR, &logits).expect("finite logits");
        assert!((first.log_sum - total.ln()).abs() < 2e-6, "{} {}", first.log_sum, total.ln());
        assert!((first.entropy - entropy).abs() < 1e-5, "{} {entropy}", first.entropy);
        let mut logs = vec![0.0; count];
        assert!(log_softmax(Isa::SCALAR, &logits, &mut logs));
        for (log, weight) in logs.iter().zip(&weights) {
            let exact = (weight / total).ln();
            assert!(*log == f32::NEG_INFINITY && *weight == 0.0 || (f64::from(*log) - exact).abs() < 4e-6);
        }
        for isa in Isa::available() {
            assert_eq!(distribution(*isa, &logits), Some(first), "{}", isa.name());
        }
    }
}

#[test]
fn without_a_softmax_there_is_no_distribution() {
    for logits in [&[][..], &[f32::NAN; 3], &[f32::NEG_INFINITY; 20], &[1.0, f32::INFINITY]] {
        assert_eq!(distribution(Isa::SCALAR, logits), None);
        let mut output = [7.0; 20];
        assert!(!log_softmax(Isa::SCALAR, logits, &mut output));
        assert_eq!(output, [7.0; 20]);
    }
}
