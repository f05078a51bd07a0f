//! All readings of a text at once.
//!
//! A reading is a position in the rules and a continuation: what follows once the rule at that position is done. A
//! continuation is itself a set of such readings, since a rule that is called from several places is followed only once
//! for all of them. A rule called last in its alternative takes over its caller's continuation, so repetitions do not
//! grow the stack.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};

use super::rules::{Position, Rules, Symbol};
use super::{Budget, MOST_REMEMBERED};
use crate::Error;

/// The index of a continuation.
pub(crate) type Continuation = u32;
/// A position and what follows after its rule.
pub(crate) type Reading = (Position, Continuation);

/// The continuation of the root: the end of the text.
pub(crate) const END: Continuation = 0;
/// The only reading of [`END`].
const FINISH: Reading = (u32::MAX, END);
/// This bit marks continuations that are still being gathered.
const OPEN: u32 = 1 << 31;

/// Sets of readings, each stored once and identified by its index.
#[derive(Default)]
pub(crate) struct Sets {
    readings: Vec<Reading>,
    ends: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Sets {
    pub(crate) fn get(&self, number: u32) -> &[Reading] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before as usize] as usize);
        &self.readings[start..self.ends[number as usize] as usize]
    }

    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// Total number of readings and sets.
    pub(crate) fn size(&self) -> usize {
        self.readings.len() + self.ends.len()
    }

    /// The index of a set; sorts its readings.
    pub(crate) fn number(&mut self, set: &mut Vec<Reading>) -> Result<u32, Error> {
        set.sort_unstable();
        set.dedup();
        let hash = self.hasher.hash_one(&*set);
        if let Some(number) = self.index.find(hash, |number| self.get(*number) == &**set) {
            return Ok(*number);
        }
        if self.size() + set.len() > MOST_REMEMBERED {
            return Err(Error::Grammar(format!(
                "the text can be read in too many ways under this grammar, or is nested too deep: more than \
                 {MOST_REMEMBERED} readings are open; write the grammar with fewer repetitions inside repetitions"
            )));
        }
        let number = self.ends.len() as u32;
        self.readings.try_reserve(set.len())?;
        self.ends.try_reserve(1)?;
        self.readings.extend_from_slice(set);
        self.ends.push(self.readings.len() as u32);
        let Self { index, readings, ends, hasher } = self;
        let hash_of = |number: &u32| {
            let start = number.checked_sub(1).map_or(0, |before| ends[before as usize] as usize);
            hasher.hash_one(&readings[start..ends[*number as usize] as usize])
        };
        index.try_reserve(1, hash_of).map_err(|_| Error::Memory)?;
        index.insert_unique(hash, number, hash_of);
        Ok(number)
    }
}

/// A continuation that is being gathered, for a rule that is called at this place in the text.
#[derive(Default)]
struct Call {
    rule: u32,
    /// What follows in its callers.
    after: Vec<Reading>,
    /// The continuations of callers in which it is the last part.
    last_of: Vec<Continuation>,
    /// Whether it can be completed without reading a character.
    done: bool,
    /// The index of its continuation, once known.
    number: Continuation,
}

/// Follows readings to the next character or token. Reused from step to step for its memory.
#[derive(Default)]
pub(crate) struct Follower {
    pending: Vec<Reading>,
    /// Continuations whose rules are done.
    finished: Vec<Continuation>,
    seen: HashSet<Reading>,
    done: HashSet<Continuation>,
    calls: Vec<Call>,
    /// The call of each rule, and the run in which it was made.
    call_of: Vec<(u32, u32)>,
    run: u32,
    /// Readings found so far that wait for a character or a token.
    found: Vec<Reading>,
    scratch: Vec<Reading>,
}

impl Follower {
    /// Adds a starting reading.
    pub(crate) fn add(&mut self, reading: Reading) {
        self.pending.push(reading);
    }

    /// Follows the added readings. Fills `readings`, which is emptied first, with those that wait for a character or a
    /// token, and returns whether the text may end.
    pub(crate) fn follow(
        &mut self,
        rules: &Rules,
        continuations: &mut Sets,
        budget: &mut Budget<'_>,
        readings: &mut Vec<Reading>,
    ) -> Result<bool, Error> {
        readings.clear();
        let outcome = self.gather(rules, continuations, budget);
        let outcome = outcome.and_then(|may_end| {
            self.close(rules, continuations, budget)?;
            let calls = &self.calls;
            readings.extend(self.found.iter().map(|(position, after)| (*position, resolved(calls, *after))));
            Ok(may_end)
        });
        self.pending.clear();
        self.finished.clear();
        self.found.clear();
        self.seen.clear();
        self.done.clear();
        self.calls.clear();
        self.run = self.run.wrapping_add(1);
        outcome
    }

