//! A deterministic automaton whose states are sets of readings and whose transitions are bytes, built only as far as it
//! is walked.

mod kinds;
mod reduced;

use std::sync::Arc;

use hashbrown::HashMap;

use super::Budget;
use super::characters::{Characters, Classes};
use super::rules::{Rules, Symbol};
use super::stacks::{END, Follower, Reading, Sets, ended};
use super::trie::Kind;
use super::utf8::{Next, Utf8};
use crate::Error;
use crate::error::needs;

/// The index of a state.
pub(crate) type StateId = u32;

/// No text can continue from here.
pub(crate) const DEAD: StateId = 0;
/// A transition that has not been computed yet.
const UNKNOWN: StateId = u32::MAX;
/// A state that has been left this many times gets a row in the table.
const OFTEN: u8 = 3;
/// Maximum size in bytes of [`Utf8`] per range of characters, followed by the sizes of the smallest and the largest
/// one, which has a node for every 64 characters there are.
const RANGE_BYTES: usize = 4 << 10;
const LEAST_UTF8_BYTES: usize = 3 << 20;
const MOST_UTF8_BYTES: usize = 64 << 20;
/// Maximum size of the transition table, in entries.
const LARGEST_TABLE: usize = 1 << 24;

/// A set of readings, and the beginning of a character read after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The index of the set of readings.
    set: u32,
    /// The node of [`Utf8`], or `None` between characters.
    node: Option<u32>,
}

pub(crate) struct Automaton {
    pub(crate) rules: Arc<Rules>,
    utf8: Arc<Utf8>,
    continuations: Sets,
    sets: Sets,
    /// For each set, whether the text may end.
    may_end: Vec<bool>,
    states: Vec<State>,
    numbers: HashMap<State, StateId>,
    /// For each state, where its row begins, or how often it was left without having one.
    rows: Vec<Row>,
    table: Vec<StateId>,
    /// For each state and each [`Kind`] except the last, whether all texts of that kind may come next.
    takes_all: Vec<[Option<bool>; Kind::Any as usize]>,
    follower: Follower,
    scratch: Vec<Reading>,
}

#[derive(Clone, Copy)]
enum Row {
    Left(u8),
    At(u32),
}

/// The parts of a grammar that are shared by all texts.
#[derive(Clone)]
pub(crate) struct Compiled {
    rules: Arc<Rules>,
    utf8: Arc<Utf8>,
}

impl Compiled {
    pub(crate) fn new(rules: Arc<Rules>) -> Result<Self, Error> {
        let ranges = rules.sets.iter().map(Characters::len).sum::<usize>();
        needs(ranges.saturating_mul(RANGE_BYTES).clamp(LEAST_UTF8_BYTES, MOST_UTF8_BYTES))?;
        let utf8 = Arc::new(Utf8::of(Classes::of(&rules.sets)));
        Ok(Self { rules, utf8 })
    }
}

impl Automaton {
    /// Once this much is remembered, what the text no longer needs is forgotten.
    pub(crate) const MANY: usize = 1 << 18;

    /// The automaton, and its state at the beginning of a text.
    pub(crate) fn new(compiled: &Compiled, budget: &mut Budget<'_>) -> Result<(Self, StateId), Error> {
        let mut automaton = Self::bare(compiled)?;
        for start in automaton.rules.alternatives(automaton.rules.root) {
            automaton.follower.add((*start, END));
        }
        let first = automaton.follow(budget)?;
        Ok((automaton, first))
    }

    fn bare(compiled: &Compiled) -> Result<Self, Error> {
        let mut automaton = Self {
            rules: Arc::clone(&compiled.rules),
            utf8: Arc::clone(&compiled.utf8),
            continuations: ended()?,
            sets: Sets::default(),
            may_end: Vec::new(),
            states: Vec::new(),
            numbers: HashMap::new(),
            rows: Vec::new(),
            table: Vec::new(),
            takes_all: Vec::new(),
            follower: Follower::default(),
            scratch: Vec::new(),
        };
        let nothing = automaton.set(&mut Vec::new(), false)?;
        automaton.state(nothing, None)?;
        Ok(automaton)
    }

    /// The set of these readings. If the text may end, an additional reading past all symbols marks the set.
    fn set(&mut self, readings: &mut Vec<Reading>, may_end: bool) -> Result<u32, Error> {
        if may_end {
            readings.push((u32::MAX, END));
        }
        self.may_end.try_reserve(1)?;
        let set = self.sets.number(readings)?;
        if set as usize == self.may_end.len() {
            self.may_end.push(may_end);
        }
        Ok(set)
    }

    fn state(&mut self, set: u32, node: Option<u32>) -> Result<StateId, Error> {
        let state = State { set, node };
        if let Some(known) = self.numbers.get(&state) {
            return Ok(*known);
        }
        self.numbers.try_reserve(1).map_err(|_| Error::Memory)?;
        self.states.try_reserve(1)?;
        self.rows.try_reserve(1)?;
        self.takes_all.try_reserve(1)?;
        let number = self.states.len() as StateId;
        self.numbers.insert(state, number);
        self.states.push(state);
        self.rows.push(Row::Left(0));
        self.takes_all.push([None; Kind::Any as usize]);
        Ok(number)
    }

