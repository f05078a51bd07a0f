//! Memory layout of the keys and values of [`PAGE_TOKENS`] tokens.
//!
//! Keys of a head are transposed, so that tokens are lanes; values of a head are one row per token, so that elements of
//! the head are lanes. For the 8-bit type a block of 32 elements shares a half-precision scale, and four adjacent
//! elements of a key are stored together, as the processors' byte products require:
//!
//! | type | keys of a head | values of a head |
//! |---|---|---|
//! | F32, F16 | `[number][token]` | `[token][number]` |
//! | I16 | scales `[token]`, 16-bit integers `[pair][token][2]` | scales `[token]`, 16-bit integers `[pair of tokens][number][2]` |
//! | Q8_0 | scales `[block][token]`, bytes `[number / 4][token][4]`, 128 added | scales `[block][token]`, bytes `[token][number]` |

//!
//! A latent layout (DeepSeek-AI, "DeepSeek-V2", 2024, multi-head latent attention) has only keys: a value is the beginning of
//! the key.

pub use super::page_size::PAGE_TOKENS;
use super::words::{self, SCALE_BYTES, key_pairs};
use crate::Error;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch, float_to_half, half_to_float};

/// Number of elements that share a scale.
pub const BLOCK: usize = 32;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32-bit floats: exact.
    F32,
    /// Half precision, rounded to nearest.
    F16,
    /// 16-bit integers with one scale for each key and each value: for encoders.
    I16,
    /// 8-bit integers with one half-precision scale per 32 elements.
    Q8_0,
}

/// The shape of keys and values in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    /// How elements are stored.
    pub kv_type: KvType,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Elements in the key of a head.
    pub key_size: usize,
    /// Elements in the value of a head.
    pub value_size: usize,
    /// Whether the value of a token is the first `value_size` elements of its key, so that only keys are stored.
    pub latent: bool,
}

impl KvLayout {
    /// Number of elements of a value that are stored in addition to the key.
    pub fn stored_value_size(&self) -> usize {
        if self.latent { 0 } else { self.value_size }
    }

    /// Size of the keys of one head in a page in bytes.
    pub(super) fn key_bytes(&self) -> usize {
        let numbers = match self.kv_type {
            KvType::F32 => self.key_size.saturating_mul(4),
            KvType::F16 => self.key_size.saturating_mul(2),
            KvType::I16 => key_pairs(self.key_size).saturating_add(1).saturating_mul(4),
            KvType::Q8_0 => self.scale_bytes(self.key_size).saturating_add(self.key_size.div_ceil(4).saturating_mul(4)),
        };
        numbers.saturating_mul(PAGE_TOKENS)
    }

    /// Size of the values of one head in a page in bytes.
    pub(super) fn value_bytes(&self) -> usize {
        let size = self.stored_value_size();
        let numbers = match self.kv_type {
            KvType::F32 => size.saturating_mul(4),
            KvType::F16 => size.saturating_mul(2),
            KvType::I16 => {
                let padded = size.checked_next_multiple_of(LANES).unwrap_or(usize::MAX);
                return padded.saturating_mul(2 * PAGE_TOKENS).saturating_add(SCALE_BYTES);
            }
            KvType::Q8_0 => self.scale_bytes(size).saturating_add(size),
        };
        numbers.saturating_mul(PAGE_TOKENS)
    }

    /// Size of the scales of one token in bytes.
    #[expect(clippy::unused_self, reason = "reads as a property of the layout, like its neighbours")]
    fn scale_bytes(&self, size: usize) -> usize {
        size.div_ceil(BLOCK).saturating_mul(2)
    }

    /// Size in bytes of the keys and values of [`PAGE_TOKENS`] tokens in one layer: a multiple of 64, or `usize::MAX` if it
    /// overflows.
    pub fn layer_bytes(&self) -> usize {
        self.key_bytes().saturating_add(self.value_bytes()).saturating_mul(self.kv_heads)
    }

