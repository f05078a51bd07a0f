//! Byte-pair merging: the algorithm shared by both families of vocabularies.
//!
//! Of all adjacent pairs that may be joined, the one with the best priority is joined first, the leftmost among equals,
//! until no pair is left (Sennrich et al. 2016). The vocabulary decides what may be joined and how urgently: [`Pairs`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Error;

/// A stretch of the text that has become one symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Position of its first byte in the text.
    pub(crate) start: u32,
    /// Length in bytes; 0 once it has been joined to its left neighbour.
    pub(crate) length: u32,
    /// Its id in the vocabulary's numbering.
    pub(crate) id: u32,
}

/// A pair that may be joined; lower priorities come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) priority: u32,
    pub(crate) id: u32,
}

/// Determines which adjacent symbols may be joined.
pub(crate) trait Pairs {
    /// The result of joining two neighbours of `text`, if they may be.
    fn join(&self, text: &[u8], left: Symbol, right: Symbol) -> Option<Join>;
}

/// Up to this many symbols, rescanning all pairs is faster than maintaining a queue.
const FEW: usize = 48;

/// Working memory, reused from text to text.
#[derive(Default)]
pub(crate) struct MergeBuffers {
    joins: Vec<Option<Join>>,
    links: Vec<Link>,
    queue: Vec<Reverse<Candidate>>,
}

/// The neighbours of a symbol in the queue algorithm.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

/// A pair waiting in the queue, ordered by priority and then from left to right. It is stale if a part has changed.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    right: u32,
    id: u32,
    length: u32,
}

/// Joins the symbols of `text` in place until no more can be joined.
pub(crate) fn merge(
    pairs: &impl Pairs,
    text: &[u8],
    symbols: &mut Vec<Symbol>,
    scratch: &mut MergeBuffers,
) -> Result<(), Error> {
    if symbols.len() <= FEW {
        merge_few(pairs, text, symbols, &mut scratch.joins)
    } else {
        merge_many(pairs, text, symbols, scratch)
    }
}

/// Quadratic in the number of symbols, with a very small factor.
fn merge_few(
    pairs: &impl Pairs,
    text: &[u8],
    symbols: &mut Vec<Symbol>,
    joins: &mut Vec<Option<Join>>,
) -> Result<(), Error> {
    joins.clear();
    joins.try_reserve(symbols.len())?;
    joins.extend(symbols.windows(2).map(|pair| pairs.join(text, pair[0], pair[1])));
    loop {
        let mut best: Option<(usize, Join)> = None;
        for (at, join) in joins.iter().enumerate() {
            if let Some(join) = *join
                && best.is_none_or(|(_, other)| join.priority < other.priority)
            {
                best = Some((at, join));
            }
        }
        let Some((at, join)) = best else { return Ok(()) };
        symbols[at].length += symbols[at + 1].length;
        symbols[at].id = join.id;
        symbols.remove(at + 1);
        joins.remove(at);
        if at > 0 {
            joins[at - 1] = pairs.join(text, symbols[at - 1], symbols[at]);
        }
        if at < joins.len() {
            joins[at] = pairs.join(text, symbols[at], symbols[at + 1]);
        }
    }
}

/// Uses a priority queue over a linked list: every join adds at most two candidates, so the time is O(n log n).
fn merge_many(
    pairs: &impl Pairs,
    text: &[u8],
    symbols: &mut Vec<Symbol>,
    scratch: &mut MergeBuffers,
) -> Result<(), Error> {
    const NONE: u32 = u32::MAX;
    let count = symbols.len() as u32;
    let links = &mut scratch.links;
    links.clear();
    links.try_reserve(symbols.len())?;
    links.extend(
        (0..count).map(|at| Link { previous: at.wrapping_sub(1), next: if at + 1 < count { at + 1 } else { NONE } }),
    );
    let candidate = |symbols: &[Symbol], left: u32, right: u32| {
        let (first, second) = (symbols[left as usize], symbols[right as usize]);
        let Join { priority, id } = pairs.join(text, first, second)?;
        Some(Reverse(Candidate { priority, left, right, id, length: first.length + second.length }))
    };
    let mut waiting = std::mem::take(&mut scratch.queue);
    waiting.clear();
    waiting.try_reserve(symbols.len())?;
    waiting.extend((1..count).filter_map(|at| candidate(symbols, at - 1, at)));
    let mut queue = BinaryHeap::from(waiting);
    while let Some(Reverse(Candidate { left, right, id, length, .. })) = queue.pop() {
        let (first, second) = (symbols[left as usize], symbols[right as usize]);
        // Symbols only grow or vanish, so if the lengths of two live symbols still add up, neither has changed.
        if first.length == 0 || second.length == 0 || first.length + second.length != length {
            continue;
        }
        queue.try_reserve(2)?;
        symbols[left as usize] = Symbol { length, id, ..first };
        symbols[right as usize].length = 0;
        let after = links[right as usize].next;
        links[left as usize].next = after;
        if after != NONE {
            links[after as usize].previous = left;
            queue.extend(candidate(symbols, left, after));
        }
        let before = links[left as usize].previous;
        if before != NONE {
            queue.extend(candidate(symbols, before, left));
        }
    }
    scratch.queue = queue.into_vec();
    symbols.retain(|symbol| symbol.length > 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Pairs by the bytes they make.
    struct Table(HashMap<Vec<u8>, u32>);

    impl Pairs for Table {
        fn join(&self, text: &[u8], left: Symbol, right: Symbol) -> Option<Join> {
            let bytes = &text[left.start as usize..(right.start + right.length) as usize];
            self.0.get(bytes).map(|&priority| Join { priority, id: priority })
        }
    }

    fn symbols(text: &[u8]) -> Vec<Symbol> {
        (0..text.len() as u32).map(|start| Symbol { start, length: 1, id: 0 }).collect()
    }

    #[test]
    fn both_algorithms_agree() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let mut table = HashMap::new();
            for _ in 0..random(30) {
                let word: Vec<u8> = (0..2 + random(5)).map(|_| b'a' + random(3) as u8).collect();
                table.insert(word, random(8) as u32);
            }
            let text: Vec<u8> = (0..random(120)).map(|_| b'a' + random(3) as u8).collect();
            let (mut few, mut many) = (symbols(&text), symbols(&text));
            merge_few(&Table(table.clone()), &text, &mut few, &mut Vec::new()).unwrap();
            merge_many(&Table(table), &text, &mut many, &mut MergeBuffers::default()).unwrap();
            assert_eq!(few, many);
        }
    }

    #[test]
    fn the_best_pair_goes_first_and_the_leftmost_of_equals() {
        let table = Table([(&b"ab"[..], 1), (b"bc", 0), (b"aa", 2)].map(|(k, v)| (k.to_vec(), v)).into());
        let mut found = symbols(b"abcaaa");
        merge(&table, b"abcaaa", &mut found, &mut MergeBuffers::default()).unwrap();
        let lengths: Vec<u32> = found.iter().map(|symbol| symbol.length).collect();
        assert_eq!(lengths, [1, 2, 2, 1]);
    }
}
