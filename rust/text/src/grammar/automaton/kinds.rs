//! Whether all texts of a kind may come next: then that part of the vocabulary is allowed without walking it.

use std::sync::Arc;

use super::{Automaton, DEAD, State, StateId, matches};
use crate::Error;
use crate::grammar::Budget;
use crate::grammar::characters::NO_CLASS;
use crate::grammar::trie::Kind;

/// Maximum number of character classes that are tried to see where a state leads.
const MOST_CLASSES: usize = 32;
/// Maximum number of states that are followed to see whether all texts of a kind may come next.
const MOST_FOLLOWED: usize = 4;

impl Automaton {
    /// Whether all texts of the kind may come next: every character of the kind leads to a state for which the same is
    /// true. Also false where finding out would be more work than walking the tree of tokens.
    pub(crate) fn takes_all(&mut self, state: StateId, kind: Kind, budget: &mut Budget<'_>) -> Result<bool, Error> {
        if kind == Kind::Any {
            return Ok(false);
        }
        let place = kind as usize;
        if let Some(known) = self.takes_all[state as usize][place] {
            return Ok(known);
        }
        let mut followed = vec![state];
        let mut position = 0;
        while let Some(from) = followed.get(position) {
            if !self.follow_kind(*from, kind, &mut followed, budget)? {
                self.takes_all[state as usize][place] = Some(false);
                return Ok(false);
            }
            position += 1;
        }
        for state in followed {
            self.takes_all[state as usize][place] = Some(true);
        }
        Ok(true)
    }

    /// Adds the states that the characters of a kind lead to; false if any leads nowhere or if there are too many states.
    fn follow_kind(
        &mut self,
        from: StateId,
        kind: Kind,
        followed: &mut Vec<StateId>,
        budget: &mut Budget<'_>,
    ) -> Result<bool, Error> {
        let State { set, node } = self.states[from as usize];
        if from == DEAD || node.is_some() {
            return Ok(false);
        }
        let mut add = |state| {
            if state != DEAD && !followed.contains(&state) {
                followed.push(state);
            }
            state != DEAD && followed.len() <= MOST_FOLLOWED
        };
        for byte in kind.ascii() {
            if !add(self.next(from, byte, budget)?) {
                return Ok(false);
            }
        }
        if kind != Kind::Plain {
            return Ok(true);
        }
        let utf8 = Arc::clone(&self.utf8);
        let mut classes = Vec::new();
        for class in Kind::OTHERS.iter().flat_map(|(first, last)| utf8.classes.between(*first, *last)) {
            // With many classes, walking the tree is less work.
            if class == NO_CLASS || classes.len() == MOST_CLASSES {
                return Ok(false);
            }
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
        for class in classes {
            let character = utf8.classes.example(class);
            if !add(self.advance(set, |rules, symbol| matches(rules, symbol, character), budget)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
