use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::low_rank::*;
use llamacpu_kernels::matmul::Table;
use llamacpu_kernels::threads::Pool;

/// Numbers between -1 and 1; multiples of 1/64 if they are to be halves.
fn numbers(count: usize, seed: u32, halves: bool) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        if halves { (value * 64.0).round() / 64.0 } else { value }
    };
    (0..count).map(next).collect()
}

/// The definition, one output after the other.
fn expected(terms: &[(&[f32], &[f32], usize)], tokens: usize, rows: usize, output: &[f32]) -> Vec<f32> {
    let mut result = output.to_vec();
    for token in 0..tokens {
        for row in 0..rows {
            let mut sum = 0.0_f32;
            for &(up, low, rank) in terms {
                for k in 0..rank {
                    sum = low[token * rank + k].mul_add(up[row * rank + k], sum);
                }
            }
            result[token * rows + row] += sum;
        }
    }
    result
}

#[test]
fn every_set_and_number_of_threads_gives_the_bits_of_the_definition() {
    for isa in Isa::available() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            let context = Context::new(*isa, &pool);
            for (tokens, rows, ranks) in
                [(1, 1, [1, 0]), (3, 17, [4, 3]), (9, 100, [16, 5]), (67, 33, [1, 8]), (150, 2050, [16, 16])]
            {
                let ups: Vec<_> =
                    (0..2).map(|index| numbers(rows * ranks[index], 1 + index as u32, index == 0)).collect();
                let lows: Vec<_> =
                    (0..2).map(|index| numbers(tokens * ranks[index], 7 + index as u32, false)).collect();
                let matrices: Vec<_> =
                    (0..2).map(|index| UpMatrix::new(rows, ranks[index], &ups[index]).unwrap()).collect();
                assert!(matrices[0].nbytes() <= 2 * rows.next_multiple_of(16) * ranks[0]);
                let start = numbers(tokens * rows, 3, false);
                let pairs: Vec<_> = (0..2).map(|index| (&ups[index][..], &lows[index][..], ranks[index])).collect();
                let expected = expected(&pairs, tokens, rows, &start);
                let terms =
                    (0..2).map(|index| LowRankTerm { up: &matrices[index], low: &lows[index], stride: ranks[index] });
                let job = LowRankJob { terms: terms.collect(), tokens, output: 0, place: (0, 0) };
                let mut output = start.clone();
                let mut outputs = [Table { numbers: &mut output[..], width: rows }];
                add_low_rank(&context, &mut outputs, &[job]).unwrap();
                assert_eq!(output, expected, "{isa:?} {threads} {tokens} {rows} {ranks:?}");
            }
        }
    }
}

#[test]
fn parts_of_several_outputs_change_and_nothing_else_does() {
    let pool = Pool::new(2).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    let up = UpMatrix::new(2, 1, &[1.0, 2.0]).unwrap();
    let low = [1.0, 9.0, 3.0];
    let job = |output, place, tokens| LowRankJob {
        terms: vec![LowRankTerm { up: &up, low: &low, stride: 2 }],
        tokens,
        output,
        place,
    };
    let (mut first, mut second) = ([0.0; 6], [0.0; 10]);
    let mut outputs = [Table { numbers: &mut first[..], width: 2 }, Table { numbers: &mut second[..], width: 5 }];
    add_low_rank(&context, &mut outputs, &[job(0, (1, 0), 2), job(1, (0, 0), 2), job(1, (0, 3), 2)]).unwrap();
    assert_eq!(first, [0.0, 0.0, 1.0, 2.0, 3.0, 6.0]);
    assert_eq!(second, [1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 6.0, 0.0, 3.0, 6.0]);
    let mut outputs = [Table { numbers: &mut first[..], width: 2 }];
    for (jobs, text) in [
        (vec![job(0, (2, 0), 2)], "inside"),
        (vec![job(1, (0, 0), 1)], "inside"),
        (vec![job(0, (0, 1), 1)], "inside"),
        (vec![job(0, (0, 0), 3)], "tokens × rank"),
        (vec![job(0, (0, 0), 2), job(0, (1, 0), 2)], "overlap"),
    ] {
        let error = add_low_rank(&context, &mut outputs, &jobs).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(UpMatrix::new(2, 2, &[0.0; 3]).is_err());
}
