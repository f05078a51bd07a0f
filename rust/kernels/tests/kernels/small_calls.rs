//! One small call of every kernel and format, small enough for a slow tool such as Miri, that covers all unsafe code of the
//! instruction set. Results are compared between instruction sets and ways to divide the work; other tests compare them with
//! exact arithmetic.

mod training;

use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, KvLayout, KvType, PAGE_TOKENS, Visible, attention};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::{GroupedJob, InputBuffers, Job, Matrix, Table, grouped_matmul, matmul};
use llamacpu_kernels::recurrent::{DeltaItem, DeltaNet, DeltaWeights, delta_net};
use llamacpu_kernels::threads::Pool;
use llamacpu_kernels::{activation, norm, rope, sampling};

/// Numbers from -1 to 1 without a pattern, another sequence for each seed; not sines, which differ from call to call under Miri.
fn numbers(count: usize, seed: f32) -> Vec<f32> {
    let hash =
        |index: u32| (index ^ seed.to_bits()).wrapping_mul(0x9e37_79b1).rotate_left(15).wrapping_mul(0x85eb_ca77);
    (0..count as u32).map(|index| (hash(index) as i32 >> 8) as f32 / 8_388_608.0).collect()
}

fn matrix(format: Format, rows: usize, columns: usize) -> Matrix {
    let row_bytes = format.row_bytes(columns).unwrap();
    // No exponent of a float is all ones, whatever the format.
    let bytes = (0..rows * row_bytes).map(|index| ((index * 7919) >> 3) as u8 & 0x3f).collect();
    Matrix::new(format, rows, columns, Bytes::owned(bytes)).unwrap()
}

fn product(isa: Isa, threads: usize, weights: &Matrix, input: &[f32], tokens: usize) -> Vec<u32> {
    let pool = Pool::new(threads).unwrap();
    let mut output = vec![f32::NAN; tokens * weights.rows()];
    let mut jobs = [Job { weights, output: &mut output }];
    matmul(&Context::new(isa, &pool), input, tokens, &mut InputBuffers::default(), &mut jobs).unwrap();
    output.into_iter().map(f32::to_bits).collect()
}

/// Two groups of rows, the last of one row: both form one panel where panels are used. They stay packed for two tokens, and are
/// packed anew for one of them.
fn check_products(format: Format, columns: usize) {
    let rows = 17;
    let input = numbers(2 * columns, 0.7);
    let mut found = Vec::new();
    for isa in Isa::all() {
        let together = product(isa, 1, &matrix(format, rows, columns), &input, 2);
        let packed_anew = matrix(format, rows, columns);
        packed_anew.resident(false);
        let alone = product(isa, 1, &packed_anew, &input[..columns], 1);
        assert_eq!(alone, together[..rows], "{format:?} {isa}");
        found.push(together);
    }
    assert!(found.iter().all(|result| *result == found[0]), "{format:?}");
}

/// Checks the formats with blocks of that many weights whose names begin with `start`.
fn check_formats(block_elements: usize, start: &str) {
    let formats = Format::all().iter().filter(|format| {
        let info = format.info();
        info.block_elements == block_elements && info.name.starts_with(start)
    });
    let checked = formats.map(|format| check_products(*format, block_elements)).count();
    assert!(checked > 0, "{start}");
}

#[test]
fn products_of_blocks_of_32() {
    check_formats(32, "");
}

#[test]
fn products_of_blocks_of_64_and_128() {
    check_formats(64, "");
    check_formats(128, "");
}

#[test]
fn products_of_k_quants() {
    check_formats(256, "Q");
}

#[test]
fn products_of_ternary_quants() {
    check_formats(256, "TQ");
}

#[test]
fn products_of_quants_by_grids_and_tables() {
    check_formats(256, "IQ");
}

#[test]
fn products_of_plain_weights() {
    for format in [Format::F32, Format::F16, Format::BF16] {
        // Not a whole number of vectors.
        check_products(format, 83);
    }
}

#[test]
fn products_by_panels_of_plain_weights() {
    // As many tokens as the sets with panels need; the portable set has no panels.
    let (rows, columns, tokens) = (40, 17, if Isa::all().len() > 1 { 49 } else { 2 });
    let input = numbers(tokens * columns, 0.7);
    let weights = matrix(Format::F16, rows, columns);
    let all: Vec<_> = Isa::all().into_iter().map(|isa| product(isa, 1, &weights, &input, tokens)).collect();
    assert!(all.iter().all(|result| *result == all[0]));
}

#[test]
fn products_by_several_threads() {
    let weights = matrix(Format::Q4_0, 40, 32);
    let input = numbers(2 * 32, 0.3);
    for isa in Isa::all() {
        assert_eq!(product(isa, 2, &weights, &input, 2), product(isa, 1, &weights, &input, 2), "{isa}");
    }
}

