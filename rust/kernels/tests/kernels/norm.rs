use llamacpu_kernels::Error;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::norm::*;
use llamacpu_kernels::threads::Pool;

use crate::random::Random;

#[test]
fn it_is_the_formula_in_every_instruction_set_and_thread_count() {
    let mut random = Random::new(10);
    for (rows, size) in [(1, 1), (1, 15), (2, 16), (3, 17), (5, 288), (1, 4096), (37, 2048)] {
        let (input, weight) = (random.units(rows * size), random.units(size));
        let mut expected: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let pool = Pool::new(threads).expect("threads start");
                let mut output = vec![f32::NAN; rows * size];
                rms_norm(&Context::new(*isa, &pool), &input, &weight, 1e-5, &mut output).expect("fitting shapes");
                match &expected {
                    Some(expected) => assert_eq!(&output, expected, "{} {threads} threads", isa.name()),
                    None => expected = Some(output),
                }
            }
        }
        let output = expected.expect("at least the scalar set");
        for (x, y) in input.chunks(size).zip(output.chunks(size)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / size as f64;
            for ((x, w), y) in x.iter().zip(&weight).zip(y) {
                let exact = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*w);
                assert!((f64::from(*y) - exact).abs() <= 1e-6 * exact.abs() + 1e-30, "{y} {exact}");
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let pool = Pool::new(1).expect("threads start");
    let context = Context::new(Isa::SCALAR, &pool);
    for (input, weight, output) in [(4, 0, 4), (5, 2, 5), (4, 2, 6)] {
        let result = rms_norm(&context, &vec![1.0; input], &vec![1.0; weight], 1e-5, &mut vec![0.0; output]);
        assert!(matches!(result, Err(Error::Shape(_))));
    }
    rms_norm(&context, &[], &[1.0], 1e-5, &mut []).expect("no rows are fine");
}

/// The formulas in f64.
fn exact(norm: &Norm, row: usize, x: &[f32]) -> Vec<f64> {
    let size = norm.size;
    let number = |numbers: Option<&[f32]>, none: f64, index: usize| {
        numbers.map_or(none, |numbers| f64::from(numbers[row % (numbers.len() / size) * size + index]))
    };
    let x = || x.iter().map(|x| f64::from(*x));
    let mean = if norm.kind == NormKind::MeanAndVariance { x().sum::<f64>() / size as f64 } else { 0.0 };
    let square = x().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
    let scaled = x().map(|x| (x - mean) / (square + f64::from(norm.epsilon)).sqrt());
    scaled.enumerate().map(|(i, x)| x * number(norm.weight, 1.0, i) + number(norm.bias, 0.0, i)).collect()
}

#[test]
fn every_norm_is_its_formula_in_every_instruction_set() {
    let mut random = Random::new(11);
    for (rows, size, heads) in [(1, 1, 1), (2, 15, 2), (6, 16, 3), (3, 17, 1), (24, 64, 8), (5, 384, 1), (40, 1000, 2)]
    {
        let (input, weight, bias) = (random.units(rows * size), random.units(heads * size), random.units(heads * size));
        // A mean that is large relative to the deviation.
        let input: Vec<f32> = input.iter().map(|x| x + 3.0).collect();
        for kind in [NormKind::RootMeanSquare, NormKind::MeanAndVariance] {
            for (weight, bias) in
                [(None, None), (Some(&weight[..]), None), (Some(&weight), Some(&bias[..])), (None, Some(&bias))]
            {
                let norm = Norm { kind, size, weight, bias, epsilon: 1e-5 };
                let mut expected: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let pool = Pool::new(threads).expect("threads start");
                        let context = Context::new(*isa, &pool);
                        let mut output = vec![f32::NAN; rows * size];
                        norm.apply(&context, &input, &mut output).expect("fitting shapes");
                        let mut in_place = input.clone();
                        norm.apply_in_place(&context, &mut in_place, size).expect("fitting shapes");
                        assert_eq!(in_place, output, "{isa} {norm:?}");
                        assert_eq!(expected.get_or_insert_with(|| output.clone()), &output, "{isa} {norm:?}");
                    }
                }
                let output = expected.expect("at least the scalar set");
                for (row, (x, y)) in input.chunks(size).zip(output.chunks(size)).enumerate() {
                    for (y, exact) in y.iter().zip(exact(&norm, row, x)) {
                        assert!((f64::from(*y) - exact).abs() <= 4e-6, "{norm:?}: {y} {exact}");
                    }
                }
            }
        }
    }
}

#[test]
fn only_the_beginning_of_each_step_is_normalized() {
    let mut random = Random::new(12);
    let (pool, weight) = (Pool::new(2).expect("threads start"), random.units(40));
    let context = Context::new(*Isa::available().last().expect("at least scalar"), &pool);
    let norm = Norm { kind: NormKind::RootMeanSquare, size: 40, weight: Some(&weight), bias: None, epsilon: 1e-6 };
    // More rows than fit into a piece of work.
    let x = random.units(64 * 1000);
    let mut got = x.clone();
    norm.apply_in_place(&context, &mut got, 64).expect("fitting shapes");
    for (x, got) in x.chunks(64).zip(got.chunks(64)) {
        let mut expected = vec![0.0; 40];
        norm.apply(&context, &x[..40], &mut expected).expect("fitting shapes");
        assert_eq!((&got[..40], &got[40..]), (&expected[..], &x[40..]));
    }
}

#[test]
fn nan_and_infinity_stay_in_their_rows() {
    let pool = Pool::new(1).expect("threads start");
    for kind in [NormKind::RootMeanSquare, NormKind::MeanAndVariance] {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY] {
                let norm = Norm { kind, size: 20, weight: None, bias: None, epsilon: 1e-5 };
                let mut x: Vec<f32> = (0..60).map(|index| index as f32).collect();
                x[37] = bad;
                norm.apply_in_place(&Context::new(*isa, &pool), &mut x, 20).expect("fitting shapes");
                assert!(
                    x[37].is_nan() && x[..20].iter().chain(&x[40..]).all(|x| x.is_finite()),
                    "{isa} {kind:?} {bad}"
                );
            }
        }
    }
}

#[test]
fn norms_that_do_not_fit_are_errors() {
    let pool = Pool::new(1).expect("threads start");
    let context = Context::new(Isa::SCALAR, &pool);
    let norm = Norm { kind: NormKind::MeanAndVariance, size: 4, weight: None, bias: None, epsilon: 1e-5 };
    let shape = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Shape(_))));
    shape(norm.apply(&context, &[1.0; 6], &mut [0.0; 6]));
    shape(norm.apply(&context, &[1.0; 8], &mut [0.0; 4]));
    shape(norm.apply_in_place(&context, &mut [1.0; 8], 3));
    shape(norm.apply_in_place(&context, &mut [1.0; 8], 5));
    shape(norm.apply_in_place(&context, &mut [1.0; 8], 0));
    shape(Norm { size: 0, ..norm }.apply_in_place(&context, &mut [1.0; 8], 4));
    for wrong in [&[1.0; 0][..], &[1.0; 3], &[1.0; 6]] {
        shape(Norm { weight: Some(wrong), ..norm }.apply_in_place(&context, &mut [1.0; 8], 4));
        shape(Norm { bias: Some(wrong), ..norm }.apply_in_place(&context, &mut [1.0; 8], 4));
    }
}
