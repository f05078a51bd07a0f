use super::*;
use crate::cpu::Isa;
use crate::math::tests::Random;
use crate::threads::Pool;

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