    fn gather(&mut self, rules: &Rules, continuations: &Sets, budget: &mut Budget<'_>) -> Result<bool, Error> {
        if self.call_of.len() != rules.count() {
            self.call_of = vec![(u32::MAX, 0); rules.count()];
            self.run = 0;
        }
        let mut may_end = false;
        loop {
            budget.spend(1)?;
            if let Some(continuation) = self.finished.pop() {
                if !self.done.insert(continuation) {
                    continue;
                }
                if continuation & OPEN != 0 {
                    let call = &mut self.calls[(continuation & !OPEN) as usize];
                    call.done = true;
                    self.pending.extend_from_slice(&call.after);
                    self.finished.extend_from_slice(&call.last_of);
                } else {
                    let after = continuations.get(continuation);
                    budget.spend(after.len() as u64)?;
                    for reading in after {
                        if *reading == FINISH {
                            may_end = true;
                        } else {
                            self.pending.push(*reading);
                        }
                    }
                }
                continue;
            }
            let Some(reading) = self.pending.pop() else { return Ok(may_end) };
            let (position, continuation) = reading;
            let symbol = rules.symbols[position as usize];
            if symbol == Symbol::End {
                self.finished.push(continuation);
            } else if self.seen.insert(reading) {
                if let Symbol::Rule(rule) = symbol {
                    self.call(rules, rule, position, continuation);
                } else {
                    self.found.push(reading);
                }
            }
        }
    }

    fn call(&mut self, rules: &Rules, rule: u32, position: Position, continuation: Continuation) {
        let (run, number) = self.call_of[rule as usize];
        let number = if run == self.run {
            number
        } else {
            let number = self.calls.len() as u32;
            self.calls.push(Call { rule, ..Call::default() });
            self.call_of[rule as usize] = (self.run, number);
            self.pending.extend(rules.alternatives(rule).iter().map(|start| (*start, OPEN | number)));
            number
        };
        let call = &mut self.calls[number as usize];
        if rules.symbols[position as usize + 1] == Symbol::End {
            call.last_of.push(continuation);
            if call.done {
                self.finished.push(continuation);
            }
        } else {
            call.after.push((position + 1, continuation));
            if call.done {
                self.pending.push((position + 1, continuation));
            }
        }
    }

    /// Assigns indices to the continuations that have been gathered, callers first.
    fn close(&mut self, rules: &Rules, continuations: &mut Sets, budget: &mut Budget<'_>) -> Result<(), Error> {
        let mut order: Vec<u32> = (0..self.calls.len() as u32).collect();
        let rank = |calls: &[Call], call: u32| rules.ranks[calls[call as usize].rule as usize];
        order.sort_unstable_by_key(|call| std::cmp::Reverse(rank(&self.calls, *call)));
        for number in order {
            let own = rank(&self.calls, number);
            let readings = &mut self.scratch;
            readings.clear();
            // Rules of equal rank call each other only as last parts, so each shares all continuations of the others.
            let mut reached = vec![number];
            let mut next = 0;
            while let Some(call) = reached.get(next).map(|call| &self.calls[*call as usize]) {
                next += 1;
                readings.extend(call.after.iter().map(|(at, after)| (*at, resolved(&self.calls, *after))));
                for caller in &call.last_of {
                    let caller_number = caller & !OPEN;
                    if caller & OPEN != 0 && rank(&self.calls, caller_number) == own {
                        if !reached.contains(&caller_number) {
                            reached.push(caller_number);
                        }
                    } else {
                        readings.extend_from_slice(continuations.get(resolved(&self.calls, *caller)));
                    }
                }
                budget.spend(readings.len() as u64)?;
            }
            self.calls[number as usize].number = continuations.number(readings)?;
        }
        Ok(())
    }
}

fn resolved(calls: &[Call], continuation: Continuation) -> Continuation {
    if continuation & OPEN == 0 { continuation } else { calls[(continuation & !OPEN) as usize].number }
}

/// Continuations that hold only [`END`].
pub(crate) fn ended() -> Result<Sets, Error> {
    let mut sets = Sets::default();
    sets.number(&mut vec![FINISH])?;
    Ok(sets)
}
