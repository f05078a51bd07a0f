//! Attention to selected keys, and the indexers that select them.

use super::*;

const TOKENS: usize = 700;

fn layout(kv_type: KvType, key_size: usize, latent: bool) -> KvLayout {
    KvLayout { kv_type, kv_heads: 1, key_size, value_size: if latent { key_size } else { 9 }, latent }
}

/// The words of each query, with these bits.
fn words(queries: Range<usize>, seen: impl Fn(usize, usize) -> bool) -> Vec<u64> {
    let stride = TOKENS.div_ceil(PAGE_TOKENS);
    let mut words = vec![0; queries.len() * stride];
    for query in queries.clone() {
        for position in (0..=query).filter(|&position| seen(query, position)) {
            words[(query - queries.start) * stride + position / PAGE_TOKENS] |= 1 << (position % PAGE_TOKENS);
        }
    }
    words
}

fn attended(sequence: &Sequence, threads: usize, from: usize, visible: Visible, bias: Option<&[f32]>) -> Vec<f32> {
    let pages: Vec<&[u8]> = sequence.pages.iter().map(Vec::as_slice).collect();
    let pool = Pool::new(threads).expect("threads start");
    let (row, out_row) = (sequence.heads * sequence.layout.key_size, sequence.heads * sequence.layout.value_size);
    let mut output = vec![f32::NAN; (TOKENS - from) * out_row];
    let queries = &sequence.queries[from * row..];
    let item = AttentionItem { queries, first_position: from, pages: &pages, output: &mut output, visible, bias };
    let context = Context::new(Isa::chosen().expect("a known set"), &pool);
    attention(&context, &sequence.layout, &AttentionConfig::new(sequence.heads, 0.3), &mut [item]).expect("it fits");
    output
}

#[test]
fn only_selected_keys_are_seen() {
    let mut random = Random::new(3);
    for kv_type in TYPES {
        let sequence = Sequence::random(layout(kv_type, 8, false), 2, TOKENS, &mut random);
        let from = TOKENS - 5;
        let all = words(from..TOKENS, |_, _| true);
        let causal = attended(&sequence, 1, from, Visible::Causal, None);
        assert_eq!(attended(&sequence, 1, from, Visible::Selected(&all), None), causal);
        // Nothing of the first chunk, or nothing of the second one.
        let patterns: [fn(usize, usize) -> bool; 2] = [
            |_, position| position > 520 && position % 3 == 0,
            |query, position| position < 512 && position % 7 == query % 2,
        ];
        for seen in patterns {
            let some = words(from..TOKENS, seen);
            let mut bias = vec![0.0; 2 * 5 * TOKENS];
            for (row, bias) in bias.chunks_exact_mut(TOKENS).enumerate() {
                let hidden = |(position, _): &(usize, &mut f32)| !seen(from + row % 5, *position);
                bias.iter_mut().enumerate().filter(hidden).for_each(|(_, bias)| *bias = -1e30);
            }
            let got = attended(&sequence, 1, from, Visible::Selected(&some), None);
            assert_eq!(attended(&sequence, 3, from, Visible::Selected(&some), None), got);
            let expected = attended(&sequence, 1, from, Visible::Causal, Some(&bias));
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-5, "{got} {expected}");
            }
        }
    }
}

fn selected(sequence: &Sequence, weights: &[f32], lengths: &[usize], (threads, top): (usize, usize)) -> Vec<u64> {
    let pages: Vec<&[u8]> = sequence.pages.iter().map(Vec::as_slice).collect();
    let pool = Pool::new(threads).expect("threads start");
    let context = Context::new(Isa::chosen().expect("a known set"), &pool);
    let (heads, row, stride) = (sequence.heads, sequence.heads * sequence.layout.key_size, pages.len());
    let mut bits = vec![u64::MAX; TOKENS * stride];
    let mut first = 0;
    for &length in lengths {
        let item = IndexerItem {
            queries: &sequence.queries[first * row..][..length * row],
            weights: &weights[first * heads..][..length * heads],
            first_position: first,
            pages: &pages,
            selected: &mut bits[first * stride..][..length * stride],
        };
        select_keys(&context, &sequence.layout, (heads, top), &mut [item]).expect("it fits");
        first += length;
    }
    bits
}

#[test]
fn indexers_select_the_best_keys() {
    let mut random = Random::new(4);
    let sequence = Sequence::random(layout(KvType::F32, 16, true), 3, TOKENS, &mut random);
    let weights = random.units(TOKENS * 3);
    let top = 20;
    let got = selected(&sequence, &weights, &[TOKENS], (1, top));
    for lengths in [&[1, 63, 64, 300, TOKENS - 428][..], &[TOKENS - 1, 1]] {
        assert_eq!(selected(&sequence, &weights, lengths, (2, top)), got);
    }
    let stride = TOKENS.div_ceil(PAGE_TOKENS);
    for (query, words) in got.chunks_exact(stride).enumerate() {
        let score = |key: usize| {
            let product = |head: usize| {
                let q = &sequence.queries[(query * 3 + head) * 16..][..16];
                let k = &sequence.keys[key * 16..][..16];
                q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>().max(0.0)
            };
            (0..3).map(|head| f64::from(weights[query * 3 + head]) * product(head)).sum::<f64>()
        };
        let chosen = |key: usize| words[key / PAGE_TOKENS] >> (key % PAGE_TOKENS) & 1 == 1;
        let count = words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        assert_eq!(count, top.min(query + 1));
        let least = (0..=query).filter(|&key| chosen(key)).map(score).fold(f64::INFINITY, f64::min);
        let most = (0..=query).filter(|&key| !chosen(key)).map(score).fold(f64::NEG_INFINITY, f64::max);
        assert!(least >= most - 1e-5, "{query}: {least} {most}");
    }
}

#[test]
fn wrong_sizes_of_selections_are_errors() {
    let sequence = Sequence::random(layout(KvType::F16, 4, true), 1, TOKENS, &mut Random::new(5));
    let pages: Vec<&[u8]> = sequence.pages.iter().map(Vec::as_slice).collect();
    let pool = Pool::new(1).expect("threads start");
    let context = Context::new(Isa::SCALAR, &pool);
    let run = |weights: usize, pages: &[&[u8]], selected: &mut [u64]| {
        let queries = &sequence.queries[..8];
        let item = IndexerItem { queries, weights: &[1.0; 9][..weights], first_position: 64, pages, selected };
        select_keys(&context, &sequence.layout, (1, 3), &mut [item])
    };
    run(2, &pages, &mut [0; 4]).expect("these fit");
    assert!(run(3, &pages, &mut [0; 6]).is_err());
    assert!(run(2, &pages[..1], &mut [0; 4]).is_err());
    assert!(run(2, &pages, &mut [0; 3]).is_err());
    assert!(run(2, &pages, &mut [0; 2]).is_err());
    let attend = |selected: &[u64]| {
        let (queries, output, visible) = (&sequence.queries[..8], &mut [0.0; 8][..], Visible::Selected(selected));
        let item = AttentionItem { queries, first_position: 64, pages: &pages, output, visible, bias: None };
        attention(&context, &sequence.layout, &AttentionConfig::new(1, 1.0), &mut [item])
    };
    attend(&[1; 4]).expect("these fit");
    assert!(attend(&[1; 3]).is_err());
    assert!(attend(&[1; 2]).is_err());
    assert!(attend(&[]).is_err());
}
