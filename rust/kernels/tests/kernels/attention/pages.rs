//! How keys and values are stored.

use llamacpu_kernels::internals::attention::{BLOCK, quantize};
use llamacpu_kernels::internals::math::{Kernel, Lanes, dispatch, float_to_half, half_to_float};

use super::*;

#[test]
fn pages_have_the_same_bytes_however_they_are_written() {
    let mut random = Random::new(45);
    for kv_type in TYPES {
        for size in [1, 16, 31, 33, 64, 100] {
            let layout = KvLayout { kv_type, kv_heads: 3, key_size: size, value_size: size, latent: false };
            let row = 3 * size;
            let (mut keys, values) = (random.units(10 * row), random.units(10 * row));
            keys[0] = 1e30;
            keys[row] = f32::NAN;
            let mut at_once = vec![0; layout.layer_bytes()];
            layout.write(Isa::SCALAR, &mut at_once, 7, &keys, &values).expect("it fits");
            for isa in Isa::available() {
                let mut one_by_one = vec![0; layout.layer_bytes()];
                for token in 0..10 {
                    let range = token * row..(token + 1) * row;
                    layout
                        .write(*isa, &mut one_by_one, 7 + token, &keys[range.clone()], &values[range])
                        .expect("it fits");
                }
                assert!(one_by_one == at_once, "{} {layout:?}", isa.name());
            }
        }
    }
}

struct Quantize<'a>(&'a [f32]);

impl Kernel for Quantize<'_> {
    type Output = (u16, [i8; BLOCK]);

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Self::Output {
        quantize::<L>(set, self.0)
    }
}

#[test]
fn blocks_of_bytes_are_the_numbers_over_the_scale() {
    let mut random = Random::new(47);
    for round in 0..2000 {
        let size = 1 + random.below(BLOCK);
        let factor = [1.0, 1e-9, 1e9, 3e38, 1e-30][round % 5];
        let mut block: Vec<f32> = random.units(size).iter().map(|x| x * factor).collect();
        if round % 7 == 0 {
            block[random.below(size)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0][round % 4];
        }
        let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let finite = block.iter().all(|x| x.is_finite());
        let bits = if finite { float_to_half(largest / 127.0).min(0x7bff) } else { 0x7e00 };
        let scale = half_to_float(bits);
        let mut numbers = [0; BLOCK];
        if finite && scale > 0.0 {
            for (number, x) in numbers.iter_mut().zip(&block) {
                *number = (x * (1.0 / scale)).clamp(-127.0, 127.0).round_ties_even() as i8;
            }
        }
        for isa in Isa::available() {
            assert_eq!(dispatch(*isa, Quantize(&block)), (bits, numbers), "{} {block:?}", isa.name());
        }
    }
}

#[test]
fn exact_keys_are_read_as_they_were_written() {
    let layout = KvLayout { kv_type: KvType::F32, kv_heads: 2, key_size: 37, value_size: 5, latent: false };
    let keys = Random::new(48).units(3 * 2 * 37);
    let mut page = vec![0; layout.layer_bytes()];
    layout.write(Isa::SCALAR, &mut page, 61, &keys, &[1.0; 30]).expect("it fits");
    let mut key = [0.0; 37];
    for (place, expected) in keys.chunks_exact(37).enumerate() {
        layout.read_key(&page, (place % 2, 61 + place / 2), &mut key).expect("fitting sizes");
        assert_eq!(key, expected);
    }
    assert!(layout.read_key(&page, (2, 0), &mut key).is_err());
    assert!(layout.read_key(&page, (0, 64), &mut key).is_err());
    assert!(layout.read_key(&page[1..], (0, 0), &mut key).is_err());
    assert!(layout.read_key(&page, (0, 0), &mut key[1..]).is_err());
    let halves = KvLayout { kv_type: KvType::F16, ..layout };
    assert!(halves.read_key(&vec![0; halves.layer_bytes()], (0, 0), &mut key).is_err());
}
