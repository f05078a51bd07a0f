//! The scales of NVFP4.

use llamacpu_kernels::internals::formats::half_of_e4m3;
use llamacpu_kernels::internals::math::half_to_float;

#[test]
fn scales_are_halves_of_unsigned_e4m3_floats() {
    for bits in 0..=255_u8 {
        let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
        let expected = match (bits, exponent) {
            (127, _) => 0.0,
            (_, 0) => mantissa * 2.0_f32.powi(-10),
            _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 8),
        };
        assert_eq!(half_to_float(half_of_e4m3(bits)), expected, "{bits}");
    }
}
