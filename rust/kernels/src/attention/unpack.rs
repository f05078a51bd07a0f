//! Keys and values of a page made ready for the tiles: as they are where a few rows read them once, converted to floats
//! where many rows share the work or where rows do not fill whole vectors.

use super::keys::{ByteKeys, Keys};
use super::pages::{BLOCK, KvLayout, KvType, PAGE_TOKENS};
use super::values::Values;
use crate::Error;
use crate::mapping::AlignedBytes;
use crate::math::{LANES, Lanes};

/// Keys of one head in a page.
#[derive(Clone, Copy)]
pub(super) enum PageKeys<'a> {
    Numbers(Keys<'a>),
    Bytes(ByteKeys<'a>),
}

/// Memory for one page of one head as floats.
#[derive(Default)]
pub(super) struct Unpacked {
    keys: Option<AlignedBytes>,
    values: Option<AlignedBytes>,
    scales: Vec<f32>,
}

impl Unpacked {
    /// Makes room for pages of this layout.
    pub(super) fn prepare(&mut self, layout: &KvLayout) -> Result<(), Error> {
        let line = 4 * PAGE_TOKENS;
        grow(&mut self.keys, layout.key_size.saturating_mul(line))?;
        grow(&mut self.values, layout.value_size.saturating_add(LANES).saturating_mul(line))?;
        self.scales.resize(layout.value_size.div_ceil(BLOCK) * PAGE_TOKENS, 0.0);
        Ok(())
    }

    /// The keys of a head; `many`: many tiles of rows will read them.
    #[inline(always)]
    pub(super) fn keys<'a, L: Lanes>(&'a mut self, layout: &KvLayout, keys: &'a [u8], many: bool) -> PageKeys<'a> {
        match layout.kv_type {
            KvType::F32 => PageKeys::Numbers(Keys::Floats(keys)),
            KvType::F16 if many => PageKeys::Numbers(Keys::Floats(floats_of_halves::<L>(keys, &mut self.keys))),
            KvType::F16 => PageKeys::Numbers(Keys::Halves(keys)),
            KvType::Q8_0 => {
                let (scales, bytes) = keys.split_at(2 * layout.key_size.div_ceil(BLOCK) * PAGE_TOKENS);
                PageKeys::Bytes(ByteKeys { scales, bytes })
            }
        }
    }

    /// The values of a head; `many` as above.
    #[inline(always)]
    pub(super) fn values<'a, L: Lanes>(&'a mut self, layout: &KvLayout, values: &'a [u8], many: bool) -> Values<'a> {
        let size = layout.value_size;
        let whole = size.is_multiple_of(LANES);
        match layout.kv_type {
            KvType::F32 if whole => Values::Floats(values),
            KvType::F16 if whole && !many => Values::Halves(values),
            KvType::F16 if whole => Values::Floats(floats_of_halves::<L>(values, &mut self.values)),
            KvType::F32 => {
                let rows = values.chunks_exact(4 * size);
                Values::Floats(pad(
                    rows,
                    &mut self.values,
                    size,
                    #[inline(always)]
                    |row, first| {
                        let mut part = [0; 4 * LANES];
                        let row = &row[4 * first..];
                        let count = row.len().min(part.len());
                        part[..count].copy_from_slice(&row[..count]);
                        L::load_floats(&part)
                    },
                ))
            }
            KvType::F16 => {
                let rows = values.chunks_exact(2 * size);
                Values::Floats(pad(
                    rows,
                    &mut self.values,
                    size,
                    #[inline(always)]
                    |row, first| {
                        let mut part = [0; 2 * LANES];
                        let row = &row[2 * first..];
                        let count = row.len().min(part.len());
                        part[..count].copy_from_slice(&row[..count]);
                        L::load_halves(&part)
                    },
                ))
            }
            KvType::Q8_0 => {
                let (halves, bytes) = values.split_at(2 * size.div_ceil(BLOCK) * PAGE_TOKENS);
                let (halves, _) = halves.as_chunks::<{ 2 * LANES }>();
                for (scales, halves) in self.scales.as_chunks_mut::<LANES>().0.iter_mut().zip(halves) {
                    L::load_halves(halves).store(scales);
                }
                if whole && !many {
                    Values::Bytes { scales: &self.scales, bytes }
                } else {
                    let scales = &self.scales;
                    let rows = bytes.chunks_exact(size).enumerate();
                    Values::Floats(pad(
                        rows,
                        &mut self.values,
                        size,
                        #[inline(always)]
                        |(token, row), first| {
                            let mut part = [0; LANES];
                            let row = &row[first..];
                            let count = row.len().min(LANES);
                            part[..count].copy_from_slice(&row[..count]);
                            L::load_signed_bytes(&part).mul(L::splat(scales[first / BLOCK * PAGE_TOKENS + token]))
                        },
                    ))
                }
            }
        }
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
fn floats_of_halves<'a, L: Lanes>(halves: &[u8], to: &'a mut Option<AlignedBytes>) -> &'a [u8] {
    let Some(to) = to else { return &[] };
    let to = &mut to[..2 * halves.len()];
    let (halves, _) = halves.as_chunks::<{ 2 * LANES }>();
    for (to, halves) in to.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().zip(halves) {
        L::load_halves(halves).store_floats(to);
    }
    to
}

/// Writes rows as floats, filled with zeros to whole vectors; `load(row, first)` returns numbers from `first` on.
#[inline(always)]
fn pad<L: Lanes, R: Copy>(
    rows: impl Iterator<Item = R>,
    to: &mut Option<AlignedBytes>,
    size: usize,
    load: impl Fn(R, usize) -> L,
) -> &[u8] {
    let Some(to) = to else { return &[] };
    let width = 4 * size.next_multiple_of(LANES);
    for (row, to) in rows.zip(to.chunks_exact_mut(width)) {
        for (vector, to) in to.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().enumerate() {
            load(row, vector * LANES).store_floats(to);
        }
    }
    &to[..width * PAGE_TOKENS]
}
