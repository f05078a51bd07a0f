use std::ops::Range;

use llamacpu_kernels::Error;
use llamacpu_kernels::attention::*;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::internals::attention::CHUNK;
use llamacpu_kernels::threads::Pool;

use crate::emulated;
use crate::random::Random;

const TYPES: [KvType; 4] = [KvType::F32, KvType::F16, KvType::Q8_0, KvType::I16];

mod gathered;
mod pages;
mod relative;
mod scores;
mod sparse;
mod visibility;

/// A sequence with random queries, keys and values.
#[derive(Clone)]
struct Sequence {
    layout: KvLayout,
    heads: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    pages: Vec<Vec<u8>>,
}

impl Sequence {
    fn random(layout: KvLayout, heads: usize, tokens: usize, random: &mut Random) -> Self {
        let mut sequence = Self {
            layout,
            heads,
            queries: random.units(tokens * heads * layout.key_size),
            keys: random.units(tokens * layout.kv_heads * layout.key_size),
            values: random.units(tokens * layout.kv_heads * layout.value_size),
            // The contents after the last token must not matter.
            pages: vec![vec![0xff; layout.layer_bytes()]; tokens.div_ceil(PAGE_TOKENS)],
        };
        sequence.fill(Isa::SCALAR, tokens);
        sequence
    }

    fn fill(&mut self, isa: Isa, tokens: usize) {
        let (key, value) =
            (self.layout.kv_heads * self.layout.key_size, self.layout.kv_heads * self.layout.stored_value_size());
        for first in (0..tokens).step_by(PAGE_TOKENS) {
            let count = PAGE_TOKENS.min(tokens - first);
            let keys = &self.keys[first * key..][..count * key];
            let values = &self.values[first * value..][..count * value];
            self.layout.write(isa, &mut self.pages[first / PAGE_TOKENS], 0, keys, values).expect("it fits");
        }
    }

    fn tokens(&self) -> usize {
        self.queries.len() / self.heads / self.layout.key_size
    }

    /// Computes the attention of some queries, in pieces of these lengths.
    fn run(
        &self,
        isa: Isa,
        threads: usize,
        from: usize,
        lengths: &[usize],
        visible: Option<&[Range<usize>]>,
    ) -> Vec<f32> {
        let pool = Pool::new(threads).expect("threads start");
        let context = Context::new(isa, &pool);
        let pages: Vec<&[u8]> = self.pages.iter().map(Vec::as_slice).collect();
        let (row, out_row) = (self.heads * self.layout.key_size, self.heads * self.layout.value_size);
        let mut output = vec![f32::NAN; (self.tokens() - from) * out_row];
        let mut first = from;
        for length in lengths {
            let mut items = [AttentionItem {
                queries: &self.queries[first * row..][..length * row],
                first_position: first,
                pages: &pages,
                output: &mut output[(first - from) * out_row..][..length * out_row],
                visible: visible.map_or(Visible::Causal, |all| Visible::Ranges(&all[first..first + length])),
                bias: None,
            }];
            attention(&context, &self.layout, &AttentionConfig::new(self.heads, 0.3), &mut items)
                .expect("fitting shapes");
            first += length;
        }
        output
    }

