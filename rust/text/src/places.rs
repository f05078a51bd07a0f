//! A set of positions in a text: positions are marked in any order, and neighbours are found in constant time.

use crate::Error;

/// Each bit of a level stands for a word of the level below that has any bit set.
const BITS: usize = u64::BITS as usize;

/// The marked positions, one bit each, with summary levels of 64 to 1 above them.
pub(crate) struct Places {
    levels: Vec<Vec<u64>>,
}

impl Places {
    /// Creates an empty set for positions below `length`.
    pub(crate) fn new(length: usize) -> Result<Self, Error> {
        let mut levels = Vec::new();
        let mut bits = length.max(1);
        loop {
            let words = bits.div_ceil(BITS);
            let mut level = Vec::new();
            level.try_reserve_exact(words)?;
            level.resize(words, 0);
            levels.push(level);
            if words == 1 {
                return Ok(Self { levels });
            }
            bits = words;
        }
    }

    /// Marks a position.
    pub(crate) fn mark(&mut self, position: usize) {
        let mut at = position;
        for level in &mut self.levels {
            level[at / BITS] |= 1 << (at % BITS);
            at /= BITS;
        }
    }

    /// The first marked position at or after `from`.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let word = level.get(at / BITS)? >> (at % BITS);
            if word != 0 {
                let mut found = at + word.trailing_zeros() as usize;
                for below in self.levels[..height].iter().rev() {
                    found = found * BITS + below[found].trailing_zeros() as usize;
                }
                return Some(found);
            }
            // Nothing in the rest of this word: go on with the words after it.
            at = at / BITS + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_those_of_a_sorted_set() {
        let mut state = 3_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for length in [1, 2, 63, 64, 65, 4096, 4097, 300_000] {
            let mut places = Places::new(length).unwrap();
            let mut known = std::collections::BTreeSet::new();
            for _ in 0..200 {
                let (position, from) = (random(length), random(length + 70));
                assert_eq!(places.next(from), known.range(from..).next().copied(), "{length} {from}");
                places.mark(position);
                known.insert(position);
                assert_eq!(places.next(position), Some(position));
                assert_eq!(places.next(0), known.first().copied());
            }
        }
    }
}
