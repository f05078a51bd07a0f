//! Preparation of the keys and values of a page for the tiles: used as they are if few rows read them once, converted to
//! floats if many rows share the work or if rows do not fill whole vectors.

use super::byte_keys::ByteKeys;
use super::keys::Keys;
use super::pages::{BLOCK, KvLayout, KvType, PAGE_TOKENS};
use super::scores::Scores;
use super::values::{Numbers, Values};
use super::word_keys::WordKeys;
use super::words::SCALE_BYTES;
use crate::Error;
use crate::mapping::AlignedBytes;
use crate::math::{Kernel, LANES, Lanes};

/// Keys of one head in a page.
#[derive(Clone, Copy)]
pub(super) enum PageKeys<'a> {
    Numbers(Keys<'a>),
    Bytes(ByteKeys<'a>),
    Words(WordKeys<'a>),
}

/// Memory for one page of one head as floats.
#[derive(Default)]
pub(super) struct Unpacked {
    keys: Option<AlignedBytes>,
    values: Option<AlignedBytes>,
    scales: Vec<Scores>,
}

impl Unpacked {
    /// Makes room for pages of this layout.
    pub(super) fn prepare(&mut self, layout: &KvLayout) -> Result<(), Error> {
        let line = 4 * PAGE_TOKENS;
        grow(&mut self.keys, layout.key_size.saturating_mul(line))?;
        grow(&mut self.values, layout.value_size.saturating_add(LANES).saturating_mul(line))?;
        self.scales.resize(layout.value_size.div_ceil(BLOCK), [0.0; PAGE_TOKENS]);
        Ok(())
    }

    /// The keys of a head; `many` says that many tiles of rows will read them.
    #[inline(always)]
    pub(super) fn keys<'a, L: Lanes>(
        &'a mut self,
        set: L::Set,
        layout: &KvLayout,
        keys: &'a [u8],
        many: bool,
    ) -> PageKeys<'a> {
        match layout.kv_type {
            KvType::F32 => PageKeys::Numbers(Keys::Floats(keys)),
            KvType::F16 if many => PageKeys::Numbers(Keys::Floats(floats_of_halves::<L>(set, keys, &mut self.keys))),
            KvType::F16 => PageKeys::Numbers(Keys::Halves(keys)),
            KvType::I16 => {
                let (scales, words) = keys.split_at(SCALE_BYTES);
                PageKeys::Words(WordKeys { scales, words })
            }
            KvType::Q8_0 => {
                let (scales, bytes) = keys.split_at(2 * layout.key_size.div_ceil(BLOCK) * PAGE_TOKENS);
                PageKeys::Bytes(ByteKeys { scales, bytes })
            }
        }
    }

    /// The values of a head; `many` as above.
    #[inline(always)]
    pub(super) fn values<'a, L: Lanes>(
        &'a mut self,
        set: L::Set,
        layout: &KvLayout,
        values: &'a [u8],
        many: bool,
    ) -> Values<'a> {
        let numbers = match layout.kv_type {
            _ if layout.latent || !layout.value_size.is_multiple_of(LANES) => None,
            KvType::F32 => Some(Numbers::Floats(values)),
            KvType::F16 if !many => Some(Numbers::Halves(values)),
            // These have sums of their own: see `word_values`.
            KvType::I16 => Some(Numbers::Floats(&[])),
            KvType::F16 | KvType::Q8_0 => None,
        };
        match numbers {
            Some(numbers) => Values { numbers, scales: None },
            None => L::call(set, ConvertValues { unpacked: self, layout, values, many }),
        }
    }

    /// The values of a latent layout: the beginning of the keys, transposed.
    #[inline(always)]
    fn values_in_keys<L: Lanes>(&mut self, set: L::Set, layout: &KvLayout, keys: &[u8]) -> Values<'_> {
        let size = layout.value_size;
        let Some(to) = &mut self.values else { return Values { numbers: Numbers::Floats(&[]), scales: None } };
        let to = &mut to[..4 * PAGE_TOKENS * size.next_multiple_of(LANES)];
        let mut scales = None;
        match layout.kv_type {
            KvType::F32 => transpose::<L, StoredFloats>(set, keys, size, to),
            KvType::F16 => transpose::<L, StoredHalves>(set, keys, size, to),
            // `check_config` refuses it.
            KvType::I16 => {}
            KvType::Q8_0 => {
                let (halves, bytes) = keys.split_at(2 * layout.key_size.div_ceil(BLOCK) * PAGE_TOKENS);
                let converted = self.scales.as_flattened_mut().as_chunks_mut::<LANES>().0;
                for (scales, halves) in converted.iter_mut().zip(halves.as_chunks::<{ 2 * LANES }>().0) {
                    L::load_halves(set, halves).store(scales);
                }
                scales = Some(&self.scales[..]);
                transpose_bytes::<L>(set, bytes, size, to);
            }
        }
        Values { numbers: Numbers::Floats(to), scales }
    }

    #[inline(always)]
    fn separate_values<'a, L: Lanes>(
        &'a mut self,
        set: L::Set,
        layout: &KvLayout,
        values: &'a [u8],
        many: bool,
    ) -> Values<'a> {
        let size = layout.value_size;
        let whole = size.is_multiple_of(LANES);
        let mut scales = None;
        let numbers = match layout.kv_type {
            KvType::F16 if whole => Numbers::Floats(floats_of_halves::<L>(set, values, &mut self.values)),
            KvType::I16 => Numbers::Floats(&[]),
            KvType::F32 => Numbers::Floats(pad::<L, StoredFloats>(set, values, &mut self.values, size)),
            KvType::F16 => Numbers::Floats(pad::<L, StoredHalves>(set, values, &mut self.values, size)),
            KvType::Q8_0 => {
                let (halves, bytes) = values.split_at(2 * size.div_ceil(BLOCK) * PAGE_TOKENS);
                let (halves, _) = halves.as_chunks::<{ 2 * LANES }>();
                let converted = self.scales.as_flattened_mut().as_chunks_mut::<LANES>().0;
                for (scales, halves) in converted.iter_mut().zip(halves) {
                    L::load_halves(set, halves).store(scales);
                }
                scales = Some(&self.scales[..]);
                if !whole {
                    Numbers::Floats(pad::<L, StoredBytes>(set, bytes, &mut self.values, size))
                } else if many {
                    Numbers::Floats(floats_of_bytes::<L>(set, bytes, &mut self.values))
                } else {
                    Numbers::Bytes(bytes)
                }
            }
        };
        Values { numbers, scales }
    }
}