    /// The definition, in f64.
    fn exact(&self, query: usize, head: usize, first_visible: usize) -> Vec<f64> {
        let KvLayout { kv_heads, key_size, value_size, .. } = self.layout;
        let kv_head = head / (self.heads / kv_heads);
        let q = &self.queries[(query * self.heads + head) * key_size..][..key_size];
        let scores: Vec<f64> = (first_visible..=query)
            .map(|token| {
                let k = &self.keys[(token * kv_heads + kv_head) * key_size..][..key_size];
                0.3 * q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..value_size)
            .map(|i| {
                let value = |token: usize| f64::from(self.values[(token * kv_heads + kv_head) * value_size + i]);
                weights.iter().enumerate().map(|(token, w)| w * value(first_visible + token)).sum::<f64>() / total
            })
            .collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn shapes(random: &mut Random) -> Vec<(KvLayout, usize, usize)> {
    let mut shapes = vec![
        (1, 1, 16, 16, 1),
        (1, 1, 64, 64, 130),
        (2, 4, 64, 64, 65),
        (1, 8, 128, 128, 129),
        (2, 7, 128, 128, 70),
        (3, 1, 80, 80, 64),
        (1, 3, 256, 256, 66),
        (2, 2, 24, 40, 100),
        (1, 2, 17, 19, 80),
        (1, 1, 1, 1, 70),
        (1, 5, 100, 36, 90),
        (1, 70, 32, 32, 3),
    ];
    for _ in 0..if emulated() { 1 } else { 8 } {
        let size = 16 * (1 + random.below(16));
        shapes.push((1 + random.below(3), 1 + random.below(9), size, size, 1 + random.below(130)));
    }
    shapes
        .into_iter()
        .map(|(kv_heads, group, key_size, value_size, tokens)| {
            (KvLayout { kv_type: KvType::F32, kv_heads, key_size, value_size, latent: false }, kv_heads * group, tokens)
        })
        .collect()
}

#[test]
fn it_is_the_definition_and_the_same_bits_everywhere() {
    let mut random = Random::new(40);
    for (shape, (layout, heads, tokens)) in shapes(&mut random).into_iter().enumerate() {
        let types = TYPES.into_iter().zip([3e-6, 1e-3, 2e-2, 1e-3]);
        // Under an emulator two of the four types for each shape, in turn.
        let (skipped, step) = if emulated() { (shape % 2, 2) } else { (0, 1) };
        for (kv_type, tolerance) in types.skip(skipped).step_by(step) {
            let layout = KvLayout { kv_type, ..layout };
            let sequence = Sequence::random(layout, heads, tokens, &mut random);
            let expected = sequence.run(Isa::SCALAR, 1, 0, &[tokens], None);
            for isa in Isa::available() {
                for threads in [3, 1].into_iter().take(if emulated() { 1 } else { 2 }) {
                    let got = sequence.run(*isa, threads, 0, &[tokens], None);
                    assert_eq!(bits(&got), bits(&expected), "{} {threads} {layout:?} {heads} {tokens}", isa.name());
                }
            }
            for _ in 0..20 {
                let (query, head) = (random.below(tokens), random.below(heads));
                let got = &expected[(query * heads + head) * layout.value_size..][..layout.value_size];
                for (got, exact) in got.iter().zip(sequence.exact(query, head, 0)) {
                    assert!((f64::from(*got) - exact).abs() < tolerance, "{layout:?} {query} {head}: {got} {exact}");
                }
            }
        }
    }
}

#[test]
fn a_prompt_in_pieces_is_the_prompt_at_once() {
    let mut random = Random::new(41);
    for kv_type in TYPES {
        for (kv_heads, group, size, tokens) in
            [(1, 1, 48, 150), (2, 4, 64, 200), (1, 3, 128, 700)].into_iter().take(if emulated() { 1 } else { 3 })
        {
            let layout = KvLayout { kv_type, kv_heads, key_size: size, value_size: size, latent: false };
            let sequence = Sequence::random(layout, kv_heads * group, tokens, &mut random);
            let isa = *Isa::available().last().expect("at least scalar");
            let whole = sequence.run(isa, 2, 0, &[tokens], None);
            for lengths in [vec![1; tokens], vec![tokens - 1, 1], vec![63, 2, tokens - 65], vec![37, 64, tokens - 101]]
            {
                for threads in [1, 3] {
                    assert_eq!(bits(&sequence.run(isa, threads, 0, &lengths, None)), bits(&whole), "{layout:?}");
                }
            }
        }
    }
}

#[test]
fn a_long_sequence_cut_into_chunks_has_the_same_bits() {
    let mut random = Random::new(42);
    let tokens = 3 * CHUNK + 77;
    for kv_type in TYPES {
        let layout = KvLayout { kv_type, kv_heads: 2, key_size: 32, value_size: 32, latent: false };
        let sequence = Sequence::random(layout, 6, tokens, &mut random);
        let from = tokens - 3;
        let expected = sequence.run(Isa::SCALAR, 1, from, &[3], None);
        for isa in Isa::available() {
            // With 1 thread nothing is split, with more threads everything.
            for threads in [1, 2, 5] {
                assert_eq!(bits(&sequence.run(*isa, threads, from, &[1, 1, 1], None)), bits(&expected));
            }
        }
        let exact = sequence.exact(tokens - 1, 5, 0);
        let got = &expected[(2 * 6 + 5) * 32..];
        assert!(got.iter().zip(&exact).all(|(got, exact)| (f64::from(*got) - exact).abs() < 2e-2));
    }
}

#[test]
fn a_batch_is_its_items_one_by_one() {
    let mut random = Random::new(44);
    let layout = KvLayout { kv_type: KvType::F16, kv_heads: 2, key_size: 32, value_size: 32, latent: false };
    let sequences: Vec<Sequence> =
        [5, 64, 1, 130].into_iter().map(|tokens| Sequence::random(layout, 4, tokens, &mut random)).collect();
    let pool = Pool::new(2).expect("threads start");
    let context = Context::new(*Isa::available().last().expect("at least scalar"), &pool);
    let pages: Vec<Vec<&[u8]>> =
        sequences.iter().map(|sequence| sequence.pages.iter().map(Vec::as_slice).collect()).collect();
    let mut outputs: Vec<Vec<f32>> = sequences.iter().map(|sequence| vec![0.0; sequence.tokens() * 4 * 32]).collect();
    let mut items: Vec<AttentionItem> = sequences
        .iter()
        .zip(&pages)
        .zip(&mut outputs)
        .map(|((sequence, pages), output)| AttentionItem {
            queries: &sequence.queries,
            first_position: 0,
            pages,
            output,
            visible: Visible::Causal,
            bias: None,
        })
        .collect();
    attention(&context, &layout, &AttentionConfig::new(4, 0.3), &mut items).expect("fitting shapes");
    for (sequence, output) in sequences.iter().zip(&outputs) {
        assert_eq!(bits(output), bits(&sequence.run(Isa::SCALAR, 1, 0, &[sequence.tokens()], None)));
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let layout = KvLayout { kv_type: KvType::F16, kv_heads: 2, key_size: 8, value_size: 8, latent: false };
    let mut page = vec![0; layout.layer_bytes()];
    assert!(layout.write(Isa::SCALAR, &mut page[1..], 0, &[0.0; 16], &[0.0; 16]).is_err());
    assert!(layout.write(Isa::SCALAR, &mut page, 0, &[0.0; 17], &[0.0; 16]).is_err());
    assert!(layout.write(Isa::SCALAR, &mut page, 0, &[0.0; 16], &[0.0; 15]).is_err());
    assert!(layout.write(Isa::SCALAR, &mut page, 64, &[0.0; 16], &[0.0; 16]).is_err());
    let pool = Pool::new(1).expect("threads start");
    let context = Context::new(Isa::SCALAR, &pool);
    let run = |layout: &KvLayout,
               heads,
               queries: &[f32],
               output: &mut [f32],
               first_position,
               pages: &[&[u8]],
               first: Option<&[Range<usize>]>| {
        let visible = first.map_or(Visible::Causal, Visible::Ranges);
        let item = AttentionItem { queries, first_position, pages, output, visible, bias: None };
        attention(&context, layout, &AttentionConfig::new(heads, 1.0), &mut [item])
    };
    let (pages, q): ([&[u8]; 1], [f32; 32]) = ([&page], [0.0; 32]);
    run(&layout, 4, &q, &mut [0.0; 32], 63, &pages, Some(std::slice::from_ref(&(0..64)))).expect("these fit");
    run(&layout, 4, &[], &mut [], 64, &pages, None).expect("no queries are fine");
    assert!(run(&layout, 3, &q, &mut [0.0; 32], 0, &pages, None).is_err());
    assert!(run(&layout, 0, &[], &mut [], 0, &pages, None).is_err());
    assert!(run(&layout, 4, &q[1..], &mut [0.0; 32], 0, &pages, None).is_err());
    assert!(run(&layout, 4, &q, &mut [0.0; 31], 0, &pages, None).is_err());
    assert!(run(&layout, 4, &q, &mut [0.0; 32], 64, &pages, None).is_err());
    assert!(run(&layout, 4, &q, &mut [0.0; 32], usize::MAX, &pages, None).is_err());
    assert!(run(&layout, 4, &q, &mut [0.0; 32], 0, &pages, Some(&[])).is_err());
    assert!(run(&layout, 4, &q, &mut [0.0; 32], 0, &[&page[1..]], None).is_err());
    assert!(run(&KvLayout { kv_heads: 0, ..layout }, 4, &q, &mut [0.0; 32], 0, &[], None).is_err());
    assert_eq!(KvLayout { key_size: usize::MAX, ..layout }.layer_bytes(), usize::MAX);
}
