//! Grammars in GBNF, the notation of llama.cpp, and which tokens of a vocabulary may come next under them.
//!
//! `notation` reads the text and passes what it finds to a `builder`: `rules` made of sets of characters, references to
//! rules and references to tokens. `recursion` refuses rules that would call themselves without end. `stacks` follows
//! all readings of a text at once: a reading is a position in the rules plus what remains to be done after its rule,
//! and readings share what they have in common (a graph-structured stack; Tomita 1985, Scott and Johnstone 2010), so
//! that ambiguity costs little. `utf8` turns sets of characters into an automaton over bytes, `automaton` remembers the
//! transitions from readings to readings for each byte, and `matcher` walks it over the `trie` of the vocabulary.

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

/// Maximum length of a grammar, in bytes.
pub const LONGEST: usize = 1 << 20;
/// Maximum nesting depth of parentheses.
pub const DEEPEST: usize = 128;
/// The highest number in `{m,n}`, as in llama.cpp. A higher `n` means no limit; a higher `m` is refused.
pub const MOST_REPETITIONS: u64 = 2000;
/// Maximum number of symbols in all rules together, with repetitions written out.
pub const MOST_SYMBOLS: usize = 1 << 20;
/// Maximum number of readings considered for one token or one mask.
pub const MOST_READINGS: u64 = 1 << 23;
/// Maximum number of readings and open rules that are remembered, in all sets together.
pub const MOST_REMEMBERED: usize = 1 << 22;

/// The limits of one call: a number of readings, and cancellation.
pub(crate) struct Budget<'a> {
    left: u64,
    headroom: Headroom,
    interrupted: &'a dyn Fn() -> bool,
}

impl<'a> Budget<'a> {
    /// Number of readings considered between two checks for cancellation.
    const PIECE: u64 = 1024;
    /// Maximum memory in bytes that a reading takes while it is followed.
    const READING_BYTES: usize = 64;
    /// Bytes that a call may use without a memory check: much less than the reserve, which is full when the call begins.
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

    /// Returns an error if the work is to be cancelled.
    pub(crate) fn look(&self) -> Result<(), Error> {
        if (self.interrupted)() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