    /// The keys of a head inside a layer's part of a page; empty if the page is absent.
    pub(super) fn keys<'a>(&self, page: &'a [u8], head: usize) -> &'a [u8] {
        if page.is_empty() {
            return page;
        }
        &page[head * self.key_bytes()..][..self.key_bytes()]
    }

    /// The bytes that the values of a head are read from inside a layer's part of a page; empty if the page is absent.
    pub(super) fn values<'a>(&self, page: &'a [u8], head: usize) -> &'a [u8] {
        if self.latent || page.is_empty() {
            return self.keys(page, head);
        }
        &page[self.kv_heads * self.key_bytes() + head * self.value_bytes()..][..self.value_bytes()]
    }

    /// Copies the key and the value of one head of a token into a page of the same layout with one head.
    #[inline(always)]
    pub(super) fn copy_token(&self, from: &[u8], head: usize, token: usize, to: &mut [u8], slot: usize) {
        let (keys, values) = to.split_at_mut(self.key_bytes());
        let from_keys = self.keys(from, head);
        let from_values = if self.latent { &[][..] } else { self.values(from, head) };
        let size = self.stored_value_size();
        match self.kv_type {
            KvType::F32 => {
                copy_column::<4>(from_keys, token, keys, slot);
                copy_row(from_values, token, values, slot, 4 * size);
            }
            KvType::F16 => {
                copy_column::<2>(from_keys, token, keys, slot);
                copy_row(from_values, token, values, slot, 2 * size);
            }
            // `attention` copies none of these.
            KvType::I16 => {}
            KvType::Q8_0 => {
                let scales = self.scale_bytes(self.key_size) * PAGE_TOKENS;
                copy_column::<2>(&from_keys[..scales], token, &mut keys[..scales], slot);
                copy_column::<4>(&from_keys[scales..], token, &mut keys[scales..], slot);
                let scales = (self.scale_bytes(size) * PAGE_TOKENS).min(from_values.len());
                copy_column::<2>(&from_values[..scales], token, &mut values[..scales], slot);
                copy_row(&from_values[scales..], token, &mut values[scales..], slot, size);
            }
        }
    }

    /// The key of one head of a token, in a layout of 32-bit floats.
    ///
    /// # Errors
    /// `Error::Shape` if the layout stores another type, or the page, the place or `key` has another size.
    pub fn read_key(&self, page: &[u8], (head, slot): (usize, usize), key: &mut [f32]) -> Result<(), Error> {
        let sound = page.len() == self.layer_bytes() && head < self.kv_heads && slot < PAGE_TOKENS;
        if self.kv_type != KvType::F32 || !sound || key.len() != self.key_size {
            return Err(Error::Shape(format!(
                "a key of {} numbers from place {slot} of a page of {} bytes; expected one of {self:?} in 32-bit floats",
                key.len(),
                page.len()
            )));
        }
        let numbers = self.keys(page, head).as_chunks::<4>().0.iter().skip(slot).step_by(PAGE_TOKENS);
        for (to, number) in key.iter_mut().zip(numbers) {
            *to = f32::from_le_bytes(*number);
        }
        Ok(())
    }

    /// Stores the keys and values of consecutive tokens, `tokens × kv_heads × key_size` and `tokens × kv_heads ×
    /// value_size` elements, into one layer's part of a page, from token `slot` of the page on. For a latent layout,
    /// `values` is empty.
    ///
    /// # Errors
    /// `Error::Shape` if the page does not have [`KvLayout::layer_bytes`] bytes, the keys and values are not those of a whole
    /// number of tokens, or the page has no room for them.
    pub fn write(&self, isa: Isa, page: &mut [u8], slot: usize, keys: &[f32], values: &[f32]) -> Result<(), Error> {
        let (key_row, value_row) = (self.kv_heads * self.key_size, self.kv_heads * self.stored_value_size());
        if page.len() != self.layer_bytes() {
            return Err(Error::Shape(format!(
                "a page of {} bytes for keys and values; expected {}",
                page.len(),
                self.layer_bytes()
            )));
        }
        let tokens = keys.len().checked_div(key_row).unwrap_or(0);
        if keys.len() != tokens * key_row || values.len() != tokens * value_row {
            return Err(Error::Shape(format!(
                "{} numbers of keys and {} of values; expected {key_row} and {value_row} for each token",
                keys.len(),
                values.len()
            )));
        }
        if slot + tokens > PAGE_TOKENS {
            return Err(Error::Shape(format!("{tokens} tokens from place {slot} on; a page has {PAGE_TOKENS} places")));
        }
        dispatch(isa, Write { layout: self, page, slot, tokens, keys, values });
        Ok(())
    }
}

