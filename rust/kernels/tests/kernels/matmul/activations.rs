//! Rounding of blocks of activations, on every instruction set.

use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::internals::math::{Kernel, LANES, Lanes, dispatch};
use llamacpu_kernels::internals::matmul::{Activations, Blocks, Needs, Variant, quantize_blocks};

struct Some<'a>(&'a [[f32; 32]]);

impl Kernel for Some<'_> {
    type Output = Blocks;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Blocks {
        quantize_blocks::<L>(set, self.0)
    }
}

/// Quants and scale, checked on every instruction set.
pub(super) fn quantize_block(values: &[f32; 32]) -> ([i8; 32], f32) {
    let expected = dispatch(Isa::SCALAR, Some(&[*values]));
    for isa in Isa::available() {
        // A block has the same quants wherever it is, and whatever is beside it.
        let mut others = [[f32::NAN; 32]; LANES];
        for (number, block) in others.iter_mut().enumerate().skip(1) {
            *block = values.map(|value| value * number as f32);
        }
        for (place, count) in [(0, 1), (2, 3), (15, 16)] {
            let mut blocks = others;
            blocks[place] = *values;
            let found = dispatch(*isa, Some(&blocks[..count]));
            assert_eq!(found.quants[place], expected.quants[0], "{}", isa.name());
            assert_eq!(found.sums.map(|sums| sums[place]), expected.sums.map(|sums| sums[0]), "{}", isa.name());
            let (found, expected) = (found.scales[place], expected.scales[0]);
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
        }
    }
    let quants = expected.quants[0].map(|quant| quant as i8);
    for (sums, half) in expected.sums.iter().zip(quants.chunks(16)) {
        assert_eq!(sums[0], half.iter().map(|quant| f32::from(*quant)).sum::<f32>());
    }
    (quants, expected.scales[0])
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
    let needs = Needs { zero: 8, parts: 1, ..Default::default() };
    let mut activations = Activations::default();
    activations.resize(3, 8, [needs].into_iter()).unwrap();
    assert_eq!(Variant::of(&activations.variants, needs).starts.len(), 24);
    Variant::of(&activations.variants, Needs { parts: 2, ..needs });
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
