use std::f64::consts::{FRAC_PI_2, PI};

use llamacpu_kernels::internals::math::sine_and_cosine;

use crate::math::doubles::units;
use crate::random::Random;

/// An angle, its sine and its cosine, correctly rounded from 400 bits; the last four angles are, among thousands, the nearest to
/// a multiple of a quarter turn.
const ROUNDED: &[(f64, f64, f64)] = &[
    (1.0, 0.841_470_984_807_896_5, 0.540_302_305_868_139_8),
    (0.5, 0.479_425_538_604_203, 0.877_582_561_890_372_8),
    (FRAC_PI_2, 1.0, 6.123_233_995_736_766e-17),
    (PI, 1.224_646_799_147_353_2e-16, -1.0),
    (355.0, -3.014_435_335_948_845e-05, -0.999_999_999_545_659),
    (1_048_575.0, -0.615_621_173_058_750_9, 0.788_042_239_528_927_5),
    (52_174.0, -0.999_999_999_984_833_7, 5.507_508_792_203_807e-06),
    (854_187.265_991_126_4, 0.710_248_163_498_795_6, 0.703_951_380_598_538_2),
    (680_925.993_711_657_4, -0.997_053_327_431_557_6, -0.076_711_552_309_017_98),
    (1_125_899_906_842_623.0, -0.462_273_334_010_115_56, 0.886_737_483_510_859_7),
    (1_125_899_906_842_624.0, 0.496_396_515_208_940_85, 0.868_095_904_660_550_6),
    (1e-05, 9.999_999_999_833_334e-06, 0.999_999_999_95),
    (1_573_224.777_916_121_5, -1.059_650_954_889_928_4e-14, -1.0),
    (1_570_797_149.892_171_9, -1.593_923_135_231_786_3e-11, 1.0),
    (1_570_796_328_306.002_7, 6.113_723_934_028_287e-08, -0.999_999_999_999_998_1),
    (942_477_796_080_505.2, -0.999_999_999_995_331_1, 3.055_774_793_870_047_6e-06),
];

/// Angles as in rotations: positions times frequencies, then any angles up to the limit.
fn angles(count: usize) -> impl Iterator<Item = f64> {
    let mut random = Random::new(63);
    (0..count).map(move |round| {
        let root = f64::from(random.unit());
        let frequency = root * root * root * root;
        match round % 3 {
            0 => random.below(1 << 20) as f64 * frequency,
            1 => random.below(1 << 30) as f64 * frequency,
            _ => -((random.bits() >> 14) as f64) * frequency,
        }
    })
}

#[test]
fn sines_and_cosines_are_exact_to_one_unit() {
    for (angle, sine, cosine) in ROUNDED {
        let found = sine_and_cosine(*angle);
        assert!(units(found.0, *sine) <= 1.0, "sin({angle:e}) = {:e}, expected {sine:e}", found.0);
        assert!(units(found.1, *cosine) <= 1.0, "cos({angle:e}) = {:e}, expected {cosine:e}", found.1);
    }
    assert_eq!(sine_and_cosine(0.0), (0.0, 1.0));
    // The C library's results are also off by up to one unit.
    for angle in angles(300_000) {
        let found = sine_and_cosine(angle);
        assert!(units(found.0, angle.sin()) <= 2.0 && units(found.1, angle.cos()) <= 2.0, "{angle:e}: {found:?}");
    }
}

#[test]
fn the_bits_are_those_of_every_platform() {
    // Angles computed without the C library; FNV-1a over the results.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for angle in angles(30_000) {
        let (sine, cosine) = sine_and_cosine(angle);
        for byte in [sine, cosine].into_iter().flat_map(f64::to_le_bytes) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    assert_eq!(hash, 0x7ec7_020a_2120_22db, "{hash:#x}");
}
