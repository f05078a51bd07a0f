//! What is outside a window, or not finite.

use super::*;

#[test]
fn windows_hide_what_is_before_them() {
    let mut random = Random::new(43);
    let tokens = CHUNK + 300;
    let layout = KvLayout { kv_type: KvType::F32, kv_heads: 1, key_size: 16, value_size: 16, latent: false };
    let sequence = Sequence::random(layout, 2, tokens, &mut random);
    // Under an emulator 5 and 513 tokens.
    for window in [5, 1, 64, 513, 100].into_iter().step_by(if emulated() { 3 } else { 1 }) {
        let first: Vec<Range<usize>> = (0..tokens).map(|query| (query + 1).saturating_sub(window)..query + 1).collect();
        let expected = sequence.run(Isa::SCALAR, 1, 0, &[tokens], Some(&first));
        for isa in Isa::available() {
            let got = sequence.run(*isa, 2, 0, &[100, tokens - 101, 1], Some(&first));
            assert_eq!(bits(&got), bits(&expected));
        }
        for query in [0, 3, 63, 64, 99, 511, 512, 700, tokens - 1] {
            let got = &expected[(query * 2 + 1) * 16..][..16];
            let exact = sequence.exact(query, 1, first[query].start);
            assert!(got.iter().zip(&exact).all(|(got, exact)| (f64::from(*got) - exact).abs() < 2e-6));
        }
    }
    // Queries that see nothing at all.
    let nothing = vec![7..7; tokens];
    assert!(sequence.run(Isa::SCALAR, 1, 0, &[tokens], Some(&nothing)).iter().all(|x| *x == 0.0));
}

/// The bits of the values, with all NaNs alike.
fn classes(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

#[test]
fn nan_and_infinity_reach_only_those_who_see_them() {
    let mut random = Random::new(46);
    let (size, tokens, at) = (32, CHUNK + 90, CHUNK + 30);
    // Under an emulator the last queries of the chunk before it and those of its own.
    let from = if emulated() { CHUNK - 20 } else { 0 };
    for kv_type in TYPES {
        for (number, in_keys) in
            [(f32::INFINITY, true), (f32::NAN, true), (f32::NAN, false), (f32::NEG_INFINITY, false)]
                .into_iter()
                .take(if emulated() { 1 } else { 4 })
        {
            let layout = KvLayout { kv_type, kv_heads: 2, key_size: size, value_size: size, latent: false };
            let mut sequence = Sequence::random(layout, 4, tokens, &mut random);
            let clean = sequence.run(Isa::SCALAR, 1, from, &[tokens - from], None);
            let numbers = if in_keys { &mut sequence.keys } else { &mut sequence.values };
            numbers[at * 2 * size + 3] = number;
            sequence.fill(Isa::SCALAR, tokens);
            let expected = sequence.run(Isa::SCALAR, 1, from, &[tokens - from], None);
            let (row, before) = (4 * size, at - from);
            assert_eq!(bits(&expected[..before * row]), bits(&clean[..before * row]), "queries before it");
            for (got, clean) in
                expected.chunks_exact(2 * size).zip(clean.chunks_exact(2 * size)).skip(2 * before).skip(1).step_by(2)
            {
                assert_eq!(bits(got), bits(clean), "the other head");
            }
            for row in expected.chunks_exact(row).skip(before) {
                // A negative number times infinity is minus infinity: such a key may also get no weight at all.
                assert!(!row[3].is_finite() || in_keys && number.is_infinite(), "{kv_type:?} {number}");
            }
            for isa in Isa::available() {
                for lengths in [vec![before, 1, 3, tokens - at - 4], vec![tokens - from]]
                    .into_iter()
                    .take(if emulated() { 1 } else { 2 })
                {
                    let got = sequence.run(*isa, 3, from, &lengths, None);
                    assert_eq!(classes(&got), classes(&expected), "{} {kv_type:?} {number}", isa.name());
                }
            }
        }
    }
}
