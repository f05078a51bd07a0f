//! Adjustments of scores, visibility of positions, and values that are parts of keys, compared with the definition in f64.

use llamacpu_kernels::internals::attention::BLOCK;

use super::*;

/// One call over a whole sequence.
#[derive(Clone, Copy)]
struct Call<'a> {
    soft_cap: Option<f32>,
    sinks: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    slopes: Option<&'a [f32]>,
    visible: Visible<'a>,
    from: usize,
}

const PLAIN: Call = Call { soft_cap: None, sinks: None, bias: None, slopes: None, visible: Visible::Causal, from: 0 };

impl Sequence {
    fn call(&self, isa: Isa, threads: usize, call: Call) -> Result<Vec<f32>, Error> {
        let pages: Vec<&[u8]> = self.pages.iter().map(Vec::as_slice).collect();
        let pool = Pool::new(threads).expect("threads start");
        let row = self.heads * self.layout.key_size;
        let mut output = vec![f32::NAN; (self.tokens() - call.from) * self.heads * self.layout.value_size];
        let mut items = [AttentionItem {
            queries: &self.queries[call.from * row..],
            first_position: call.from,
            pages: &pages,
            output: &mut output,
            visible: call.visible,
            bias: call.bias,
        }];
        let Call { soft_cap, sinks, slopes, .. } = call;
        let config = AttentionConfig { heads: self.heads, scale: 0.3, soft_cap, sinks, slopes };
        attention(&Context::new(isa, &pool), &self.layout, &config, &mut items)?;
        Ok(output)
    }

    /// The value of one query and head in f64.
    fn defined(&self, call: Call, query: usize, head: usize, seen: Range<usize>) -> Vec<f64> {
        let KvLayout { kv_heads, key_size, value_size, latent, .. } = self.layout;
        let kv_head = head / (self.heads / kv_heads);
        let q = &self.queries[(query * self.heads + head) * key_size..][..key_size];
        let key = |token: usize| &self.keys[(token * kv_heads + kv_head) * key_size..][..key_size];
        let tokens = self.tokens();
        let score = |token: usize| {
            let mut score = 0.3 * q.iter().zip(key(token)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
            if let Some(cap) = call.soft_cap.map(f64::from) {
                score = cap * (score / cap).tanh();
            }
            let row = head * (tokens - call.from) + query - call.from;
            let distance = query.abs_diff(token) as f64;
            score + call.bias.map_or(0.0, |bias| f64::from(bias[row * tokens + token]))
                - call.slopes.map_or(0.0, |slopes| distance * f64::from(slopes[head]))
        };
        let weights: Vec<f64> = seen.clone().map(|token| score(token).exp()).collect();
        let sink = call.sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
        let total = weights.iter().sum::<f64>() + sink;
        let value = |token: usize, i: usize| {
            f64::from(if latent { key(token)[i] } else { self.values[(token * kv_heads + kv_head) * value_size + i] })
        };
        let sum = |i: usize| seen.clone().zip(&weights).map(|(token, w)| w * value(token, i)).sum::<f64>();
        (0..value_size).map(|i| if seen.is_empty() { 0.0 } else { sum(i) / total }).collect()
    }

    /// The same bits in every instruction set, and near the definition.
    fn check(&self, call: Call, seen: impl Fn(usize) -> Range<usize>, tolerance: f64) {
        let mut found: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            for threads in [3, 1].into_iter().take(if emulated() { 1 } else { 2 }) {
                let got = self.call(*isa, threads, call).expect("fitting shapes");
                let first = found.get_or_insert_with(|| got.clone());
                assert_eq!(bits(first), bits(&got), "{isa} {threads} {:?}", self.layout);
            }
        }
        let found = found.expect("at least the scalar set");
        let rows = found.chunks_exact(self.layout.value_size);
        for (row, got) in rows.enumerate().step_by(if emulated() { 7 } else { 1 } + found.len() / 20_000) {
            let (query, head) = (call.from + row / self.heads, row % self.heads);
            for (got, exact) in got.iter().zip(self.defined(call, query, head, seen(query))) {
                assert!((f64::from(*got) - exact).abs() < tolerance, "{:?} {query} {head}: {got} {exact}", self.layout);
            }
        }
    }
}

fn layout(kv_type: KvType, kv_heads: usize, key_size: usize, value_size: usize) -> KvLayout {
    KvLayout { kv_type, kv_heads, key_size, value_size, latent: false }
}

