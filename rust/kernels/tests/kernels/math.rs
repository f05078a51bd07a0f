mod circle;
mod double_double;
mod doubles;

use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::internals::math::*;

use crate::random::{Random, same};

#[test]
fn software_fma_is_the_correctly_rounded_one() {
    let mut random = Random::new(1);
    for round in 0..2_000_000 {
        let (a, b) = (random.any(), random.any());
        // Half of the time, an addend of about the size of the product, so that they cancel.
        let c = match round % 4 {
            0 => random.any(),
            1 => -(a * b),
            2 => f32::from_bits((-(a * b)).to_bits() ^ (random.bits() as u32 & 3)),
            _ => a * b * random.unit(),
        };
        let (got, expected) = (software_fma(a, b, c), a.mul_add(b, c));
        assert!(same(got, expected), "{a:e} * {b:e} + {c:e}: {got:e}, expected {expected:e}");
        assert!(same(fma(a, b, c), expected));
    }
}

#[test]
fn halves_convert_as_ieee_754_says() {
    for half in 0..=u16::MAX {
        let expected = half::f16::from_bits(half).to_f32();
        assert!(same(half_to_float(half), expected), "{half:#06x}");
        if !expected.is_nan() {
            assert_eq!(float_to_half(expected), half);
        }
    }
    let mut random = Random::new(2);
    for _ in 0..2_000_000 {
        // Mostly values in the range of halves.
        let value = if random.below(4) == 0 {
            random.any()
        } else {
            random.unit() * f32::from_bits(((random.below(50) as u32) + 95) << 23)
        };
        let (got, expected) = (float_to_half(value), half::f16::from_f32(value));
        assert_eq!(got, expected.to_bits(), "{value:e}");
    }
}

/// All results of all lane operations on some operands, as bits.
struct Everything<'a>(&'a [[f32; LANES]; 3], &'a [u8; 64], &'a [i32; 8]);

impl Kernel for Everything<'_> {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Vec<u32> {
        let [a, b, c] = self.0.map(|values| L::load(set, &values));
        let halves: &[u8; 32] = self.1.first_chunk().expect("32 of 64");
        let small: &[u8; 16] = self.1.first_chunk().expect("16 of 64");
        let factors = self.2.iter().flat_map(|quad| quad.to_le_bytes()).map(|byte| i32::from(byte.cast_signed())).sum();
        let mut integers = L::integers(set, factors);
        for quad in self.2 {
            integers = L::dot4(integers, self.1, *quad);
        }
        let mut products = L::integers(set, 0);
        for pair in self.2 {
            products = L::dot2(products, self.1, *pair);
        }
        let mut pairs = [0; LANES];
        L::store_pairs(a, b, &mut pairs);
        let vectors = [
            L::from_integers(products),
            a.fma(b, c),
            a.add(b),
            a.sub(b),
            a.mul(b),
            a.div(b),
            a.max(b),
            a.min(b),
            a.select_below(b, c, a),
            L::splat(set, 1.0).add(a.select_below(L::splat(set, 60.0), a, b)).add(L::splat(set, MAGIC)).power_of_two(),
            exp(a),
            silu(a),
            L::load_floats(set, self.1),
            L::load_halves(set, halves),
            L::load_brains(set, halves),
            L::load_signed_bytes(set, small),
            L::from_integers(integers),
            L::load_part(set, &self.0[0][..5]),
        ];
        let mut bits: Vec<u32> = vectors.iter().flat_map(|vector| vector.to_array()).map(canonical).collect();
        // The bits of a NaN are unspecified.
        let numbers =
            a.to_array().iter().zip(b.to_array()).map(|(a, b)| !a.is_nan() && !b.is_nan()).collect::<Vec<_>>();
        bits.extend(pairs.iter().zip(numbers).map(|(pair, sound)| if sound { pair.cast_unsigned() } else { 0 }));
        let mut halves = [0; 32];
        a.store_halves(&mut halves);
        bits.extend(halves.iter().map(|byte| u32::from(*byte)));
        bits.extend([a.sum(), a.largest(), b.sum()].map(canonical));
        let mut floats = [0; 64];
        a.store_floats(&mut floats);
        bits.extend(floats.as_chunks().0.iter().map(|float| canonical(f32::from_le_bytes(*float))));
        let mut part = [0.0; 7];
        b.store_part(&mut part);
        bits.extend(part.map(canonical));
        bits
    }
}

