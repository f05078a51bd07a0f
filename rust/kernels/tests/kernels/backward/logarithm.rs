//! The logarithm in doubles of sums of weights.

use llamacpu_kernels::internals::backward::logarithm;

#[test]
fn logarithms_are_those_of_the_standard_library() {
    for bits in (f32::MIN_POSITIVE.to_bits()..f32::MAX.to_bits()).step_by(100_003) {
        let x = f32::from_bits(bits);
        let exact = f64::from(x).ln();
        assert!((logarithm(x) - exact).abs() <= 1e-13 * exact.abs().max(1.0), "ln({x})");
    }
    assert_eq!(logarithm(1.0), 0.0);
    assert!(logarithm(f32::NAN).is_nan());
}
