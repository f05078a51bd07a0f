//! Comparison of grouped products with the same products computed one by one.

use llamacpu_kernels::Error;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::matmul::*;
use llamacpu_kernels::threads::Pool;

use crate::emulated;
use crate::matmul::{Random, bits, product, random_matrix};

/// A rectangle of a table.
fn part(table: &[f32], width: usize, (row, column): (usize, usize), (rows, columns): (usize, usize)) -> Vec<f32> {
    (row..row + rows).flat_map(|row| table[row * width + column..][..columns].to_vec()).collect()
}

/// Runs jobs whose outputs are one column of parts each, and compares every part with a separate product, and everything else
/// with its previous contents.
fn check(formats: &[Format], columns: usize, counts: &[usize], random: &mut Random) {
    let matrices: Vec<_> =
        (0..counts.len()).map(|i| random_matrix(formats[i % formats.len()], 5 + 7 * i, columns, random)).collect();
    let lines: usize = counts.iter().sum::<usize>() + 3;
    let input_width = columns + 9;
    let output_width = matrices.iter().map(Matrix::rows).max().unwrap() + 40;
    let input: Vec<f32> = (0..lines * input_width).map(|_| random.float()).collect();
    let mut jobs = Vec::new();
    let mut row = 1;
    for (index, (weights, &tokens)) in matrices.iter().zip(counts).enumerate() {
        let from = (row, index % 10);
        jobs.push(GroupedJob { weights, tokens, input: from, output: (row, 2) });
        // The same input once more, for a part of the output next to the first.
        let beside = &matrices[0];
        jobs.push(GroupedJob { weights: beside, tokens, input: from, output: (row, 2 + weights.rows()) });
        row += tokens;
    }
    for isa in Isa::all() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            let mut output = vec![-7.0; lines * output_width];
            let tables = (
                Table { numbers: &input[..], width: input_width },
                Table { numbers: &mut output[..], width: output_width },
            );
            let mut buffers = InputBuffers::default();
            grouped_matmul(&Context::new(isa, &pool), tables.0, tables.1, &mut buffers, &jobs).unwrap();
            for job in &jobs {
                let rows = job.weights.rows();
                let own = part(&input, input_width, job.input, (job.tokens, columns));
                let expected = if job.tokens > 0 { product(isa, 1, job.weights, &own, job.tokens) } else { Vec::new() };
                let found = part(&output, output_width, job.output, (job.tokens, rows));
                assert_eq!(bits(&found), bits(&expected), "{:?} {isa} {} tokens", job.weights.format(), job.tokens);
                for line in 0..job.tokens {
                    let first = (job.output.0 + line) * output_width + job.output.1;
                    output[first..first + rows].fill(-7.0);
                }
            }
            assert!(output.iter().all(|number| *number == -7.0), "something was written beside the parts");
        }
    }
}

#[test]
fn jobs_give_the_bits_of_products_of_their_own() {
    let mut random = Random(21);
    let counts: &[usize] = if emulated() { &[1, 0, 9] } else { &[1, 0, 3, 40, 17, 1, 16] };
    for format in Format::all() {
        let columns = match format.info().block_elements {
            256 => 512,
            size => size.max(64),
        };
        check(&[*format], columns, counts, &mut random);
    }
    check(&[Format::F32, Format::Q4_K, Format::BF16, Format::Q2_K], 256, counts, &mut random);
    check(&[Format::F16, Format::F32], 37, counts, &mut random);
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let mut random = Random(22);
    let (weights, other) =
        (random_matrix(Format::Q8_0, 4, 32, &mut random), random_matrix(Format::Q8_0, 4, 64, &mut random));
    let pool = Pool::new(1).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    let job = |input, output| GroupedJob { weights: &weights, tokens: 2, input, output };
    let run = |(numbers, width): (usize, usize), jobs: &[GroupedJob]| {
        let mut output = [0.0; 40];
        let output = Table { numbers: &mut output[..], width: 10 };
        grouped_matmul(
            &context,
            Table { numbers: &vec![0.0; numbers], width },
            output,
            &mut InputBuffers::default(),
            jobs,
        )
    };
    assert!(run((64, 32), &[]).is_ok());
    assert!(run((64, 32), &[job((0, 0), (0, 0)), job((0, 0), (0, 4)), job((0, 0), (2, 6))]).is_ok());
    for (input, jobs) in [
        ((64, 32), vec![job((1, 0), (0, 0))]),
        ((64, 32), vec![job((0, 1), (0, 0))]),
        ((65, 32), vec![job((0, 0), (0, 0))]),
        ((0, 0), vec![job((0, 0), (0, 0))]),
        ((64, 32), vec![job((0, 0), (3, 0))]),
        ((64, 32), vec![job((0, 0), (0, 7))]),
        ((64, 32), vec![job((usize::MAX, 0), (0, 0))]),
        ((64, 32), vec![job((0, 0), (0, usize::MAX))]),
        // Parts of the output that overlap, side by side, one below the other, and across.
        ((64, 32), vec![job((0, 0), (0, 0)), job((0, 0), (0, 3))]),
        ((64, 32), vec![job((0, 0), (1, 0)), job((0, 0), (0, 0))]),
        ((64, 32), vec![job((0, 0), (0, 0)), job((0, 0), (1, 5))]),
        ((64, 64), vec![GroupedJob { weights: &other, tokens: 1, input: (0, 0), output: (0, 0) }, job((0, 0), (2, 0))]),
        ((64, 32), vec![GroupedJob { tokens: usize::MAX, ..job((0, 0), (0, 0)) }]),
    ] {
        assert!(matches!(run(input, &jobs), Err(Error::Shape(_))), "{input:?} {jobs:?}");
    }
}

#[test]
fn sums_of_nothing_are_zeros() {
    let weights = Matrix::new(Format::F32, 3, 0, llamacpu_kernels::mapping::Bytes::owned(Vec::new())).unwrap();
    let pool = Pool::new(1).unwrap();
    let mut output = [f32::NAN; 6];
    let jobs = [GroupedJob { weights: &weights, tokens: 2, input: (0, 0), output: (0, 0) }];
    let (from, to) = (Table { numbers: &[0.0; 2][..], width: 1 }, Table { numbers: &mut output[..], width: 3 });
    grouped_matmul(&Context::new(Isa::SCALAR, &pool), from, to, &mut InputBuffers::default(), &jobs).unwrap();
    assert_eq!(output, [0.0; 6]);
}