fn canonical(value: f32) -> u32 {
    if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }
}

#[test]
fn every_instruction_set_computes_the_same_bits() {
    let mut random = Random::new(3);
    for round in 0..20_000 {
        let scale = f32::from_bits((random.below(40) as u32 + 107) << 23);
        let operands: [[f32; LANES]; 3] = std::array::from_fn(|_| {
            std::array::from_fn(|_| if round % 2 == 0 { random.any() } else { random.unit() * scale })
        });
        let bytes = std::array::from_fn(|_| random.below(255) as u8 + 1);
        let quads = std::array::from_fn(|_| {
            i32::from_le_bytes(std::array::from_fn(|_| (random.below(255) as i32 - 127) as u8))
        });
        let expected = dispatch(Isa::SCALAR, Everything(&operands, &bytes, &quads));
        for isa in Isa::available() {
            let got = dispatch(*isa, Everything(&operands, &bytes, &quads));
            assert_eq!(got, expected, "{} {operands:?}", isa.name());
        }
    }
}

struct Exp<'a>(&'a mut [f32; LANES]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        exp(L::load(set, self.0)).store(self.0);
    }
}

struct Exp2<'a>(&'a mut [f32; LANES]);

impl Kernel for Exp2<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        exp2(L::load(set, self.0)).store(self.0);
    }
}

#[test]
fn exp2_is_right_to_one_unit_in_the_last_place_and_the_same_everywhere() {
    let mut random = Random::new(5);
    let mut worst = 0.0f64;
    for round in 0..20_000 {
        let mut x: [f32; LANES] =
            std::array::from_fn(|_| (random.unit() - 1.0) * if round % 2 == 0 { 1.0 } else { 63.0 });
        x[0] = [0.0, -0.0, -126.0, -0.5, -1.5][round % 5];
        let mut y = x;
        dispatch(Isa::SCALAR, Exp2(&mut y));
        for (x, y) in x.iter().zip(y) {
            let exact = f64::from(*x).exp2();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(y) - exact).abs() / unit);
        }
        for isa in Isa::available() {
            let mut other = x;
            dispatch(*isa, Exp2(&mut other));
            assert_eq!(other.map(f32::to_bits), y.map(f32::to_bits), "{}", isa.name());
        }
    }
    assert!(worst < 1.0, "{worst} units in the last place");
    let mut edges = [0.0; LANES];
    edges[..6].copy_from_slice(&[-126.0, -126.001, -1e30, f32::NEG_INFINITY, f32::NAN, -1.0]);
    for isa in Isa::available() {
        let mut y = edges;
        dispatch(*isa, Exp2(&mut y));
        assert_eq!(y[..4], [f32::MIN_POSITIVE, 0.0, 0.0, 0.0]);
        assert!(y[4].is_nan() && y[5] == 0.5 && y[6] == 1.0);
    }
}

#[test]
fn exp_is_right_to_one_unit_in_the_last_place() {
    let mut random = Random::new(4);
    let mut worst = 0.0f64;
    for _ in 0..100_000 {
        let x: [f32; LANES] = std::array::from_fn(|_| random.unit() * 87.3);
        let mut y = x;
        dispatch(Isa::SCALAR, Exp(&mut y));
        for (x, y) in x.iter().zip(y) {
            let exact = f64::from(*x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(y) - exact).abs() / unit);
        }
    }
    assert!(worst < 1.0, "{worst} units in the last place");
    let mut edges = [
        0.0,
        -0.0,
        -88.0,
        f32::NEG_INFINITY,
        f32::NAN,
        88.0,
        100.0,
        f32::INFINITY,
        1.0,
        -1.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
    ];
    dispatch(Isa::SCALAR, Exp(&mut edges));
    assert_eq!(edges[..4], [1.0, 1.0, 0.0, 0.0]);
    assert!(edges[4].is_nan());
    assert!(edges[5] > 1.6e38 && edges[6] == edges[5] && edges[7] == edges[5]);
}
