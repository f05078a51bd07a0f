use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::squares::*;
use llamacpu_kernels::threads::Pool;

use crate::random::Random;

#[test]
fn squares_are_added_in_the_order_of_the_rows() {
    let mut random = Random::new(80);
    for (rows, stride, columns) in [(1, 1, 1), (3, 7, 5), (40, 200, 129), (17, 64, 64)] {
        let input = random.units(rows * stride);
        let mut expected = vec![0.5; columns];
        for row in input.chunks(stride) {
            expected.iter_mut().zip(row).for_each(|(sum, x): (&mut f64, _)| *sum += f64::from(*x).powi(2));
        }
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            let context = Context::new(Isa::SCALAR, &pool);
            for split in 0..rows {
                let mut sums = vec![0.5; columns];
                add_squares(&context, &input[..split * stride], stride, split, &mut sums).unwrap();
                add_squares(&context, &input[split * stride..], stride, rows - split, &mut sums).unwrap();
                assert_eq!(sums, expected);
            }
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let pool = Pool::new(1).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    for (stride, rows, columns) in [(4, 2, 5), (4, 3, 4), (usize::MAX, 3, 4)] {
        assert!(add_squares(&context, &[0.0; 8], stride, rows, &mut vec![0.0; columns]).is_err());
    }
    add_squares(&context, &[2.0; 7], 4, 2, &mut [0.0; 3]).unwrap();
}
