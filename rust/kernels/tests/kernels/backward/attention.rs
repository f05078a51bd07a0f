//! Attention and its gradients.

use super::*;

/// Attention in f64: outputs, of which the sum with `gradient` as weights is differentiated by finite differences.
fn attention_sum(shape: &AttentionShape, [query, key, value]: [&[f64]; 3], gradient: &[f32]) -> f64 {
    let mut sum = 0.0;
    for segment in shape.segments.windows(2) {
        for head in 0..shape.heads {
            let kv = head / (shape.heads / shape.kv_heads);
            for position in 0..segment[1] - segment[0] {
                let token = segment[0] + position;
                let first = match shape.visible {
                    Visible::Window(size) => (position + 1).saturating_sub(size),
                    Visible::Chunk(size) => position / size * size,
                    _ => 0,
                };
                let seen: Vec<usize> = (first..=position).map(|key| segment[0] + key).collect();
                let score = |key_token: &usize| {
                    let q = &query[(token * shape.heads + head) * shape.key_size..][..shape.key_size];
                    let k = &key[(key_token * shape.kv_heads + kv) * shape.key_size..][..shape.key_size];
                    let score = f64::from(shape.scale) * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
                    shape.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                };
                let weights: Vec<f64> = seen.iter().map(|key| score(key).exp()).collect();
                let total = weights.iter().sum::<f64>() + shape.sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
                for (weight, key_token) in weights.iter().zip(&seen) {
                    for element in 0..shape.value_size {
                        let v = value[(key_token * shape.kv_heads + kv) * shape.value_size + element];
                        let g = gradient[(token * shape.heads + head) * shape.value_size + element];
                        sum += weight / total * v * f64::from(g);
                    }
                }
            }
        }
    }
    sum
}

#[test]
fn attention_and_its_gradients_against_finite_differences() {
    let sinks = [0.3, -0.2, 0.1, 0.4];
    let segments = [0, 100, 101, 230];
    for (visible, soft_cap, sinks) in [
        (Visible::Causal, None, None),
        (Visible::Window(40), Some(2.0), None),
        (Visible::Chunk(50), None, Some(&sinks[..])),
    ] {
        let shape = AttentionShape {
            segments: &segments,
            heads: 4,
            kv_heads: 2,
            key_size: 6,
            value_size: 5,
            scale: 0.8,
            soft_cap,
            sinks,
            visible,
        };
        let tokens = 230;
        let (query, key, value) = (numbers(tokens * 24, 1), numbers(tokens * 12, 2), numbers(tokens * 10, 3));
        let gradient = numbers(tokens * 20, 4);
        let all = everywhere(|context| {
            let (mut output, mut logarithms) = (vec![f32::NAN; tokens * 20], vec![f32::NAN; tokens * 4]);
            attention_forward(context, &shape, (&query, &key, &value), &mut output, &mut logarithms).unwrap();
            let mut found = [vec![f32::NAN; tokens * 24], vec![f32::NAN; tokens * 12], vec![f32::NAN; tokens * 10]];
            let [q, k, v] = &mut found;
            let targets = AttentionGradients { query: q, key: k, value: v };
            let known = (&output[..], &logarithms[..], &gradient[..]);
            attention_backward(context, &shape, (&query, &key, &value), known, targets).unwrap();
            [output].into_iter().chain(found).flatten().collect()
        });
        let exact: Vec<Vec<f64>> =
            [&query, &key, &value].iter().map(|values| values.iter().map(|x| f64::from(*x)).collect()).collect();
        let sum: f64 = all[..tokens * 20].iter().zip(&gradient).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum();
        let reference = attention_sum(&shape, [&exact[0], &exact[1], &exact[2]], &gradient);
        assert!((sum - reference).abs() < 1e-4, "{sum} instead of {reference}");
        let starts = [tokens * 20, tokens * 44, tokens * 56];
        for (which, start) in starts.into_iter().enumerate() {
            for index in (0..exact[which].len()).step_by(499) {
                let mut moved = exact.clone();
                let mut at = |distance: f64| {
                    moved[which][index] = exact[which][index] + distance;
                    attention_sum(&shape, [&moved[0], &moved[1], &moved[2]], &gradient)
                };
                let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
                let found = f64::from(all[start + index]);
                assert!((found - slope).abs() < 1e-5, "{which} {index}: {found} instead of {slope}");
            }
        }
    }
}
