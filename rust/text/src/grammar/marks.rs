//! Which tokens may come next: the trie of the vocabulary, walked together with the automaton.

use super::Budget;
use super::automaton::{Automaton, DEAD, StateId};
use super::trie::{Part, Trie};
use crate::Error;

/// A tree of so many nodes is worth the question whether all of it may come next.
const LARGE: usize = 16;
/// How many nodes of the vocabulary are looked at between two questions whether to stop.
const PIECE: usize = 1 << 14;

/// Sets the bits of all tokens whose bytes may come next.
pub(super) fn mark(
    automaton: &mut Automaton,
    vocabulary: &Trie,
    state: StateId,
    bits: &mut [u64],
    budget: &mut Budget<'_>,
) -> Result<(), Error> {
    // The states behind the bytes of the path to a node.
    let mut path = vec![DEAD; vocabulary.longest + 1];
    path[0] = state;
    for part in &vocabulary.parts {
        if automaton.takes_all(state, part.kind, budget)? {
            bits.iter_mut().zip(&part.bits).for_each(|(word, all)| *word |= all);
        } else {
            mark_part(automaton, part, &mut path, bits, budget)?;
        }
    }
    Ok(())
}

fn mark_part(
    automaton: &mut Automaton,
    part: &Part,
    path: &mut [StateId],
    bits: &mut [u64],
    budget: &mut Budget<'_>,
) -> Result<(), Error> {
    let nodes = &part.nodes[..];
    let mut place = 0;
    let mut visited = 0;
    while place + 1 < nodes.len() {
        visited += 1;
        if visited % PIECE == 0 {
            budget.look()?;
        }
        let node = nodes[place];
        let depth = node.depth as usize;
        let next = automaton.next(path[depth], node.byte, budget)?;
        if next == DEAD {
            place = node.skip as usize;
            continue;
        }
        let is_large = node.skip as usize - place >= LARGE;
        if is_large && automaton.takes_all(next, node.below, budget)? {
            place = node.skip as usize;
            mark_all(&part.tokens[node.first as usize..nodes[place].first as usize], bits);
            continue;
        }
        path[depth + 1] = next;
        place += 1;
        mark_all(&part.tokens[node.first as usize..nodes[place].first as usize], bits);
    }
    Ok(())
}

/// Sets the bits of these tokens.
pub(super) fn mark_all(ids: &[u32], bits: &mut [u64]) {
    for id in ids {
        set(bits, *id);
    }
}

fn set(bits: &mut [u64], id: u32) {
    bits[id as usize / 64] |= 1 << (id % 64);
}
