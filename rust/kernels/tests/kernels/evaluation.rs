use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::evaluation::*;
use llamacpu_kernels::internals::evaluation::KEPT_RANGE;
use llamacpu_kernels::sampling::argmax;

use crate::random::Random;

fn logits(random: &mut Random, count: usize, width: f32) -> Vec<f32> {
    (0..count).map(|_| random.unit() * width).collect()
}

/// The logarithms of the softmax, in doubles.
fn exact(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::MIN, |most, x| most.max(f64::from(*x)));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    logits.iter().map(|x| f64::from(*x) - largest - sum.ln()).collect()
}

fn exact_divergence(base: &[f64], own: &[f64]) -> f64 {
    base.iter().zip(own).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn predictions_and_divergences_follow_their_definitions() {
    let mut random = Random::new(70);
    for count in [1, 2, 15, 16, 17, 127, 128, 129, 1000, 32_001] {
        for width in [0.0, 1.0, 12.0, 300.0] {
            let base = logits(&mut random, count, width);
            let own: Vec<f32> = base.iter().map(|x| x + random.unit()).collect();
            let token = random.below(count);
            let (p, q) = (exact(&base), exact(&own));
            let mut found = Vec::new();
            for isa in Isa::available() {
                let prediction = predict(*isa, &own, token).unwrap();
                assert!((prediction.log_probability - q[token]).abs() < 1e-5 * (1.0 + q[token].abs()));
                let difference = compare(*isa, Original::Logits(&base), &own, token).unwrap();
                assert_eq!(difference.log_probability, prediction.log_probability);
                assert_eq!(difference.top, prediction.top);
                assert_eq!(difference.original_top, argmax(*isa, &base).unwrap());
                assert!((difference.original_log_probability - p[token]).abs() < 1e-5 * (1.0 + p[token].abs()));
                let expected = exact_divergence(&p, &q);
                assert!((difference.divergence - expected).abs() < 2e-6, "{count} {width} {difference:?} {expected}");
                found.push(difference);
            }
            assert!(found.iter().all(|one| *one == found[0]));
        }
    }
}

#[test]
fn equal_logits_have_no_divergence() {
    let mut random = Random::new(71);
    for count in [1, 17, 5000] {
        let base = logits(&mut random, count, 9.0);
        for isa in Isa::available() {
            assert_eq!(compare(*isa, Original::Logits(&base), &base, 0).unwrap().divergence, 0.0);
        }
    }
}

#[test]
fn tokens_without_probability_do_not_count() {
    let base = [0.0, f32::NEG_INFINITY, 1.0, -500.0];
    let own = [0.0, 3.0, 1.0, f32::NEG_INFINITY];
    let found = compare(Isa::SCALAR, Original::Logits(&base), &own, 0).unwrap();
    let expected = exact_divergence(&exact(&[0.0, 1.0]), &[exact(&own[..3])[0], exact(&own[..3])[2]]);
    assert!((found.divergence - expected).abs() < 1e-6, "{found:?} {expected}");
}

#[test]
fn records_hold_log_probabilities_to_half_a_step() {
    let mut random = Random::new(72);
    for count in [1, 2, 3, 50, 1001] {
        for width in [0.0, 2.0, 30.0] {
            let base = logits(&mut random, count, width);
            let mut record = vec![1; record_words(count)];
            assert!(encode(Isa::SCALAR, &base, &mut record));
            let mut read = vec![0.0; count];
            assert!(decode(&record, &mut read));
            let expected = exact(&base);
            let largest = expected.iter().fold(f64::MIN, |most, x| most.max(*x));
            for (read, expected) in read.iter().zip(&expected) {
                let expected = expected.max(largest - f64::from(KEPT_RANGE));
                let half_step = f64::from(KEPT_RANGE.min(2.0 * width)) / 65535.0 / 2.0;
                assert!((f64::from(*read) - expected).abs() < half_step + 2e-5, "{read} {expected}");
            }
        }
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let isa = Isa::SCALAR;
    assert_eq!(predict(isa, &[], 0), None);
    assert_eq!(predict(isa, &[1.0], 1), None);
    assert_eq!(predict(isa, &[f32::NAN; 3], 1), None);
    assert_eq!(predict(isa, &[1.0, f32::INFINITY], 0), None);
    assert_eq!(compare(isa, Original::Logits(&[1.0]), &[1.0, 2.0], 0), None);
    assert_eq!(compare(isa, Original::Logits(&[1.0, 2.0]), &[1.0, 2.0], 2), None);
    assert!(!encode(isa, &[1.0, 2.0], &mut [0; 5]));
    assert!(!decode(&[0; 5], &mut [0.0; 2]));
    assert!(!decode(&[0, 0x7fc0, 0, 0, 1, 2], &mut [0.0; 2]), "a scale that is no number");
    assert!(!decode(&[0, 0xbf80, 0, 0, 1, 2], &mut [0.0; 2]), "a negative scale");
}
