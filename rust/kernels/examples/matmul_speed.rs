//! Speed of the matrix products beside what the machine can do at most: bytes of weights a second for few tokens,
//! multiplications a second for many.
//!
//! `cargo run --release -p llamacpu-kernels --example matmul_speed -- [threads] [format,format...] [isa,isa...] [tokens,tokens...] [megabytes]`
//!
//! The megabytes are those of the weights of a format, 256 unless given: few enough lie in caches, where arithmetic alone
//! bounds the products of few tokens.

#![expect(clippy::print_stdout, reason = "the product of this program is its table")]

use std::time::{Duration, Instant};

use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::mapping::Bytes;
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix, matmul, product_peak};
use llamacpu_kernels::threads::{Pool, read_bandwidth};

/// Numbers of tokens to measure unless others are given.
const TOKENS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];
/// The most tokens.
const MOST_TOKENS: usize = 512;

fn main() -> Result<(), llamacpu_kernels::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let names = |index: usize| {
        arguments.get(index).filter(|text| *text != "all").map(|text| text.split(',').collect::<Vec<_>>())
    };
    let (formats, sets) = (names(1), names(2));
    let tokens: Vec<usize> = names(3).map_or(TOKENS.to_vec(), |names| {
        names.iter().filter_map(|name| name.parse().ok()).filter(|tokens| (1..=MOST_TOKENS).contains(tokens)).collect()
    });
    let megabytes: usize = names(4).and_then(|names| names.first().and_then(|name| name.parse().ok())).unwrap_or(256);
    let pool = Pool::new(threads)?;
    let rate = read_bandwidth(&Context::new(Isa::chosen()?, &pool), 1 << 30, Duration::from_secs(1))?;
    println!("{threads} threads; read bandwidth {rate:.1} GB/s");
    println!(
        "{:8} {:8} {:>9} {}",
        "set",
        "format",
        "pack GB/s",
        tokens.iter().map(|tokens| format!("{tokens:>17}")).collect::<Vec<_>>().concat()
    );
    for isa in Isa::available() {
        if sets.as_ref().is_some_and(|sets| !sets.contains(&isa.name())) {
            continue;
        }
        let peak = product_peak(&Context::new(*isa, &pool), Duration::from_millis(300))?;
        println!("{:8} peak {peak:.1}M", isa.name());
        for format in Format::all() {
            let name = format.info().name;
            if formats.as_ref().is_none_or(|formats| formats.contains(&name)) {
                measure(&Context::new(*isa, &pool), *format, &tokens, megabytes << 20)?;
            }
        }
    }
    Ok(())
}

/// Measures one format: a stack of matrices that together have at least `size` bytes.
fn measure(context: &Context, format: Format, tokens: &[usize], size: usize) -> Result<(), llamacpu_kernels::Error> {
    let (rows, columns) = (8192, 2048);
    let row_bytes = format.row_bytes(columns).unwrap_or(0);
    let layers = size.div_ceil(rows * row_bytes);
    let mut state = 1_u32;
    let mut block = vec![0_u8; rows * row_bytes];
    for byte in &mut block {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // No exponent of an f16 or f32 is all ones.
        *byte = (state >> 24) as u8 & 0x3f;
    }
    let matrices: Vec<_> = (0..layers)
        .map(|_| Matrix::new(format, rows, columns, Bytes::owned(block.clone())))
        .collect::<Result<_, _>>()?;
    let input: Vec<f32> = (0..MOST_TOKENS * columns).map(|i| ((i * 7919) as f32 * 0.001).sin()).collect();
    let mut output = vec![0.0; MOST_TOKENS * rows];
    let mut scratch = InputBuffers::default();
    let mut pass = |tokens: usize, matrices: &[Matrix]| -> Result<f64, llamacpu_kernels::Error> {
        let start = Instant::now();
        for weights in matrices {
            let mut jobs = [Job { weights, output: &mut output[..tokens * rows] }];
            matmul(context, &input[..tokens * columns], tokens, &mut scratch, &mut jobs)?;
        }
        Ok(start.elapsed().as_secs_f64())
    };
    let bytes = (layers * rows * row_bytes) as f64;
    let packing = bytes / pass(1, &matrices)? / 1e9;
    print!("{:8} {:8} {packing:9.2} ", context.isa.name(), format.info().name);
    for tokens in tokens.iter().copied() {
        // The best of many short windows: other programs disturb a long one. Windows go round, so that no weights are left
        // in caches from the last time.
        let window = if tokens > 8 { 1 } else { (32_usize << 20).div_ceil(rows * row_bytes).min(layers) };
        let mut best = f64::INFINITY;
        let start = Instant::now();
        let mut first = 0;
        while start.elapsed() < Duration::from_millis(600) {
            first = if first + 2 * window > layers { 0 } else { first + window };
            best = best.min(pass(tokens, &matrices[first..first + window])? / window as f64);
        }
        let gigabytes = (rows * row_bytes) as f64 / best / 1e9;
        let products = (rows * columns * tokens) as f64 / best / 1e9;
        print!(" {gigabytes:6.2}/{products:7.1}M");
    }
    println!();
    Ok(())
}
