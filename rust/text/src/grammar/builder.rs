//! Collects rules while they are read, until all of them are known and can be checked.

use std::rc::Rc;

use hashbrown::HashMap;

use super::characters::Characters;
use super::rules::{Rules, Symbol, TokenReference};
use super::{MOST_SYMBOLS, recursion};
use crate::Error;
use crate::error::Headroom;

/// Maximum memory in bytes per symbol while rules are read and checked: a repetition is a separate rule for four of them.
const SYMBOL_BYTES: usize = 256;

/// Rules while they are read.
pub(crate) struct Builder {
    /// The alternatives of each rule, once it is defined.
    rules: Vec<Option<Vec<Vec<Symbol>>>>,
    /// For each rule, the rule in the grammar's text that it belongs to.
    names: Vec<Rc<str>>,
    named: HashMap<Rc<str>, u32>,
    sets: Vec<Characters>,
    set_numbers: HashMap<Characters, u32>,
    references: Vec<TokenReference>,
    reference_numbers: HashMap<TokenReference, u32>,
    /// Total number of symbols.
    size: usize,
    headroom: Headroom,
}

impl Builder {
    /// Creates a builder for a grammar whose text has `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Result<Self, Error> {
        let mut headroom = Headroom::new(0);
        headroom.take(bytes.saturating_mul(SYMBOL_BYTES / 4))?;
        Ok(Self {
            rules: Vec::new(),
            names: Vec::new(),
            named: HashMap::new(),
            sets: Vec::new(),
            set_numbers: HashMap::new(),
            references: Vec::new(),
            reference_numbers: HashMap::new(),
            size: 0,
            headroom,
        })
    }

    /// The index of the rule with this name.
    pub(crate) fn rule(&mut self, name: &Rc<str>) -> u32 {
        if let Some(rule) = self.named.get(name) {
            return *rule;
        }
        let rule = self.own_rule(name);
        self.named.insert(Rc::clone(name), rule);
        rule
    }

    /// Creates a rule for a part of the rule `name`.
    pub(crate) fn own_rule(&mut self, name: &Rc<str>) -> u32 {
        self.rules.push(None);
        self.names.push(Rc::clone(name));
        self.rules.len() as u32 - 1
    }

    /// Defines what a rule stands for. A second definition replaces the first, as in llama.cpp.
    pub(crate) fn define(&mut self, rule: u32, alternatives: Vec<Vec<Symbol>>) {
        self.rules[rule as usize] = Some(alternatives);
    }

    pub(crate) fn characters(&mut self, set: Characters) -> Symbol {
        let number = *self.set_numbers.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            self.sets.len() as u32 - 1
        });
        Symbol::Characters(number)
    }

    /// The index of a reference to a token.
    pub(crate) fn reference(&mut self, reference: TokenReference) -> u32 {
        *self.reference_numbers.entry(reference).or_insert_with_key(|reference| {
            self.references.push(reference.clone());
            self.references.len() as u32 - 1
        })
    }

    /// Counts symbols that are about to be created.
    pub(crate) fn count(&mut self, symbols: usize) -> Result<(), Error> {
        self.size = self.size.saturating_add(symbols);
        if self.size > MOST_SYMBOLS {
            return Err(Error::Grammar(format!(
                "the grammar has more than {MOST_SYMBOLS} symbols with its repetitions written out; make the numbers in \
                 braces smaller"
            )));
        }
        self.headroom.take(symbols.saturating_mul(SYMBOL_BYTES))
    }

    /// Checks the rules and returns them, with `root` as the rule for the whole text.
    pub(crate) fn finish(self, root: &str) -> Result<Rules, Error> {
        let Some(start) = self.named.get(root).copied() else {
            return Err(Error::Grammar(format!(
                "the grammar has no rule called '{root}', with which its texts begin; expected a line `{root} ::= ...`"
            )));
        };
        let mut rules = Rules {
            symbols: Vec::new(),
            starts: Vec::new(),
            bounds: vec![0],
            sets: self.sets,
            references: self.references,
            root: start,
            ranks: Vec::new(),
        };
        for (alternatives, name) in self.rules.into_iter().zip(&self.names) {
            let Some(alternatives) = alternatives else {
                return Err(Error::Grammar(format!(
                    "the rule '{name}' is used but not defined; expected a line `{name} ::= ...`"
                )));
            };
            for sequence in alternatives {
                rules.starts.push(rules.symbols.len() as u32);
                rules.symbols.extend(sequence);
                rules.symbols.push(Symbol::End);
            }
            rules.bounds.push(rules.starts.len() as u32);
        }
        rules.ranks = recursion::ranks(&rules, &self.names)?;
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules made for repetitions share the name of the rule that they belong to, however long it is.
    #[test]
    fn a_long_name_is_stored_once() {
        let name = "n".repeat(200_000);
        let rules =
            Rules::parse(&format!("root ::= {name}\n{name} ::= {}", "\"a\"{0,2000} ".repeat(20)), "root").unwrap();
        assert_eq!(rules.count(), 40_002);
    }
}
