//! The rules of a grammar, as the matcher follows them.

use std::fmt;

use hashbrown::HashMap;

use super::characters::Characters;
use super::{MOST_SYMBOLS, notation, recursion};
use crate::Error;

/// A place in the rules: the index of a symbol.
pub(crate) type Position = u32;

/// What stands at a place in the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// The alternative ends.
    End,
    /// One character of the set with this number.
    Characters(u32),
    /// A text of the rule with this number.
    Rule(u32),
    /// The token of the reference with this number.
    Token(u32),
    /// Any token but that of the reference with this number.
    OtherToken(u32),
}

/// How a grammar names a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenReference {
    /// `<[10]>`: by its id.
    Id(u32),
    /// `<think>`: by its text, brackets included.
    Text(String),
}

impl fmt::Display for TokenReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(formatter, "<[{id}]>"),
            Self::Text(text) => write!(formatter, "{text}"),
        }
    }
}

/// The rules of a grammar, checked: every rule is defined, and none calls itself without end.
pub struct Rules {
    pub(crate) symbols: Vec<Symbol>,
    /// Where the alternatives of each rule begin: those of rule r are `starts[bounds[r]..bounds[r + 1]]`.
    starts: Vec<Position>,
    bounds: Vec<u32>,
    pub(crate) sets: Vec<Characters>,
    references: Vec<TokenReference>,
    pub(crate) root: u32,
    /// Rules that may call each other at one place of the text have the same rank, and called ones a lower one.
    pub(crate) ranks: Vec<u32>,
}

impl Rules {
    /// Reads a grammar in GBNF whose texts are those of the rule `root`.
    pub fn parse(grammar: &str, root: &str) -> Result<Self, Error> {
        notation::parse(grammar)?.finish(root)
    }

    /// The tokens that the grammar names, in the order in which a [`super::Matcher`] is told their ids.
    pub fn references(&self) -> &[TokenReference] {
        &self.references
    }

    /// Number of rules, those of groups and repetitions included.
    pub(crate) fn count(&self) -> usize {
        self.bounds.len() - 1
    }

    pub(crate) fn alternatives(&self, rule: u32) -> &[Position] {
        &self.starts[self.bounds[rule as usize] as usize..self.bounds[rule as usize + 1] as usize]
    }

    /// The symbols of an alternative, without its end.
    pub(crate) fn sequence(&self, start: Position) -> impl Iterator<Item = (Position, Symbol)> {
        let symbols = self.symbols[start as usize..].iter().take_while(|symbol| **symbol != Symbol::End);
        symbols.enumerate().map(move |(place, symbol)| (start + place as u32, *symbol))
    }
}

/// Rules while they are read.
#[derive(Default)]
pub(crate) struct Builder {
    /// The alternatives of each rule, once it is defined.
    rules: Vec<Option<Vec<Vec<Symbol>>>>,
    /// The rule of the grammar's text that each rule belongs to.
    names: Vec<String>,
    named: HashMap<String, u32>,
    sets: Vec<Characters>,
    set_numbers: HashMap<Characters, u32>,
    references: Vec<TokenReference>,
    reference_numbers: HashMap<TokenReference, u32>,
    /// How many symbols there are.
    size: usize,
}

impl Builder {
    /// The number of the rule with this name.
    pub(crate) fn rule(&mut self, name: &str) -> u32 {
        if let Some(rule) = self.named.get(name) {
            return *rule;
        }
        let rule = self.own_rule(name);
        self.named.insert(name.to_owned(), rule);
        rule
    }

    /// A new rule for a part of the rule `name`.
    pub(crate) fn own_rule(&mut self, name: &str) -> u32 {
        self.rules.push(None);
        self.names.push(name.to_owned());
        self.rules.len() as u32 - 1
    }

    /// What the rule stands for. A second definition replaces the first, as in llama.cpp.
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

    /// The number of a reference to a token.
    pub(crate) fn reference(&mut self, reference: TokenReference) -> u32 {
        *self.reference_numbers.entry(reference).or_insert_with_key(|reference| {
            self.references.push(reference.clone());
            self.references.len() as u32 - 1
        })
    }

    /// Counts symbols that are about to be made.
    pub(crate) fn count(&mut self, symbols: usize) -> Result<(), Error> {
        self.size = self.size.saturating_add(symbols);
        if self.size > MOST_SYMBOLS {
            return Err(Error::Grammar(format!(
                "the grammar has more than {MOST_SYMBOLS} symbols with its repetitions written out; make the numbers in \
                 braces smaller"
            )));
        }
        Ok(())
    }

    fn finish(self, root: &str) -> Result<Rules, Error> {
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
