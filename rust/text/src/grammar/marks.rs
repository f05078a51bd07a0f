//! Which tokens may come next: walks the trie of the vocabulary together with the automaton.

use super::Budget;
use super::automaton::{Automaton, DEAD, StateId};
use super::trie::{Part, Trie};
use crate::Error;

/// Minimum number of nodes for which it pays to ask whether a whole tree may come next.
const LARGE: usize = 6;
/// Number of vocabulary nodes visited between two checks for cancellation.
const PIECE: usize = 1 << 14;

/// Sets the bits of all tokens whose bytes may come next.
pub(super) fn mark(
    automaton: &mut Automaton,
    vocabulary: &Trie,
    state: StateId,
    bits: &mut [u64],
    budget: &mut Budget<'_>,
) -> Result<(), Error> {
    // The states after the bytes on the path to a node.
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

/// Does not branch on each bit, since such branches are unpredictable.
fn forbid_of_eight(byte: u64, logits: &mut [f32; 8]) {
    let byte = byte as u32;
    for (lane, logit) in logits.iter_mut().enumerate() {
        let kept = if byte & (1 << lane) == 0 { 0 } else { u32::MAX };
        *logit = f32::from_bits((logit.to_bits() & kept) | (f32::NEG_INFINITY.to_bits() & !kept));
    }
}

/// Sets the logits of all tokens whose bit is not set to minus infinity, including those past the last bit.
pub fn forbid_others(bits: &[u64], logits: &mut [f32]) {
    for (place, logits) in logits.chunks_mut(64).enumerate() {
        match bits.get(place).copied().unwrap_or(0) {
            u64::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            word => {
                let (whole, rest) = logits.as_chunks_mut::<8>();
                for (part, eight) in whole.iter_mut().enumerate() {
                    forbid_of_eight(word >> (8 * part), eight);
                }
                for (lane, logit) in rest.iter_mut().enumerate() {
                    if word >> (8 * whole.len() + lane) & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_forbidden_whatever_the_length() {
        let words = [0x9E37_79B9_7F4A_7C15_u64, 0, u64::MAX, 0x0102_0408_1020_4080];
        for length in (0..300).step_by(7).chain([63, 64, 65, 255, 256, 257]) {
            let mut logits: Vec<f32> = (0..length).map(|number| number as f32 - 100.0).collect();
            let wanted: Vec<f32> = (logits.iter().enumerate())
                .map(|(place, logit)| match words.get(place / 64) {
                    Some(word) if word >> (place % 64) & 1 != 0 => *logit,
                    _ => f32::NEG_INFINITY,
                })
                .collect();
            forbid_others(&words, &mut logits);
            assert_eq!(logits, wanted);
        }
    }
}