#[test]
fn grouped_products() {
    // Two matrices for the same row of the input, side by side in the output; a third for the rest, with no row in between.
    let [first, second, third] = [17, 3, 20].map(|rows| matrix(Format::Q8_0, rows, 32));
    let input = numbers(3 * 32, 0.7);
    let job =
        |weights, tokens, from: usize, to: (usize, usize)| GroupedJob { weights, tokens, input: (from, 0), output: to };
    let jobs =
        [job(&first, 1, 0, (0, 0)), job(&second, 1, 0, (0, 17)), job(&third, 2, 1, (1, 0)), job(&third, 0, 0, (0, 0))];
    for isa in Isa::all() {
        let pool = Pool::new(2).unwrap();
        let mut output = vec![f32::NAN; 3 * 20];
        let (from, to) = (Table { numbers: &input[..], width: 32 }, Table { numbers: &mut output[..], width: 20 });
        grouped_matmul(&Context::new(isa, &pool), from, to, &mut InputBuffers::default(), &jobs).unwrap();
        let output: Vec<u32> = output.into_iter().map(f32::to_bits).collect();
        assert_eq!(output[..17], product(isa, 1, &first, &input[..32], 1), "{isa}");
        assert_eq!(output[17..20], product(isa, 1, &second, &input[..32], 1), "{isa}");
        assert_eq!(output[20..], product(isa, 1, &third, &input[32..], 2), "{isa}");
    }
}

#[test]
fn attention_of_every_type_of_keys_and_values() {
    let (heads, tokens, count) = (1, 5_usize, 2);
    for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
        // Not a whole number of vectors.
        let layout = KvLayout { kv_type, kv_heads: 1, key_size: 18, value_size: 17, latent: false };
        let mut found = Vec::new();
        for isa in Isa::all() {
            let mut pages = vec![vec![0; layout.layer_bytes()]; tokens.div_ceil(PAGE_TOKENS)];
            for token in 0..tokens {
                let (key, value) = (numbers(18, 0.1 + token as f32), numbers(17, 0.2 + token as f32));
                let page = &mut pages[token / PAGE_TOKENS];
                layout.write(isa, page, token % PAGE_TOKENS, &key, &value).unwrap();
            }
            let pages: Vec<&[u8]> = pages.iter().map(Vec::as_slice).collect();
            let queries = numbers(count * heads * 18, 0.9);
            let mut output = vec![f32::NAN; count * heads * 17];
            let mut items = [AttentionItem {
                queries: &queries,
                first_position: tokens - count,
                pages: &pages,
                output: &mut output,
                visible: Visible::Causal,
                bias: None,
            }];
            let pool = Pool::new(1).unwrap();
            let config = AttentionConfig { slopes: Some(&[0.25]), ..AttentionConfig::new(heads, 0.2) };
            attention(&Context::new(isa, &pool), &layout, &config, &mut items).unwrap();
            found.push(output);
        }
        assert!(found.iter().all(|output| *output == found[0]), "{kv_type:?}");
    }
}

#[test]
fn recurrent_layers() {
    // Not whole numbers of vectors; two value heads use one of the key heads.
    let net = DeltaNet { key_heads: 1, value_heads: 2, key_size: 5, value_size: 17, taps: 2, grouped: true };
    let (convolution, small, norm) = (numbers(2 * net.channels(), 0.3), numbers(2, -0.4), numbers(17, 0.2));
    let weights = DeltaWeights { convolution: &convolution, decay: &small, time: &small, norm: &norm, epsilon: 1e-5 };
    let (channels, heads, gate) = (numbers(3 * net.channels(), 0.7), numbers(6, 0.9), numbers(102, 0.1));
    let mut found = Vec::new();
    for isa in Isa::all() {
        let pool = Pool::new(2).unwrap();
        let run = |rows: std::ops::Range<usize>, before: Option<&[f32]>| {
            let mut state = vec![0.0; net.state_numbers().unwrap()];
            let mut output = vec![0.0; rows.len() * 34];
            let mut scratch = vec![0.0; rows.len() * net.scratch()];
            let part = |width: usize| rows.start * width..rows.end * width;
            let mut items = [DeltaItem {
                channels: &channels[part(net.channels())],
                write: &heads[part(2)],
                time: &heads[part(2)],
                gate: Some(&gate[part(34)]),
                before,
                state: &mut state,
                output: &mut output,
            }];
            delta_net(&Context::new(isa, &pool), &net, &weights, &mut items, &mut scratch).unwrap();
            (output, state)
        };
        let first = run(0..1, None);
        let second = run(1..3, Some(&first.1));
        found.push((first, second));
    }
    assert!(found.iter().all(|results| *results == found[0]));
}

#[test]
fn functions_of_rows() {
    let mut found = Vec::new();
    for isa in Isa::all() {
        let pool = Pool::new(2).unwrap();
        let context = Context::new(isa, &pool);
        let (mut x, y) = (numbers(45, 0.7), numbers(45, 0.3));
        activation::swiglu(&context, &mut x, &y).unwrap();
        activation::add(&context, &mut x, &y).unwrap();
        activation::scale(&context, &mut x, 0.5).unwrap();
        let mut normal = vec![0.0; 45];
        norm::rms_norm(&context, &x, &y[..15], 1e-5, &mut normal).unwrap();
        let (style, scaling) = (rope::RopeStyle::NeoX, rope::RopeScaling::None);
        let settings = rope::RopeSettings { size: 14, base: 10_000.0, style, scaling, factors: None };
        let table = rope::Rope::new(&settings).unwrap();
        let mut angles = vec![0.0; table.size()];
        table.table(3, &mut angles).unwrap();
        table.apply(isa, &mut normal, 15, &angles).unwrap();
        let mut logs = vec![0.0; 45];
        assert!(sampling::log_softmax(isa, &x, &mut logs));
        let best = sampling::top_k(isa, &x, 3);
        activation::softmax(isa, &mut x);
        found.push((x, normal, logs, best, sampling::argmax(isa, &y)));
    }
    assert!(found.iter().all(|results| *results == found[0]));
}