#[test]
fn caps_sinks_and_biases_are_the_definition() {
    let mut random = Random::new(60);
    for (kv_type, tolerance) in TYPES.into_iter().zip([3e-6, 1e-3, 2e-2, 1e-3]) {
        for (kv_heads, group, size, tokens, from) in [(2, 2, 20, 70, 0), (1, 3, 32, 600, 560)] {
            let heads = kv_heads * group;
            let sequence = Sequence::random(layout(kv_type, kv_heads, size, size), heads, tokens, &mut random);
            let sinks: Vec<f32> = random.units(heads).iter().map(|x| x * 8.0).collect();
            let slopes = alibi_slopes(heads, 8.0);
            let bias: Vec<f32> = random.units(heads * (tokens - from) * tokens).iter().map(|x| x * 3.0).collect();
            let calls = [
                Call { soft_cap: Some(0.7), ..PLAIN },
                Call { sinks: Some(&sinks), ..PLAIN },
                Call { bias: Some(&bias), ..PLAIN },
                Call { slopes: Some(&slopes), ..PLAIN },
                Call { soft_cap: Some(2.0), sinks: Some(&sinks), bias: Some(&bias), slopes: Some(&slopes), ..PLAIN },
            ];
            for call in calls {
                sequence.check(Call { from, ..call }, |query| 0..query + 1, tolerance);
            }
            let all = Call { slopes: Some(&slopes), visible: Visible::All, from, ..PLAIN };
            sequence.check(all, |_| 0..tokens, tolerance);
        }
    }
}

#[test]
fn slopes_are_those_of_the_paper() {
    assert_eq!(alibi_slopes(8, 8.0), [-1, -2, -3, -4, -5, -6, -7, -8].map(|power| 2f32.powi(power)));
    let between = |power: f64| 2f64.powf(power) as f32;
    assert_eq!(alibi_slopes(3, 8.0), [2f32.powi(-4), 2f32.powi(-8), between(-2.0)]);
    assert_eq!(alibi_slopes(6, 2.0), [-0.5, -1.0, -1.5, -2.0, -0.25, -0.75].map(between));
    assert!(alibi_slopes(0, 8.0).is_empty());
}