    /// The state that the readings given to the follower lead to.
    fn follow(&mut self, budget: &mut Budget<'_>) -> Result<StateId, Error> {
        let mut readings = std::mem::take(&mut self.scratch);
        let may_end = self.follower.follow(&self.rules, &mut self.continuations, budget, &mut readings);
        let set = may_end.and_then(|may_end| self.set(&mut readings, may_end));
        self.scratch = readings;
        self.state(set?, None)
    }

    /// The readings of a state that wait for a character or a token; empty in the middle of a character.
    fn waiting(&self, state: StateId) -> &[Reading] {
        let State { set, node } = self.states[state as usize];
        if node.is_some() {
            return &[];
        }
        let readings = self.sets.get(set);
        &readings[..readings.len() - usize::from(self.may_end[set as usize])]
    }

    /// Whether the text may end in this state.
    pub(crate) fn may_end(&self, state: StateId) -> bool {
        let State { set, node } = self.states[state as usize];
        node.is_none() && self.may_end[set as usize]
    }

    /// The references to tokens that may come next.
    pub(crate) fn tokens(&self, state: StateId) -> impl Iterator<Item = Symbol> {
        let symbols = self.waiting(state).iter().map(|(position, _)| self.rules.symbols[*position as usize]);
        symbols.filter(|symbol| matches!(symbol, Symbol::Token(_) | Symbol::OtherToken(_)))
    }

    /// The state after a byte.
    #[inline]
    pub(crate) fn next(&mut self, state: StateId, byte: u8, budget: &mut Budget<'_>) -> Result<StateId, Error> {
        if let Row::At(row) = self.rows[state as usize] {
            let next = self.table[row as usize + self.utf8.column(byte)];
            if next != UNKNOWN {
                return Ok(next);
            }
        }
        self.look_up(state, byte, budget)
    }

    #[cold]
    fn look_up(&mut self, state: StateId, byte: u8, budget: &mut Budget<'_>) -> Result<StateId, Error> {
        let column = self.utf8.column(byte);
        if column == 0 || state == DEAD {
            return Ok(DEAD);
        }
        let next = self.step(state, self.utf8.byte(column), budget)?;
        let width = self.utf8.width();
        match &mut self.rows[state as usize] {
            Row::At(row) => self.table[*row as usize + column] = next,
            Row::Left(times) if *times < OFTEN || self.table.len() + width > LARGEST_TABLE => {
                *times = times.saturating_add(1);
            }
            row @ Row::Left(_) => {
                let start = self.table.len();
                self.table.try_reserve(width)?;
                *row = Row::At(start as u32);
                self.table.resize(start + width, UNKNOWN);
                self.table[start] = DEAD;
                self.table[start + column] = next;
            }
        }
        Ok(next)
    }

    fn step(&mut self, state: StateId, byte: u8, budget: &mut Budget<'_>) -> Result<StateId, Error> {
        let State { set, node } = self.states[state as usize];
        match self.utf8.next(node, byte) {
            Next::None => Ok(DEAD),
            Next::Class(class) => {
                let character = self.utf8.classes.example(class);
                self.advance(set, |rules, symbol| matches(rules, symbol, character), budget)
            }
            Next::Node(node) => {
                let classes = self.utf8.reachable(node);
                let readings = self.sets.get(set);
                budget.spend(readings.len() as u64)?;
                let alive = readings.iter().any(|(position, _)| {
                    // The reading that marks the end lies past all symbols.
                    self.rules.symbols.get(*position as usize).is_some_and(|symbol| {
                        classes.iter().any(|class| matches(&self.rules, *symbol, self.utf8.classes.example(*class)))
                    })
                });
                if alive { self.state(set, Some(node)) } else { Ok(DEAD) }
            }
        }
    }

    /// The state after a symbol that `fits` accepts.
    fn advance(
        &mut self,
        set: u32,
        fits: impl Fn(&Rules, Symbol) -> bool,
        budget: &mut Budget<'_>,
    ) -> Result<StateId, Error> {
        let readings = self.sets.get(set);
        budget.spend(readings.len() as u64)?;
        let mut any = false;
        for (position, continuation) in readings {
            if self.rules.symbols.get(*position as usize).is_some_and(|symbol| fits(&self.rules, *symbol)) {
                self.follower.add((position + 1, *continuation));
                any = true;
            }
        }
        if any { self.follow(budget) } else { Ok(DEAD) }
    }

    /// The state after a token matched by references to it: `fits` says which ones.
    pub(crate) fn by_reference(
        &mut self,
        state: StateId,
        fits: impl Fn(Symbol) -> bool,
        budget: &mut Budget<'_>,
    ) -> Result<StateId, Error> {
        match self.states[state as usize] {
            State { set, node: None } => self.advance(set, |_, symbol| fits(symbol), budget),
            State { .. } => Ok(DEAD),
        }
    }

    /// How much is remembered, in units of about eight bytes.
    pub(crate) fn size(&self) -> usize {
        self.continuations.size() + self.sets.size() + 4 * self.states.len() + self.table.len() / 2
    }
}

fn matches(rules: &Rules, symbol: Symbol, character: u32) -> bool {
    matches!(symbol, Symbol::Characters(set) if rules.sets[set as usize].contains(character))
}
