//! Few selected keys are copied first: the same bits as over all keys with the others masked.

use llamacpu_kernels::internals::attention::worth_copying;

use super::*;

/// Attention of the last queries, each of which sees the positions with a bit, or, with `masked`, all positions, of which
/// those without one get a bias that leaves them no weight.
fn attended(
    sequence: &Sequence,
    config: &AttentionConfig,
    threads: usize,
    words: &[u64],
    masked: bool,
    count: usize,
) -> Vec<u32> {
    let pages: Vec<&[u8]> = sequence.pages.iter().map(Vec::as_slice).collect();
    let pool = Pool::new(threads).expect("threads start");
    let context = Context::new(Isa::chosen().expect("a known set"), &pool);
    let (tokens, heads) = (sequence.tokens(), sequence.heads);
    let row = heads * sequence.layout.key_size;
    let mut output = vec![f32::NAN; count * heads * sequence.layout.value_size];
    let stride = words.len() / count;
    let mut bias = Vec::new();
    for _ in 0..heads {
        for words in words.chunks_exact(stride) {
            let seen = |position: usize| words[position / PAGE_TOKENS] >> (position % PAGE_TOKENS) & 1 == 1;
            bias.extend((0..tokens).map(|position| if seen(position) { 0.0 } else { -1e30 }));
        }
    }
    let item = AttentionItem {
        queries: &sequence.queries[(tokens - count) * row..],
        first_position: tokens - count,
        pages: &pages,
        output: &mut output,
        visible: if masked { Visible::Causal } else { Visible::Selected(words) },
        bias: masked.then_some(&bias),
    };
    attention(&context, &sequence.layout, config, &mut [item]).expect("it fits");
    bits(&output)
}

#[test]
fn the_bits_are_those_of_masked_keys() {
    let mut random = Random::new(11);
    let mut copied = 0;
    for case in 0..24 {
        let kv_type = TYPES[case % 3];
        let latent = case % 2 == 0;
        let kv_heads = if latent { 1 } else { 1 + random.below(2) };
        let (key_size, value_size) = (5 + random.below(40), 3 + random.below(36));
        let value_size = if latent { value_size.min(key_size) } else { value_size };
        let layout = KvLayout { kv_type, kv_heads, key_size, value_size, latent };
        let group = 1 + random.below(50);
        let (tokens, count) = (600 + random.below(1900), 1 + random.below(3));
        let sequence = Sequence::random(layout, group * kv_heads, tokens, &mut random);
        // Of some chunks nothing is selected; of others nearly everything.
        let stride = tokens.div_ceil(PAGE_TOKENS) + random.below(2);
        let mut words = vec![0; count * stride];
        for (query, words) in words.chunks_exact_mut(stride).enumerate() {
            let mut share = 0;
            for position in 0..=tokens - count + query {
                if position % 256 == 0 {
                    share = [0, 0, 3, 40, 250][random.below(5)];
                }
                if random.below(256) < share || position == 77 {
                    words[position / PAGE_TOKENS] |= 1 << (position % PAGE_TOKENS);
                }
            }
        }
        let (sinks, slopes) = (random.units(group * kv_heads), random.units(group * kv_heads));
        let config = AttentionConfig {
            soft_cap: (random.below(3) == 0).then_some(1.5),
            sinks: (random.below(2) == 0).then_some(&sinks),
            slopes: (random.below(3) == 0).then_some(&slopes),
            ..AttentionConfig::new(group * kv_heads, 0.3)
        };
        let expected = attended(&sequence, &config, 1, &words, true, count);
        for threads in [1, 3] {
            assert_eq!(attended(&sequence, &config, threads, &words, false, count), expected, "{case}: {layout:?}");
        }
        let selected = words[..stride].iter().map(|word| word.count_ones() as usize).sum();
        copied += usize::from(worth_copying(selected, tokens, group));
    }
    assert!((6..22).contains(&copied), "{copied} cases copy keys");
}
