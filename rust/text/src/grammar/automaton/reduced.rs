//! Smaller automata: several states are merged into one, and states that the text has left behind are forgotten.

use super::{Automaton, Compiled, State, StateId};
use crate::Error;
use crate::grammar::stacks::{Continuation, END, Reading};

impl Automaton {
    /// Merges states that are at the same beginning of a character into one state with the readings of all.
    pub(crate) fn joined(&mut self, states: &[StateId]) -> Result<Vec<StateId>, Error> {
        let mut nodes: Vec<(Option<u32>, Vec<Reading>, bool)> = Vec::new();
        for state in states {
            let State { set, node } = self.states[*state as usize];
            let may_end = self.may_end[set as usize];
            match nodes.iter_mut().find(|(known, ..)| *known == node) {
                None => nodes.push((node, self.sets.get(set).to_vec(), may_end)),
                Some((_, readings, known)) => {
                    readings.extend_from_slice(self.sets.get(set));
                    *known |= may_end;
                }
            }
        }
        let mut joined = Vec::with_capacity(nodes.len());
        for (node, mut readings, may_end) in nodes {
            let set = self.set(&mut readings, may_end)?;
            joined.push(self.state(set, node)?);
        }
        Ok(joined)
    }

    /// An automaton that knows only these states, and their indices in it.
    pub(crate) fn reduced(&self, compiled: &Compiled, states: &[StateId]) -> Result<(Self, Vec<StateId>), Error> {
        let mut fresh = Self::bare(compiled)?;
        // Continuations refer only to earlier ones.
        let mut wanted = vec![false; self.continuations.count()];
        let sets = states.iter().map(|state| self.sets.get(self.states[*state as usize].set));
        for (_, continuation) in sets.flatten() {
            wanted[*continuation as usize] = true;
        }
        for number in (1..wanted.len()).rev() {
            if wanted[number] {
                for (_, continuation) in self.continuations.get(number as u32) {
                    wanted[*continuation as usize] = true;
                }
            }
        }
        let mut numbers: Vec<Continuation> = vec![END; wanted.len()];
        let renumbered = |set: &[Reading], numbers: &[Continuation]| -> Vec<Reading> {
            set.iter().map(|(position, after)| (*position, numbers[*after as usize])).collect()
        };
        for number in 1..wanted.len() {
            if wanted[number] {
                let mut set = renumbered(self.continuations.get(number as u32), &numbers);
                numbers[number] = fresh.continuations.number(&mut set)?;
            }
        }
        let mut found = Vec::with_capacity(states.len());
        for state in states {
            let State { set, node } = self.states[*state as usize];
            // The reading that marks the end is copied too.
            let mut readings = renumbered(self.sets.get(set), &numbers);
            let fresh_set = fresh.sets.number(&mut readings)?;
            if fresh_set as usize == fresh.may_end.len() {
                fresh.may_end.push(self.may_end[set as usize]);
            }
            found.push(fresh.state(fresh_set, node)?);
        }
        Ok((fresh, found))
    }
}
