//! Comparison with the same sums, one call after the other.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::low_rank::{LowRankJob, LowRankTerm, UpMatrix, add_low_rank, down_matrix};
use llamacpu_kernels::matmul::{Addition, Change, ChangeTerm, InputBuffers, Job, Matrix, Table, matmul, matmul_with};
use llamacpu_kernels::threads::Pool;

use crate::emulated;
use crate::matmul::{Random, bits, product, random_matrix};

/// How exact the numbers of a matrix are: bits of the mantissa that are set to zero.
const CUTS: [u32; 3] = [0, 13, 16];

fn numbers(count: usize, cut: u32, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| f32::from_bits(random.float().to_bits() & (u32::MAX << cut))).collect()
}

/// What the product, the bias and the changes of a job give, one after the other.
fn expected(context: &Context, input: &[f32], tokens: usize, weights: &Matrix, addition: &Addition) -> Vec<f32> {
    let (rows, columns) = (weights.rows(), weights.columns());
    let mut output = product(context.isa, 1, weights, input, tokens);
    for row in output.chunks_exact_mut(rows) {
        row.iter_mut().zip(addition.bias.unwrap_or(&vec![0.0; rows])).for_each(|(value, bias)| *value += bias);
    }
    for Change { tokens, terms } in &addition.changes {
        let input = &input[tokens.start * columns..tokens.end * columns];
        let lows: Vec<Vec<f32>> = terms
            .iter()
            .map(|term| {
                let mut low = product(context.isa, 1, term.down, input, tokens.len());
                for value in &mut low {
                    *value *= term.scale;
                }
                low
            })
            .collect();
        let terms = terms.iter().zip(&lows);
        let terms = terms.map(|(term, low)| LowRankTerm { up: term.up, low, stride: term.up.rank() }).collect();
        let job = LowRankJob { terms, tokens: tokens.len(), output: 0, place: (tokens.start, 0) };
        add_low_rank(context, &mut [Table { numbers: &mut output[..], width: rows }], &[job]).unwrap();
    }
    output
}

#[test]
fn additions_give_the_bits_of_separate_sums() {
    let mut random = Random(77);
    let counts: &[usize] = if emulated() { &[1, 9] } else { &[1, 2, 9, 67, 130] };
    for format in [Format::Q4_K, Format::Q8_0, Format::F16] {
        let columns = 512;
        let matrices: Vec<_> = [200, 33].map(|rows| random_matrix(format, rows, columns, &mut random)).into();
        let ranks = [16, 3, 80];
        let downs: Vec<_> = (0..3)
            .map(|i| down_matrix(ranks[i], columns, &numbers(ranks[i] * columns, CUTS[i], &mut random)).unwrap())
            .collect();
        let ups: Vec<Vec<_>> = matrices
            .iter()
            .map(|weights| {
                let up = |i: usize| numbers(weights.rows() * ranks[i], CUTS[2 - i], &mut random);
                let ups: Vec<_> = (0..3).map(up).collect();
                (0..3).map(|i| UpMatrix::new(weights.rows(), ranks[i], &ups[i]).unwrap()).collect()
            })
            .collect();
        let bias = numbers(200, 0, &mut random);
        for &tokens in counts {
            let input = numbers(tokens * columns, 0, &mut random);
            let term = |matrix: usize, i: usize| ChangeTerm {
                down: &downs[i],
                up: &ups[matrix][i],
                scale: [0.5, -2.0, 1.0][i],
            };
            let additions = [
                Addition {
                    bias: Some(&bias),
                    changes: vec![
                        Change { tokens: 0..tokens.div_ceil(2), terms: vec![term(0, 0), term(0, 2)] },
                        Change { tokens: tokens.div_ceil(2)..tokens, terms: vec![term(0, 1)] },
                    ],
                },
                Addition { bias: None, changes: vec![Change { tokens: 0..tokens, terms: vec![term(1, 0)] }] },
            ];
            for isa in Isa::all() {
                for threads in [1, 3] {
                    let pool = Pool::new(threads).unwrap();
                    let context = Context::new(isa, &pool);
                    let mut outputs: Vec<_> =
                        matrices.iter().map(|weights| vec![0.0; tokens * weights.rows()]).collect();
                    let mut jobs: Vec<_> =
                        matrices.iter().zip(&mut outputs).map(|(weights, output)| Job { weights, output }).collect();
                    let mut buffers = InputBuffers::default();
                    matmul_with(&context, &input, tokens, &mut buffers, &mut jobs, &additions).unwrap();
                    for (index, output) in outputs.iter().enumerate() {
                        let expected = expected(&context, &input, tokens, &matrices[index], &additions[index]);
                        assert_eq!(bits(output), bits(&expected), "{format:?} {isa} {threads} {tokens} {index}");
                    }
                }
            }
        }
    }
}

#[test]
fn additions_that_do_not_fit_are_errors() {
    let mut random = Random(78);
    let pool = Pool::new(1).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    let weights = random_matrix(Format::F32, 5, 32, &mut random);
    let down = down_matrix(2, 32, &[0.0; 64]).unwrap();
    let (fits, other) = (UpMatrix::new(5, 2, &[0.0; 10]).unwrap(), UpMatrix::new(5, 1, &[0.0; 5]).unwrap());
    let change = |up, tokens| Addition {
        bias: None,
        changes: vec![Change { tokens, terms: vec![ChangeTerm { down: &down, up, scale: 1.0 }] }],
    };
    let (input, mut output) = ([0.0; 64], [0.0; 10]);
    for (additions, text) in [
        (vec![Addition { bias: Some(&[0.0; 4]), changes: Vec::new() }], "a bias of 4 numbers"),
        (vec![change(&fits, 1..3)], "tokens 1 to 3 of 2"),
        (vec![change(&other, 0..2)], "5 × rank"),
        (vec![change(&fits, 0..2), Addition::default()], "2 additions for 1 products"),
    ] {
        let mut jobs = [Job { weights: &weights, output: &mut output }];
        let done = matmul_with(&context, &input, 2, &mut InputBuffers::default(), &mut jobs, &additions);
        let error = done.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let mut jobs = [Job { weights: &weights, output: &mut output }];
    matmul(&context, &input, 2, &mut InputBuffers::default(), &mut jobs).unwrap();
}
