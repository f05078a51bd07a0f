//! Speed of attention beside what the machine can do at most: bytes of keys and values a second where one token is
//! generated, floating-point operations a second everywhere.
//!
//! `cargo run --release -p llamacpu-kernels --example attention_speed -- [threads] [isa,isa...] [type,type...] [model,...] [case,...]`
//! with the types f32, f16 and q8_0, the models 1b and 8b, and the cases d512, d2048, d8192, d32768 (generation at that
//! depth), p512 and p4096 (a prompt of that length); `all` for everything. Other models are named after the size of their keys.

#![expect(clippy::print_stdout, reason = "the product of this program is its table")]

use std::time::{Duration, Instant};

use llamacpu_kernels::Error;
use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, KvLayout, KvType, PAGE_TOKENS, Visible, attention};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::mapping::AlignedBytes;
use llamacpu_kernels::threads::{Pool, read_bandwidth};

const TYPES: [(&str, KvType); 3] = [("f32", KvType::F32), ("f16", KvType::F16), ("q8_0", KvType::Q8_0)];
/// Query heads, key and value heads, sizes of keys and values of Llama 3.2 1B, Llama 3.1 8B and other families: Phi 2, Phi 3, a
/// size that fills no whole registers, DeepSeek 2 Lite in both forms (in the second, values are the beginning of keys), Gemma 3.
const MODELS: [(&str, [usize; 4]); 9] = [
    ("1b", [32, 8, 64, 64]),
    ("8b", [32, 8, 128, 128]),
    ("80", [32, 8, 80, 80]),
    ("96", [32, 8, 96, 96]),
    ("112", [32, 8, 112, 112]),
    ("192", [16, 16, 192, 128]),
    ("256", [32, 8, 256, 256]),
    ("512", [32, 8, 512, 512]),
    ("576", [16, 1, 576, 512]),
];
/// Tokens with one query at the end, and tokens that are all queries.
const CASES: [(&str, usize, bool); 6] = [
    ("d512", 512, true),
    ("d2048", 2048, true),
    ("d8192", 8192, true),
    ("d32768", 32768, true),
    ("p512", 512, false),
    ("p4096", 4096, false),
];

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let wanted = |index: usize, name: &str| {
        arguments.get(index).is_none_or(|text| text == "all" || text.split(',').any(|part| part == name))
    };
    let pool = Pool::new(threads)?;
    let rate = read_bandwidth(&Context::new(Isa::chosen()?, &pool), 1 << 30, Duration::from_secs(1))?;
    println!("{threads} threads; read bandwidth {rate:.1} GB/s; {:.1} GFLOP/s of f32 at most", peak(&pool));
    print!("{:8} {:5} {:5}", "set", "type", "model");
    CASES.iter().filter(|case| wanted(4, case.0)).for_each(|case| print!(" {:>17}", case.0));
    println!();
    for isa in Isa::available().iter().filter(|isa| wanted(1, isa.name())) {
        let context = Context::new(*isa, &pool);
        for (model, shape) in MODELS.into_iter().filter(|(name, _)| wanted(3, name)) {
            for (type_name, kv_type) in TYPES.into_iter().filter(|(name, _)| wanted(2, name)) {
                print!("{:8} {type_name:5} {model:5}", isa.name());
                for (_, tokens, one) in CASES.into_iter().filter(|(name, ..)| wanted(4, name)) {
                    let (gigabytes, operations) = measure(&context, shape, kv_type, tokens, one)?;
                    let bytes = if one { format!("{gigabytes:.1} GB/s") } else { String::new() };
                    print!(" {bytes:>9} {operations:6.1}G");
                }
                println!();
            }
        }
    }
    Ok(())
}

/// GB/s of keys and values, and GFLOP/s.
fn measure(
    context: &Context,
    [heads, kv_heads, key_size, value_size]: [usize; 4],
    kv_type: KvType,
    tokens: usize,
    one: bool,
) -> Result<(f64, f64), Error> {
    let layout = KvLayout { kv_type, kv_heads, key_size, value_size, latent: kv_heads == 1 };
    let (pages, bytes) = (tokens / PAGE_TOKENS, layout.layer_bytes());
    // As in a model: all layers of 64 tokens lie together, in huge pages, and together do not fit into caches.
    let layers = (2_usize << 20).div_ceil(bytes).max((256_usize << 20).div_ceil(pages * bytes));
    let numbers = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let mut part = vec![0; bytes];
    let (keys, values) = (
        numbers(PAGE_TOKENS * kv_heads * key_size, 7.919),
        numbers(PAGE_TOKENS * kv_heads * layout.stored_value_size(), 1.237),
    );
    layout.write(context.isa, &mut part, 0, &keys, &values)?;
    let mut memory = Vec::with_capacity(pages);
    for _ in 0..pages {
        let mut page = AlignedBytes::zeroed(layers * bytes)?;
        page.chunks_exact_mut(bytes).for_each(|layer| layer.copy_from_slice(&part));
        memory.push(page);
    }
    let count = if one { 1 } else { tokens };
    let queries = numbers(count * heads * key_size, 0.713);
    let mut output = vec![0.0; count * heads * value_size];
    let first_position = tokens - count;
    let positions: usize = (first_position..tokens).map(|position| position + 1).sum();
    // The best of short windows: other programs disturb long ones.
    let (mut best, mut layer) = (f64::INFINITY, 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(800) {
        let window = if one { (8192 / tokens).max(1) } else { 1 };
        let begin = Instant::now();
        for _ in 0..window {
            let pages: Vec<&[u8]> = memory.iter().map(|page| &page[layer * bytes..][..bytes]).collect();
            let mut items = [AttentionItem {
                queries: &queries,
                first_position,
                pages: &pages,
                output: &mut output,
                visible: Visible::Causal,
                bias: None,
            }];
            attention(context, &layout, &AttentionConfig::new(heads, 0.125), &mut items)?;
            layer = (layer + 1) % layers;
        }
        best = best.min(begin.elapsed().as_secs_f64() / window as f64);
    }
    Ok(((pages * bytes) as f64 / best / 1e9, (2 * heads * (key_size + value_size) * positions) as f64 / best / 1e9))
}

/// GFLOP/s of fused multiply-adds that wait for nothing, on all threads.
fn peak(pool: &Pool) -> f64 {
    const ROUNDS: usize = 1 << 20;
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        pool.run(&|_| {
            std::hint::black_box(multiply(ROUNDS));
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    (2 * CHAINS * 8 * ROUNDS * pool.threads()) as f64 / best / 1e9
}

/// Independent vectors of eight sums: as many as hide the latency.
const CHAINS: usize = 12;

fn multiply(rounds: usize) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has been asked for the features.
        return unsafe { multiply_avx2(rounds) };
    }
    chains(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_avx2(rounds: usize) -> f32 {
    chains(rounds)
}

#[inline(always)]
fn chains(rounds: usize) -> f32 {
    let factor = std::hint::black_box([0.999_f32; 8]);
    let mut sums = [[1.0_f32; 8]; CHAINS];
    for _ in 0..rounds {
        for chain in &mut sums {
            for lane in 0..8 {
                chain[lane] = chain[lane].mul_add(factor[lane], factor[lane]);
            }
        }
    }
    sums.iter().flatten().sum()
}
