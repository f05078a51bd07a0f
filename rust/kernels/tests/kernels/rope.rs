use llamacpu_kernels::Error;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::rope::*;

use crate::random::{Random, same};

fn settings(size: usize, base: f64) -> RopeSettings {
    RopeSettings { size, base, style: RopeStyle::Interleaved, scaling: RopeScaling::None, factors: None }
}

fn yarn(factor: f64, ext_factor: f64) -> RopeScaling {
    RopeScaling::Yarn {
        factor,
        original_context: 4096.0,
        ext_factor,
        attn_factor: 1.0,
        log_multiplier: 0.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
    }
}

fn rotated(settings: &RopeSettings, isa: Isa, x: &[f32], head_size: usize, position: usize) -> Vec<f32> {
    let rope = Rope::new(settings).expect("valid settings");
    let mut table = vec![0.0; rope.size()];
    rope.table(position, &mut table).expect("the right size");
    let mut x = x.to_vec();
    rope.apply(isa, &mut x, head_size, &table).expect("fitting shapes");
    x
}

#[test]
fn pairs_turn_by_position_times_frequency() {
    let mut random = Random::new(30);
    for style in [RopeStyle::Interleaved, RopeStyle::NeoX] {
        for (size, head_size, heads) in [(2, 2, 1), (16, 16, 3), (64, 64, 5), (32, 80, 2), (100, 100, 4), (128, 128, 1)]
        {
            let settings = RopeSettings { style, ..settings(size, 500_000.0) };
            let x = random.units(heads * head_size);
            let position = random.below(130_000);
            let got = rotated(&settings, Isa::SCALAR, &x, head_size, position);
            for isa in Isa::available() {
                let other = rotated(&settings, *isa, &x, head_size, position);
                assert!(got.iter().zip(&other).all(|(a, b)| same(*a, *b)), "{}", isa.name());
            }
            for (x, got) in x.chunks(head_size).zip(got.chunks(head_size)) {
                for pair in 0..size / 2 {
                    let (i, j) = match style {
                        RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                        RopeStyle::NeoX => (pair, pair + size / 2),
                    };
                    let angle = position as f64 * 500_000f64.powf(-2.0 * pair as f64 / size as f64);
                    let (a, b) = (f64::from(x[i]), f64::from(x[j]));
                    assert!((f64::from(got[i]) - (a * angle.cos() - b * angle.sin())).abs() < 3e-7);
                    assert!((f64::from(got[j]) - (a * angle.sin() + b * angle.cos())).abs() < 3e-7);
                }
                assert_eq!(x[size..], got[size..], "the rest passes through");
            }
        }
    }
}

#[test]
fn linear_scaling_divides_positions() {
    let x = Random::new(31).units(64);
    let scaled = RopeSettings { scaling: RopeScaling::Linear { factor: 4.0 }, ..settings(64, 1e4) };
    assert_eq!(rotated(&scaled, Isa::SCALAR, &x, 64, 4000), rotated(&settings(64, 1e4), Isa::SCALAR, &x, 64, 1000));
}

#[test]
fn frequency_factors_divide_frequencies() {
    let x = Random::new(32).units(8);
    let factors = vec![1.0, 2.0, 4.0, 8.0];
    let got = rotated(&RopeSettings { factors: Some(factors), ..settings(8, 1e4) }, Isa::SCALAR, &x, 8, 800);
    for (pair, position) in [800, 400, 200, 100].into_iter().enumerate() {
        let plain = rotated(&settings(8, 1e4), Isa::SCALAR, &x, 8, position);
        for i in [2 * pair, 2 * pair + 1] {
            assert!((got[i] - plain[i]).abs() < 1e-6);
        }
    }
}

#[test]
fn yarn_keeps_fast_pairs_slows_slow_ones_and_grows_the_magnitude() {
    let plain = Rope::new(&settings(128, 1e4)).expect("valid settings");
    let scaled = Rope::new(&RopeSettings { scaling: yarn(16.0, 1.0), ..settings(128, 1e4) }).expect("valid settings");
    // By the formula, pairs up to 20 keep their frequency, from 46 on they have a sixteenth of it, with a linear ramp between.
    for (pair, (plain, scaled)) in plain.frequencies().iter().zip(scaled.frequencies()).enumerate() {
        let ramp = ((pair as f64 - 20.0) / 26.0).clamp(0.0, 1.0);
        let expected = plain * (1.0 - ramp) + plain / 16.0 * ramp;
        assert!((scaled - expected).abs() < 1e-12 * expected, "pair {pair}");
    }
    assert!((scaled.magnitude() - (1.0 + 0.1 * 16f64.ln())).abs() < 1e-12);
    let mut table = [0.0; 128];
    scaled.table(0, &mut table).expect("the right size");
    assert!(table[..64].iter().all(|cosine| (*cosine - 1.277_258_9).abs() < 1e-6));
    // Without extrapolation, it is linear scaling.
    let without = Rope::new(&RopeSettings { scaling: yarn(16.0, 0.0), ..settings(128, 1e4) }).expect("valid settings");
    assert!(plain.frequencies().iter().zip(without.frequencies()).all(|(a, b)| a / 16.0 == *b));
    assert_eq!(without.magnitude(), 1.0);
}

