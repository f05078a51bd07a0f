//! Numbers that are not finite, extreme ones, and sizes that do not fit.

use super::*;

#[test]
fn activations_that_are_not_finite_spoil_only_their_token() {
    let mut random = Random(5);
    for format in Format::all().iter().filter(|format| format.info().block_elements > 1) {
        let (rows, columns, tokens) = (33, 512, 10);
        let weights = random_matrix(*format, rows, columns, &mut random);
        let clean: Vec<f32> = (0..tokens * columns).map(|_| random.float()).collect();
        for (tokens, spoiled) in [(10, 4), (3, 1)] {
            for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
                let mut input = clean[..tokens * columns].to_vec();
                input[spoiled * columns + 77] = wrong;
                for isa in &Isa::all() {
                    let expected = product(*isa, 1, &weights, &clean[..tokens * columns], tokens);
                    let found = product(*isa, 1, &weights, &input, tokens);
                    for (token, (found, expected)) in found.chunks(rows).zip(expected.chunks(rows)).enumerate() {
                        if token == spoiled {
                            assert!(found.iter().all(|value| value.is_nan()), "{format:?} {isa}");
                        } else {
                            assert_eq!(bits(found), bits(expected), "{format:?} {isa}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn extreme_sizes_of_activations() {
    let mut random = Random(6);
    let weights = random_matrix(Format::Q8_0, 17, 96, &mut random);
    for size in [0.0, f32::from_bits(1), 1e-38, 1e-31, 1e-29, 1e30, 1e35] {
        let input: Vec<f32> = (0..96).map(|_| random.float() * size).collect();
        let expected = product(Isa::SCALAR, 1, &weights, &input, 1);
        assert!(expected.iter().all(|value| value.is_finite()), "{size}");
        if size < 1e-30 {
            assert!(expected.iter().all(|value| *value == 0.0), "{size}");
        }
        for isa in &Isa::all() {
            assert_eq!(bits(&product(*isa, 1, &weights, &input, 1)), bits(&expected), "{size} {isa}");
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let mut random = Random(7);
    let weights = random_matrix(Format::Q4_0, 4, 64, &mut random);
    let pool = Pool::new(1).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    let run = |input: usize, tokens: usize, output: usize| {
        let mut output = vec![0.0; output];
        let mut jobs = [Job { weights: &weights, output: &mut output }];
        matmul(&context, &vec![0.0; input], tokens, &mut InputBuffers::default(), &mut jobs)
    };
    assert!(run(64, 1, 4).is_ok());
    assert!(run(0, 0, 0).is_ok());
    assert!(matches!(run(63, 1, 4), Err(Error::Shape(_))));
    assert!(matches!(run(64, 2, 8), Err(Error::Shape(_))));
    assert!(matches!(run(64, 1, 5), Err(Error::Shape(_))));
    assert!(matches!(run(64, usize::MAX, 4), Err(Error::Shape(_))));
    assert!(matches!(Matrix::new(Format::Q4_K, 1, 100, Bytes::owned(vec![0; 144])), Err(Error::Shape(_))));
    assert!(matches!(Matrix::new(Format::Q4_K, 2, 256, Bytes::owned(vec![0; 144])), Err(Error::Shape(_))));
    assert!(weights.row(4, &mut [0.0; 64]).is_err());
    assert!(weights.row(3, &mut [0.0; 63]).is_err());
}

#[test]
fn a_matrix_without_rows_or_columns() {
    let pool = Pool::new(1).unwrap();
    for isa in &Isa::all() {
        let context = Context::new(*isa, &pool);
        for (format, rows, columns) in
            [(Format::Q4_0, 0, 64), (Format::F32, 0, 8), (Format::Q8_0, 3, 0), (Format::F16, 3, 0)]
        {
            let weights = Matrix::new(format, rows, columns, Bytes::owned(Vec::new())).unwrap();
            for tokens in [1, 12] {
                let mut output = vec![f32::NAN; tokens * rows];
                let mut jobs = [Job { weights: &weights, output: &mut output }];
                matmul(&context, &vec![0.0; tokens * columns], tokens, &mut InputBuffers::default(), &mut jobs)
                    .unwrap();
                assert!(output.iter().all(|value| *value == 0.0), "{format:?}");
            }
        }
    }
}

#[test]
fn an_interrupted_product_says_so() {
    let mut random = Random(8);
    let weights = random_matrix(Format::Q4_0, 640, 64, &mut random);
    let pool = Pool::new(2).unwrap();
    let mut output = vec![0.0; 640];
    let context = Context { interrupted: Some(&|| true), ..Context::new(Isa::SCALAR, &pool) };
    let mut jobs = [Job { weights: &weights, output: &mut output }];
    let result = matmul(&context, &[1.0; 64], 1, &mut InputBuffers::default(), &mut jobs);
    assert!(matches!(result, Err(Error::Cancelled)));
}
