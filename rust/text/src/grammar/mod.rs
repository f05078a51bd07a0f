//! Grammars in GBNF, the notation of llama.cpp, and which tokens of a vocabulary may come next under one.
//!
//! `notation` reads the text and gives a `builder` what it finds: `rules` of sets of characters, references to rules
//! and references to tokens. `recursion` refuses rules that would call themselves without end. `stacks` follows all
//! readings of a text at once: a reading is a position in the rules and what is to be done after its rule, and readings
//! share what they have in common (a graph-structured stack; Tomita 1985, Scott and Johnstone 2010), so that ambiguity
//! costs little. `utf8` turns sets of characters into an automaton over bytes, `automaton` remembers which byte leads
//! from which readings to which, and `matcher` walks it over the `trie` of the vocabulary.

mod automaton;
mod builder;
mod characters;
mod marks;
mod matcher;
mod notation;
mod recursion;
mod rules;
mod stacks;
mod trie;
mod utf8;

pub use marks::forbid_others;
pub use matcher::Matcher;
pub use rules::{Rules, TokenReference};
pub use trie::Trie;

use crate::Error;
use crate::error::Headroom;

/// The longest grammar, in bytes.
pub const LONGEST: usize = 1 << 20;
/// How deep parentheses may be nested.
pub const DEEPEST: usize = 128;
/// The highest number in `{m,n}`, as in llama.cpp. A higher `n` stands for no limit, a higher `m` is refused.
pub const MOST_REPETITIONS: u64 = 2000;
/// The most symbols of all rules together, repetitions written out.
pub const MOST_SYMBOLS: usize = 1 << 20;
/// The most readings that are looked at for one token or one mask.
pub const MOST_READINGS: u64 = 1 << 23;
/// The most readings and open rules that are remembered, all sets of them together.
pub const MOST_REMEMBERED: usize = 1 << 22;

/// What one call may do: a number of readings, and until when.
pub(crate) struct Budget<'a> {
    left: u64,
    headroom: Headroom,
    interrupted: &'a dyn Fn() -> bool,
}

impl<'a> Budget<'a> {
    /// How many readings are looked at between two questions whether to stop.
    const PIECE: u64 = 1024;
    /// Bytes that a reading takes at most while it is followed.
    const READING_BYTES: usize = 64;
    /// What a call may use unproved: much less than the reserve, which is whole when it begins.
    const UNPROVED: usize = 1 << 20;

    pub(crate) fn new(interrupted: &'a dyn Fn() -> bool) -> Self {
        Self { left: MOST_READINGS, headroom: Headroom::new(Self::UNPROVED), interrupted }
    }

    /// Counts `readings`.
    pub(crate) fn spend(&mut self, readings: u64) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(readings) else {
            return Err(Error::Grammar(format!(
                "the text can be read in too many ways under this grammar: more than {MOST_READINGS} readings for one \
                 token; write it with fewer repetitions inside repetitions"
            )));
        };
        if left / Self::PIECE != self.left / Self::PIECE {
            self.look()?;
        }
        self.left = left;
        self.headroom.take((readings as usize).saturating_mul(Self::READING_BYTES))
    }

    /// Stops the work if it is to be stopped.
    pub(crate) fn look(&self) -> Result<(), Error> {
        if (self.interrupted)() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
