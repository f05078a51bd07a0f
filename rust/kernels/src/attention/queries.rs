//! The queries of a block in the form in which its tiles read them.

use super::block::{Block, Scratch, tile_rows};
use super::keys::TILE;
use super::pages::KvType;
use crate::math::{Kernel, Lanes};

/// Stores the queries of each tile side by side, multiplied by the scale of the scores.
pub(super) struct PackQueries<'a> {
    pub(super) block: &'a Block<'a>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for PackQueries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { block, scratch } = self;
        let (rows, size) = (block.rows(), block.layout.key_size);
        let scale = block.scale;
        let kv_type = block.layout.kv_type;
        match kv_type {
            KvType::Q8_0 => scratch.byte_queries.resize(rows, size),
            KvType::I16 => scratch.word_queries.resize(rows, size),
            KvType::F32 | KvType::F16 => scratch.queries.resize(rows * size, 0.0),
        }
        let count = rows.div_ceil(TILE);
        for tile in 0..count {
            let (first, height) = tile_rows(rows, count, tile);
            let mut queries = [&[][..]; TILE];
            for (place, query) in queries[..height].iter_mut().enumerate() {
                *query = block.query(first + place);
            }
            if kv_type == KvType::I16 {
                for (place, query) in queries[..height].iter().enumerate() {
                    scratch.word_queries.set::<L>(set, (first, height), place, query, scale);
                }
            } else if kv_type == KvType::Q8_0 {
                for (place, query) in queries[..height].iter().enumerate() {
                    scratch.byte_queries.set::<L>(set, first, height, place, query, scale);
                }
            } else {
                let packed = scratch.queries[first * size..][..height * size].chunks_exact_mut(height);
                for (number, to) in packed.enumerate() {
                    for (to, query) in to.iter_mut().zip(&queries) {
                        *to = query[number] * scale;
                    }
                }
            }
        }
    }
}
