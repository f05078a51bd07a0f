//! The rules of a grammar, in the form that the matcher follows.

use std::fmt;

use super::characters::Characters;

/// A position in the rules: the index of a symbol.
pub(crate) type Position = u32;

/// The symbol at a position in the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// The end of an alternative.
    End,
    /// One character of the set with this index.
    Characters(u32),
    /// A text of the rule with this index.
    Rule(u32),
    /// The token of the reference with this index.
    Token(u32),
    /// Any token except that of the reference with this index.
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
    /// The start positions of the alternatives: those of rule r are `starts[bounds[r]..bounds[r + 1]]`.
    pub(crate) starts: Vec<Position>,
    pub(crate) bounds: Vec<u32>,
    pub(crate) sets: Vec<Characters>,
    pub(crate) references: Vec<TokenReference>,
    pub(crate) root: u32,
    /// Rules that may call each other at the same place in the text have equal ranks; otherwise a called rule has a
    /// lower rank.
    pub(crate) ranks: Vec<u32>,
}

impl Rules {
    /// The tokens that the grammar names, in the order in which a [`super::Matcher`] expects their ids.
    pub fn references(&self) -> &[TokenReference] {
        &self.references
    }

    /// Number of rules, including those for groups and repetitions.
    pub(crate) fn count(&self) -> usize {
        self.bounds.len() - 1
    }

    pub(crate) fn alternatives(&self, rule: u32) -> &[Position] {
        &self.starts[self.bounds[rule as usize] as usize..self.bounds[rule as usize + 1] as usize]
    }

    /// The symbols of an alternative, without its end marker.
    pub(crate) fn sequence(&self, start: Position) -> impl Iterator<Item = (Position, Symbol)> {
        let symbols = self.symbols[start as usize..].iter().take_while(|symbol| **symbol != Symbol::End);
        symbols.enumerate().map(move |(place, symbol)| (start + place as u32, *symbol))
    }
}