#[test]
fn sinks_of_any_size_are_defined() {
    let mut random = Random::new(61);
    let sequence = Sequence::random(layout(KvType::F32, 1, 16, 16), 4, 40, &mut random);
    let sinks = [f32::NEG_INFINITY, 1e4, f32::INFINITY, f32::NAN];
    let plain = sequence.call(Isa::SCALAR, 1, PLAIN).expect("fitting shapes");
    for isa in Isa::available() {
        let got = sequence.call(*isa, 2, Call { sinks: Some(&sinks), ..PLAIN }).expect("fitting shapes");
        for (got, plain) in got.chunks_exact(64).zip(plain.chunks_exact(64)) {
            let near = |(got, plain): (&f32, &f32)| (got - plain).abs() < 1e-6;
            assert!(got[..16].iter().zip(&plain[..16]).all(near), "nothing is taken by a sink of minus infinity");
            assert!(got[16..32].iter().all(|x| *x == 0.0), "everything is taken");
            assert!(got[48..].iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn what_is_seen_is_what_was_asked_for() {
    let mut random = Random::new(62);
    for (tokens, from) in [(150, 0), (CHUNK + 200, CHUNK + 100)] {
        for kv_type in [KvType::F32, KvType::Q8_0] {
            let tolerance = if kv_type == KvType::F32 { 3e-6 } else { 2e-2 };
            let sequence = Sequence::random(layout(kv_type, 1, 16, 24), 2, tokens, &mut random);
            let check = |visible: Visible, seen: &dyn Fn(usize) -> Range<usize>| {
                sequence.check(Call { visible, from, ..PLAIN }, seen, tolerance);
            };
            for size in [1, 7, 64, 100, 700] {
                check(Visible::Window(size), &|query| (query + 1).saturating_sub(size)..query + 1);
                check(Visible::Chunk(size), &|query| query / size * size..query + 1);
            }
            check(Visible::Window(usize::MAX), &|query| 0..query + 1);
            check(Visible::All, &|_| 0..tokens);
            let ranges: Vec<Range<usize>> = (from..tokens)
                .map(|_| {
                    let end = random.below(tokens + 1);
                    random.below(end + 1)..end
                })
                .collect();
            check(Visible::Ranges(&ranges), &|query| ranges[query - from].clone());
        }
    }
}

#[test]
fn pages_that_nobody_sees_may_be_absent() {
    let mut random = Random::new(63);
    let tokens = 2 * CHUNK + 10;
    for kv_type in TYPES {
        let mut sequence = Sequence::random(layout(kv_type, 2, 32, 32), 4, tokens, &mut random);
        let whole = sequence.clone();
        let from = tokens - 70;
        let far = 3..tokens - 100;
        let call = Call { visible: Visible::Window(50), from, ..PLAIN };
        for page in &mut sequence.pages[..(from + 1 - 50) / PAGE_TOKENS] {
            page.clear();
        }
        let expected = whole.call(Isa::SCALAR, 1, call).expect("fitting shapes");
        for isa in Isa::available() {
            for threads in [1, 4] {
                assert_eq!(bits(&sequence.call(*isa, threads, call).expect("nobody sees them")), bits(&expected));
            }
        }
        for visible in [Visible::Window(200), Visible::Causal, Visible::All] {
            assert!(matches!(sequence.call(Isa::SCALAR, 1, Call { visible, from, ..PLAIN }), Err(Error::Shape(_))));
        }
        // A gap in the middle of what neighbouring queries see.
        let mut holes = whole.clone();
        holes.pages[1..(tokens - 100) / PAGE_TOKENS].iter_mut().for_each(Vec::clear);
        let mut ranges = vec![0..PAGE_TOKENS; 70];
        ranges.iter_mut().step_by(3).for_each(|range| *range = tokens - 100..tokens);
        let call = Call { visible: Visible::Ranges(&ranges), from, ..PLAIN };
        let expected = whole.call(Isa::SCALAR, 1, call).expect("fitting shapes");
        for isa in Isa::available() {
            assert_eq!(bits(&holes.call(*isa, 2, call).expect("nobody sees them")), bits(&expected));
        }
        ranges[69] = far;
        let call = Call { visible: Visible::Ranges(&ranges), from, ..PLAIN };
        assert!(matches!(holes.call(Isa::SCALAR, 1, call), Err(Error::Shape(_))));
    }
}

#[test]
fn values_may_be_the_beginning_of_keys() {
    let mut random = Random::new(64);
    // Those that a latent layout can have.
    for (kv_type, tolerance) in TYPES.into_iter().zip([3e-6, 1e-3, 2e-2]) {
        for (kv_heads, heads, key_size, value_size, tokens) in
            [(1, 16, 576, 512, 70), (1, 5, 96, 64, 130), (2, 4, 50, 33, 40), (1, 1, 7, 7, 3), (1, 70, 40, 1, 9)]
                .into_iter()
                .skip(if emulated() { 2 } else { 0 })
        {
            let layout = KvLayout { kv_type, kv_heads, key_size, value_size, latent: true };
            assert_eq!(layout.layer_bytes(), KvLayout { latent: false, value_size: 0, ..layout }.layer_bytes());
            let mut sequence = Sequence::random(layout, heads, tokens, &mut random);
            sequence.check(PLAIN, |query| 0..query + 1, tolerance);
            // As ordinary keys and values, with the same bits.
            let latent = sequence.call(Isa::SCALAR, 1, PLAIN).expect("fitting shapes");
            sequence.layout.latent = false;
            sequence.values = sequence.keys.chunks_exact(key_size).flat_map(|key| key[..value_size].to_vec()).collect();
            sequence.pages = vec![vec![0; sequence.layout.layer_bytes()]; tokens.div_ceil(PAGE_TOKENS)];
            sequence.fill(Isa::SCALAR, tokens);
            let ordinary = sequence.call(Isa::SCALAR, 1, PLAIN).expect("fitting shapes");
            if kv_type != KvType::Q8_0 || value_size.is_multiple_of(BLOCK) {
                assert_eq!(bits(&latent), bits(&ordinary), "{layout:?}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut random = Random::new(65);
    let sequence = Sequence::random(layout(KvType::F32, 2, 8, 8), 4, 10, &mut random);
    let wrong = |call: Call| assert!(matches!(sequence.call(Isa::SCALAR, 1, call), Err(Error::Shape(_))));
    for soft_cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        wrong(Call { soft_cap: Some(soft_cap), ..PLAIN });
    }
    for count in [0, 3, 5] {
        wrong(Call { sinks: Some(&vec![0.0; count]), ..PLAIN });
        wrong(Call { bias: Some(&vec![0.0; count * 100]), ..PLAIN });
        wrong(Call { slopes: Some(&vec![0.0; count]), ..PLAIN });
    }
    wrong(Call { slopes: Some(&[1.0, 1.0, f32::NAN, 1.0]), ..PLAIN });
    wrong(Call { visible: Visible::Window(0), ..PLAIN });
    wrong(Call { visible: Visible::Chunk(0), ..PLAIN });
    for (count, end) in [(9, 1), (11, 1), (10, 11)] {
        wrong(Call { visible: Visible::Ranges(&vec![0..end; count]), ..PLAIN });
    }
    let mut latent = sequence.clone();
    latent.layout = KvLayout { latent: true, value_size: 9, ..latent.layout };
    assert!(matches!(latent.call(Isa::SCALAR, 1, PLAIN), Err(Error::Shape(_))));
}