/// The values of a head that cannot be used as they are.
struct ConvertValues<'a, 'b> {
    unpacked: &'a mut Unpacked,
    layout: &'b KvLayout,
    values: &'a [u8],
    many: bool,
}

impl<'a> Kernel for ConvertValues<'a, '_> {
    type Output = Values<'a>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Values<'a> {
        let Self { unpacked, layout, values, many } = self;
        if layout.latent {
            return unpacked.values_in_keys::<L>(set, layout, values);
        }
        unpacked.separate_values::<L>(set, layout, values, many)
    }
}

fn grow(buffer: &mut Option<AlignedBytes>, len: usize) -> Result<(), Error> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        *buffer = None;
        *buffer = Some(AlignedBytes::zeroed(len)?);
    }
    Ok(())
}

/// Converts whole vectors.
#[inline(always)]
fn floats_of_halves<'a, L: Lanes>(set: L::Set, halves: &[u8], to: &'a mut Option<AlignedBytes>) -> &'a [u8] {
    let Some(to) = to else { return &[] };
    let to = &mut to[..2 * halves.len()];
    let (halves, _) = halves.as_chunks::<{ 2 * LANES }>();
    for (to, halves) in to.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().zip(halves) {
        L::load_halves(set, halves).store_floats(to);
    }
    to
}

/// Converts whole vectors.
#[inline(always)]
fn floats_of_bytes<'a, L: Lanes>(set: L::Set, bytes: &[u8], to: &'a mut Option<AlignedBytes>) -> &'a [u8] {
    let Some(to) = to else { return &[] };
    let to = &mut to[..4 * bytes.len()];
    let (bytes, _) = bytes.as_chunks::<LANES>();
    for (to, bytes) in to.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().zip(bytes) {
        L::load_signed_bytes(set, bytes).store_floats(to);
    }
    to
}

/// A type of stored elements.
trait Stored {
    const BYTES: usize;
    /// Converts up to 16 elements, padded with zeros.
    fn load_part<L: Lanes>(set: L::Set, bytes: &[u8]) -> L;
}

struct StoredFloats;
struct StoredHalves;
struct StoredBytes;

