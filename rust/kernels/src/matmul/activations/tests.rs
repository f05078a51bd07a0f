//! Rounding of blocks of activations, on every instruction set.

use super::Block;
use crate::cpu::Isa;
use crate::math::{Kernel, Lanes, dispatch};

struct One<'a>(&'a [f32; 32]);

impl Kernel for One<'_> {
    type Output = Block;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Block {
        super::quantize_block::<L>(set, self.0)
    }
}

/// Quants and scale, checked on every instruction set.
pub(in crate::matmul) fn quantize_block(values: &[f32; 32]) -> ([i8; 32], f32) {
    let expected = dispatch(Isa::SCALAR, One(values));
    for isa in Isa::available() {
        let found = dispatch(*isa, One(values));
        assert_eq!(found.quants, expected.quants, "{}", isa.name());
        assert_eq!(found.sums, expected.sums, "{}", isa.name());
        assert!(found.scale.to_bits() == expected.scale.to_bits() || found.scale.is_nan() && expected.scale.is_nan());
    }
    let quants = expected.quants.map(|quant| quant as i8);
    for (sum, half) in expected.sums.iter().zip(quants.chunks(16)) {
        assert_eq!(*sum, half.iter().map(|quant| f32::from(*quant)).sum::<f32>());
    }
    (quants, expected.scale)
}

#[test]
fn blocks_are_rounded_better_than_by_the_plain_quotient() {
    let mut state = 1_u32;
    let mut better = 0;
    for _ in 0..500 {
        let values: [f32; 32] = std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        });
        let largest = values.iter().fold(0.0_f32, |found, value| found.max(value.abs()));
        let (quants, scale) = quantize_block(&values);
        let error = |back: &dyn Fn(usize) -> f32| -> f64 {
            (0..32).map(|index| f64::from(values[index] - back(index)).powi(2)).sum()
        };
        let chosen = error(&|index| f32::from(quants[index]) * scale);
        let plain = error(&|index| (values[index] / largest * 127.0).round_ties_even() * (largest / 127.0));
        assert!(chosen <= plain * 1.000_01, "{chosen} {plain}");
        better += i32::from(chosen < 0.95 * plain);
    }
    assert!(better > 250, "{better} of 500 blocks are clearly better");
}

#[test]
#[should_panic(expected = "without Needs { zero: 8, parts: 2")]
fn activations_that_were_not_asked_for_are_not_replaced_by_others() {
    let needs = super::Needs { zero: 8, parts: 1, ..Default::default() };
    let mut activations = super::Activations::default();
    activations.resize(3, 8, [needs].into_iter()).unwrap();
    assert_eq!(super::Variant::of(&activations.variants, needs).starts.len(), 24);
    super::Variant::of(&activations.variants, super::Needs { parts: 2, ..needs });
}

#[test]
fn blocks_of_a_single_magnitude_are_exact() {
    for value in [1.0_f32, -3.0e-20, 2.5e30] {
        let (quants, scale) = quantize_block(&[value; 32]);
        assert!((f32::from(quants[7]) * scale / value - 1.0).abs() < 1e-6);
    }
}

#[test]
fn values_that_are_no_numbers_and_blocks_of_nothing_have_scales_of_their_own() {
    let mut values = [1.0; 32];
    values[31] = f32::INFINITY;
    assert!(quantize_block(&values).1.is_nan());
    for wrong in [f32::NAN, f32::NEG_INFINITY] {
        for place in 0..32 {
            let mut values = [0.0; 32];
            values[place] = wrong;
            assert!(quantize_block(&values).1.is_nan(), "{wrong} at {place} among zeros");
            values[31 - place] = 2.0;
            assert!(quantize_block(&values).1.is_nan(), "{wrong} at {place}");
        }
    }
    assert_eq!(quantize_block(&[1.0e-38; 32]), ([0; 32], 0.0));
}