struct Write<'a> {
    layout: &'a KvLayout,
    page: &'a mut [u8],
    slot: usize,
    tokens: usize,
    keys: &'a [f32],
    values: &'a [f32],
}

impl Kernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let layout = self.layout;
        let (key_bytes, value_bytes) = (layout.key_bytes(), layout.value_bytes());
        let (keys, values) = self.page.split_at_mut(layout.kv_heads * key_bytes);
        for token in 0..self.tokens {
            let slot = self.slot + token;
            for head in 0..layout.kv_heads {
                let row = token * layout.kv_heads + head;
                let key = &self.keys[row * layout.key_size..][..layout.key_size];
                let value_size = layout.stored_value_size();
                let value = &self.values[row * value_size..][..value_size];
                let keys = &mut keys[head * key_bytes..][..key_bytes];
                let values = &mut values[head * value_bytes..][..value_bytes];
                match layout.kv_type {
                    KvType::F32 => {
                        scatter(keys, slot, key.iter().map(|x| x.to_le_bytes()));
                        for (to, x) in values[4 * slot * value.len()..].as_chunks_mut::<4>().0.iter_mut().zip(value) {
                            *to = x.to_le_bytes();
                        }
                    }
                    KvType::F16 => {
                        for (chunk, part) in key.chunks(LANES).enumerate() {
                            let halves = to_halves::<L>(set, part);
                            let to = &mut keys[chunk * LANES * PAGE_TOKENS * 2..];
                            scatter(to, slot, halves.as_chunks::<2>().0[..part.len()].iter().copied());
                        }
                        let values = &mut values[2 * slot * value.len()..][..2 * value.len()];
                        for (to, part) in values.chunks_mut(2 * LANES).zip(value.chunks(LANES)) {
                            to.copy_from_slice(&to_halves::<L>(set, part)[..2 * part.len()]);
                        }
                    }
                    KvType::I16 => {
                        words::write_key::<L>(set, keys, slot, key);
                        words::write_value::<L>(set, values, slot, value);
                    }
                    KvType::Q8_0 => {
                        write_key_bytes::<L>(set, keys, slot, key);
                        write_value_bytes::<L>(set, values, slot, value);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn to_halves<L: Lanes>(set: L::Set, part: &[f32]) -> [u8; 2 * LANES] {
    let mut halves = [0; 2 * LANES];
    L::load_part(set, part).store_halves(&mut halves);
    halves
}

/// Copies a column of `[number][token]`, in elements of that many bytes.
#[inline(always)]
fn copy_column<const BYTES: usize>(from: &[u8], token: usize, to: &mut [u8], slot: usize) {
    let (from, to) = (from.as_chunks::<BYTES>().0, to.as_chunks_mut::<BYTES>().0);
    for (to, from) in to.chunks_exact_mut(PAGE_TOKENS).zip(from.chunks_exact(PAGE_TOKENS)) {
        to[slot] = from[token];
    }
}

/// Copies a row of `[token][number]`, of that many bytes.
#[inline(always)]
fn copy_row(from: &[u8], token: usize, to: &mut [u8], slot: usize, bytes: usize) {
    if !from.is_empty() {
        to[slot * bytes..][..bytes].copy_from_slice(&from[token * bytes..][..bytes]);
    }
}

/// Writes a column of the transposed keys.
#[inline(always)]
fn scatter<const BYTES: usize>(to: &mut [u8], slot: usize, numbers: impl Iterator<Item = [u8; BYTES]>) {
    let places = to.as_chunks_mut::<BYTES>().0.iter_mut().skip(slot).step_by(PAGE_TOKENS);
    for (place, number) in places.zip(numbers) {
        *place = number;
    }
}

#[inline(always)]
fn write_key_bytes<L: Lanes>(set: L::Set, keys: &mut [u8], slot: usize, key: &[f32]) {
    let (scales, bytes) = keys.split_at_mut(2 * key.len().div_ceil(BLOCK) * PAGE_TOKENS);
    for (index, block) in key.chunks(BLOCK).enumerate() {
        let (scale, numbers) = quantize::<L>(set, block);
        scales[2 * (index * PAGE_TOKENS + slot)..][..2].copy_from_slice(&scale.to_le_bytes());
        for (quad, four) in numbers[..block.len().next_multiple_of(4)].as_chunks::<4>().0.iter().enumerate() {
            let place = (index * BLOCK / 4 + quad) * PAGE_TOKENS + slot;
            let four = u32::from_le_bytes(four.map(i8::cast_unsigned)) ^ 0x8080_8080;
            bytes[4 * place..][..4].copy_from_slice(&four.to_le_bytes());
        }
    }
}

#[inline(always)]
fn write_value_bytes<L: Lanes>(set: L::Set, values: &mut [u8], slot: usize, value: &[f32]) {
    let (scales, bytes) = values.split_at_mut(2 * value.len().div_ceil(BLOCK) * PAGE_TOKENS);
    for (index, block) in value.chunks(BLOCK).enumerate() {
        let (scale, numbers) = quantize::<L>(set, block);
        scales[2 * (index * PAGE_TOKENS + slot)..][..2].copy_from_slice(&scale.to_le_bytes());
        for (to, x) in bytes[slot * value.len() + index * BLOCK..].iter_mut().zip(&numbers[..block.len()]) {
            *to = x.cast_unsigned();
        }
    }
}

/// Quantizes at most [`BLOCK`] values: returns the scale as half-precision bits, and the values divided by it, rounded to
/// nearest, ties to even: -127 to 127. A block with a NaN or an infinity gets a scale of NaN.
#[inline(always)]
pub fn quantize<L: Lanes>(set: L::Set, block: &[f32]) -> (u16, [i8; BLOCK]) {
    let mut numbers = [0; BLOCK];
    let (first, second) = block.split_at(block.len().min(LANES));
    let halves = [L::load_part(set, first), L::load_part(set, second)];
    let magnitudes = halves[0].max(L::zero(set).sub(halves[0])).max(halves[1].max(L::zero(set).sub(halves[1])));
    // A value minus itself is 0, or NaN if it is not finite.
    if halves[0].sub(halves[0]).add(halves[1].sub(halves[1])).sum() != 0.0 {
        return (0x7e00, numbers);
    }
    // Rounded to the stored precision; beyond its range, the largest finite scale.
    let bits = float_to_half(magnitudes.largest() / 127.0).min(0x7bff);
    let scale = half_to_float(bits);
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for (numbers, half) in numbers.as_chunks_mut::<LANES>().0.iter_mut().zip(halves) {
        let bounded = half.mul(L::splat(set, inverse)).min(L::splat(set, 127.0)).max(L::splat(set, -127.0));
        // The low byte of the sum is the rounded value.
        for (number, sum) in numbers.iter_mut().zip(bounded.add(L::splat(set, MAGIC)).to_array()) {
            *number = sum.to_bits() as i8;
        }
    }
    (bits, numbers)
}