#[test]
fn impossible_settings_and_shapes_are_errors() {
    let bad = [
        settings(7, 1e4),
        settings(8, 0.0),
        settings(8, f64::NAN),
        RopeSettings { factors: Some(vec![1.0; 3]), ..settings(8, 1e4) },
        RopeSettings { factors: Some(vec![1.0, 0.0, 1.0, 1.0]), ..settings(8, 1e4) },
        RopeSettings { scaling: RopeScaling::Linear { factor: 0.0 }, ..settings(8, 1e4) },
        RopeSettings { scaling: yarn(f64::INFINITY, 1.0), ..settings(8, 1e4) },
        RopeSettings { scaling: yarn(2.0, f64::NAN), ..settings(8, 1e4) },
        RopeSettings { scaling: yarn(2.0, 1.0), ..settings(8, 1.0) },
    ];
    for settings in bad {
        assert!(matches!(Rope::new(&settings), Err(Error::Shape(_))), "{settings:?}");
    }
    let rope = Rope::new(&settings(8, 1e4)).expect("valid settings");
    assert!(rope.table(0, &mut [0.0; 7]).is_err());
    assert!(rope.apply(Isa::SCALAR, &mut [0.0; 8], 4, &[0.0; 8]).is_err());
    assert!(rope.apply(Isa::SCALAR, &mut [0.0; 9], 8, &[0.0; 8]).is_err());
    assert!(rope.apply(Isa::SCALAR, &mut [0.0; 8], 0, &[0.0; 8]).is_err());
    assert!(rope.apply(Isa::SCALAR, &mut [0.0; 8], 8, &[0.0; 4]).is_err());
    let nothing = Rope::new(&settings(0, 1e4)).expect("rotating nothing is allowed");
    let mut x = [1.0; 4];
    nothing.apply(Isa::SCALAR, &mut x, 4, &[]).expect("nothing to do");
    assert_eq!(x, [1.0; 4]);
}

#[test]
fn a_part_of_each_head_can_turn() {
    let mut random = Random::new(33);
    for style in [RopeStyle::Interleaved, RopeStyle::NeoX] {
        let rope = Rope::new(&RopeSettings { style, ..settings(20, 10_000.0) }).expect("valid settings");
        let mut table = vec![0.0; rope.size()];
        rope.table(77, &mut table).expect("the right size");
        let x = random.units(3 * 50);
        for isa in Isa::available() {
            for first in [0, 13, 30] {
                let mut got = x.clone();
                rope.apply_from(*isa, &mut got, 50, first, &table).expect("fitting shapes");
                for (x, got) in x.chunks(50).zip(got.chunks(50)) {
                    let mut part = x[first..first + 20].to_vec();
                    rope.apply(Isa::SCALAR, &mut part, 20, &table).expect("fitting shapes");
                    assert_eq!((&got[..first], &got[first..first + 20]), (&x[..first], &part[..]));
                    assert_eq!(got[first + 20..], x[first + 20..]);
                }
            }
        }
        for first in [31, usize::MAX] {
            assert!(rope.apply_from(Isa::SCALAR, &mut x.clone(), 50, first, &table).is_err());
        }
    }
}

#[test]
fn long_texts_have_factors_and_a_magnitude() {
    let factors: Vec<f32> = (0..8).map(|pair| 1.0 + pair as f32).collect();
    let long = RopeSettings {
        scaling: RopeScaling::Long { attn_factor: 1.19 },
        factors: Some(factors.clone()),
        ..settings(16, 10_000.0)
    };
    let mut table = vec![0.0; 16];
    Rope::new(&long).expect("valid settings").table(1000, &mut table).expect("the right size");
    for (pair, factor) in factors.iter().enumerate() {
        let angle = 1000.0 * 10_000f64.powf(-(pair as f64) / 8.0) / f64::from(*factor);
        assert!((f64::from(table[pair]) - 1.19 * angle.cos()).abs() < 2e-7);
        assert!((f64::from(table[8 + pair]) - 1.19 * angle.sin()).abs() < 2e-7);
    }
    for attn_factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Rope::new(&RopeSettings { scaling: RopeScaling::Long { attn_factor }, ..long.clone() }).is_err());
    }
}