impl Stored for StoredFloats {
    const BYTES: usize = 4;
    #[inline(always)]
    fn load_part<L: Lanes>(set: L::Set, bytes: &[u8]) -> L {
        L::load_floats(set, &padded(bytes))
    }
}

impl Stored for StoredHalves {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load_part<L: Lanes>(set: L::Set, bytes: &[u8]) -> L {
        L::load_halves(set, &padded(bytes))
    }
}

impl Stored for StoredBytes {
    const BYTES: usize = 1;
    #[inline(always)]
    fn load_part<L: Lanes>(set: L::Set, bytes: &[u8]) -> L {
        L::load_signed_bytes(set, &padded(bytes))
    }
}

/// The first bytes, padded with zeros.
#[inline(always)]
fn padded<const BYTES: usize>(bytes: &[u8]) -> [u8; BYTES] {
    if let Some(all) = bytes.first_chunk() {
        return *all;
    }
    let mut part = [0; BYTES];
    let count = bytes.len().min(BYTES);
    part[..count].copy_from_slice(&bytes[..count]);
    part
}

/// Writes rows of `size` elements as floats, padded with zeros to whole vectors.
#[inline(always)]
fn pad<'a, L: Lanes, S: Stored>(set: L::Set, rows: &[u8], to: &'a mut Option<AlignedBytes>, size: usize) -> &'a [u8] {
    let Some(to) = to else { return &[] };
    let width = 4 * size.next_multiple_of(LANES);
    for (row, to) in rows.chunks_exact(S::BYTES * size).zip(to.chunks_exact_mut(width)) {
        for (vector, to) in to.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().enumerate() {
            S::load_part::<L>(set, &row[vector * LANES * S::BYTES..]).store_floats(to);
        }
    }
    &to[..width * PAGE_TOKENS]
}

/// Writes the first `size` elements of the keys `[number][token]` as rows of floats, `[token][number]`, padded with zeros to
/// whole vectors.
#[inline(always)]
fn transpose<L: Lanes, S: Stored>(set: L::Set, keys: &[u8], size: usize, to: &mut [u8]) {
    let (to, _) = to.as_chunks_mut::<{ 4 * LANES }>();
    let width = size.div_ceil(LANES);
    for vector in 0..width {
        for first in (0..PAGE_TOKENS).step_by(LANES) {
            let mut square = [L::zero(set); LANES];
            for (lane, row) in square.iter_mut().enumerate().take(size - vector * LANES) {
                let place = (vector * LANES + lane) * PAGE_TOKENS + first;
                *row = S::load_part::<L>(set, &keys[place * S::BYTES..][..LANES * S::BYTES]);
            }
            for (lane, row) in L::transpose(square).into_iter().enumerate() {
                row.store_floats(&mut to[(first + lane) * width + vector]);
            }
        }
    }
}

/// Like [`transpose`], from byte keys `[number / 4][token][4]` with 128 added: quads of bytes are moved as a unit.
#[inline(always)]
fn transpose_bytes<L: Lanes>(set: L::Set, keys: &[u8], size: usize, to: &mut [u8]) {
    /// Number of elements in sixteen quads.
    const NUMBERS: usize = 4 * LANES;
    let (to, _) = to.as_chunks_mut::<{ 4 * LANES }>();
    let (quads, _) = keys.as_chunks::<{ 4 * PAGE_TOKENS }>();
    let width = size.div_ceil(LANES);
    for start in (0..size).step_by(NUMBERS) {
        let count = NUMBERS.min(size - start);
        for first in (0..PAGE_TOKENS).step_by(LANES) {
            let mut square = [L::zero(set); LANES];
            for (row, quad) in square.iter_mut().zip(&quads[start / 4..][..count.div_ceil(4)]) {
                *row = L::load_floats(set, &quad.as_chunks().0[first / LANES]);
            }
            for (lane, row) in L::transpose(square).into_iter().enumerate() {
                let mut bytes = [0; NUMBERS];
                row.store_floats(&mut bytes);
                for byte in &mut bytes {
                    *byte ^= 0x80;
                }
                // Elements of the key beyond the value.
                bytes[count..].fill(0);
                let to = &mut to[(first + lane) * width + start / LANES..][..count.div_ceil(LANES)];
                for (to, bytes) in to.iter_mut().zip(bytes.as_chunks::<LANES>().0) {
                    L::load_signed_bytes(set, bytes).store_floats(to);
                }
            }
        }
    }
}
