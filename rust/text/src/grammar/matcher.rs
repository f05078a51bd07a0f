//! A grammar and a single text written under it, token by token.

use std::sync::Arc;

use hashbrown::HashMap;

use super::automaton::{Automaton, Compiled, DEAD, StateId};
use super::marks::{mark, mark_all};
use super::rules::{Rules, Symbol};
use super::trie::Trie;
use super::{Budget, TokenReference};
use crate::Error;
use crate::error::shown;

/// Number of masks kept: inside a string or a comment, every token returns to the same state.
const KEPT_MASKS: usize = 32;

/// Follows a text under a grammar and says which tokens may come next.
pub struct Matcher {
    compiled: Compiled,
    vocabulary: Arc<Trie>,
    /// The token id for each reference in the grammar.
    references: Vec<u32>,
    automaton: Automaton,
    /// The state at the beginning of a text, as long as the automaton knows it.
    first: Option<StateId>,
    /// The current states: usually one, but more if a token is half a character in one reading and whole in another.
    current: Vec<StateId>,
    /// Whether a token that ends the text has been consumed.
    ended: bool,
    masks: HashMap<StateId, Arc<Vec<u64>>>,
    /// The size of the automaton after it was last reduced.
    reduced_to: usize,
}

impl Matcher {
    /// `references` are the ids of the tokens that the grammar names, in the order of [`Rules::references`].
    ///
    /// # Errors
    /// [`Error::Argument`] if `references` has the wrong length; [`Error::Grammar`] if an id is outside the vocabulary
    /// or the grammar has too many readings; [`Error::Cancelled`]; [`Error::Memory`].
    pub fn new(
        rules: Arc<Rules>,
        vocabulary: Arc<Trie>,
        references: &[u32],
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let named = rules.references();
        if named.len() != references.len() {
            let message = format!("{} tokens, but the grammar names {}", references.len(), named.len());
            return Err(Error::Argument(message));
        }
        for (reference, id) in named.iter().zip(references) {
            if *id as usize >= vocabulary.size() {
                return Err(Error::Grammar(unknown_token(reference, vocabulary.size())));
            }
        }
        let compiled = Compiled::new(rules)?;
        let (automaton, first) = Automaton::new(&compiled, &mut Budget::new(interrupted))?;
        Ok(Self {
            compiled,
            vocabulary,
            references: references.to_vec(),
            automaton,
            first: Some(first),
            current: vec![first],
            ended: false,
            masks: HashMap::new(),
            reduced_to: 0,
        })
    }

    /// Begins another text. What the last text taught about the grammar is kept, unless it has grown too large.
    pub fn restart(&mut self, interrupted: &dyn Fn() -> bool) -> Result<(), Error> {
        let first = match self.first {
            Some(first) if self.automaton.size() <= Automaton::MANY => first,
            _ => {
                let (automaton, first) = Automaton::new(&self.compiled, &mut Budget::new(interrupted))?;
                (self.automaton, self.reduced_to) = (automaton, 0);
                self.masks.clear();
                first
            }
        };
        (self.first, self.current, self.ended) = (Some(first), vec![first], false);
        Ok(())
    }

    /// Whether the text so far is a complete text of the grammar.
    pub fn accepting(&self) -> bool {
        self.current.iter().any(|state| self.automaton.may_end(*state))
    }

    /// Whether the text is a complete text of the grammar and only a token that ends it may come next.
    pub fn stopped(&mut self, interrupted: &dyn Fn() -> bool) -> Result<bool, Error> {
        if self.ended || !self.accepting() {
            return Ok(self.ended);
        }
        let budget = &mut Budget::new(interrupted);
        for state in self.current.clone() {
            let mask = self.mask(state, budget)?;
            let ends = |id: u32| self.vocabulary.is_end(id);
            let mut set = (0..64 * mask.len() as u32).filter(|id| mask[*id as usize / 64] >> (id % 64) & 1 != 0);
            if set.any(|id| !ends(id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Continues the text with a token. An error leaves the matcher unchanged.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such token; [`Error::Grammar`] if the token is not allowed or the text has
    /// ended; [`Error::Cancelled`]; [`Error::Memory`].
    pub fn consume(&mut self, id: u32, interrupted: &dyn Fn() -> bool) -> Result<(), Error> {
        if id as usize >= self.vocabulary.size() {
            let message = format!("token {id}, but the vocabulary has {} tokens", self.vocabulary.size());
            return Err(Error::Argument(message));
        }
        if self.ended {
            return Err(Error::Grammar("the text has ended; no token can follow".to_owned()));
        }
        self.forget_what_is_left_behind()?;
        let budget = &mut Budget::new(interrupted);
        let is_end = self.vocabulary.is_end(id);
        let mut found = Vec::new();
        for state in self.current.clone() {
            if !is_end {
                let text = self.vocabulary.text(id);
                found.push(if text.is_empty() { DEAD } else { walk(&mut self.automaton, state, text, budget)? });
            }
            let (references, other) = (&self.references, self.vocabulary.is_other(id));
            let fits = |symbol| match symbol {
                Symbol::Token(reference) => references[reference as usize] == id,
                Symbol::OtherToken(reference) => references[reference as usize] != id && other,
                _ => false,
            };
            found.push(self.automaton.by_reference(state, fits, budget)?);
        }
        found.retain(|state| *state != DEAD);
        if is_end && self.accepting() {
            self.ended = true;
        } else if found.is_empty() {
            return Err(Error::Grammar(self.not_allowed(id)));
        } else {
            self.current = self.automaton.joined(&found)?;
            // A token that ends texts also ends this one if the grammar itself asks for it.
            self.ended = is_end;
        }
        Ok(())
    }

    /// Continues the text with these bytes, whatever their tokens are. Returns false if the grammar forbids that; the
    /// matcher is then unchanged.
    pub fn feed(&mut self, text: &[u8], interrupted: &dyn Fn() -> bool) -> Result<bool, Error> {
        self.forget_what_is_left_behind()?;
        let budget = &mut Budget::new(interrupted);
        let mut found = Vec::new();
        if !self.ended {
            for state in self.current.clone() {
                found.push(walk(&mut self.automaton, state, text, budget)?);
            }
        }
        found.retain(|state| *state != DEAD);
        let allowed = !found.is_empty();
        if allowed {
            self.current = self.automaton.joined(&found)?;
        }
        Ok(allowed)
    }

    /// The tokens that may come next, one bit per id: bit id mod 64 of word id / 64.
    ///
    /// # Errors
    /// [`Error::Grammar`] if no token may come next; [`Error::Cancelled`]; [`Error::Memory`].
    pub fn allowed(&mut self, interrupted: &dyn Fn() -> bool) -> Result<Arc<Vec<u64>>, Error> {
        let words = self.vocabulary.size().div_ceil(64);
        if self.ended {
            let mut bits = vec![0; words];
            mark_all(&self.vocabulary.ends, &mut bits);
            return Ok(Arc::new(bits));
        }
        let budget = &mut Budget::new(interrupted);
        let mut joined: Option<Arc<Vec<u64>>> = None;
        for state in self.current.clone() {
            let mask = self.mask(state, budget)?;
            joined = Some(match joined {
                None => mask,
                Some(other) => Arc::new(other.iter().zip(&*mask).map(|(one, other)| one | other).collect()),
            });
        }
        let found = joined.unwrap_or_default();
        if found.iter().any(|word| *word != 0) {
            return Ok(found);
        }
        let why = if self.accepting() {
            "the text is complete under the grammar, but the vocabulary has no token that ends a text"
        } else {
            "no token of the vocabulary goes on with the text as the grammar wants, and the text may not end here; check \
             that the grammar can be fulfilled, with characters and tokens that the vocabulary can write"
        };
        Err(Error::Grammar(why.to_owned()))
    }

    fn mask(&mut self, state: StateId, budget: &mut Budget<'_>) -> Result<Arc<Vec<u64>>, Error> {
        if let Some(mask) = self.masks.get(&state) {
            return Ok(Arc::clone(mask));
        }
        let Self { automaton, vocabulary, references, .. } = self;
        let mut bits = vec![0; vocabulary.size().div_ceil(64)];
        mark(automaton, vocabulary, state, &mut bits, budget)?;
        if automaton.may_end(state) {
            mark_all(&vocabulary.ends, &mut bits);
        }
        let mut excluded: Option<u32> = None;
        let mut all = false;
        let mut named = Vec::new();
        for symbol in automaton.tokens(state) {
            match symbol {
                Symbol::Token(reference) => named.push(references[reference as usize]),
                Symbol::OtherToken(reference) => {
                    // Two references to different tokens together exclude none.
                    let id = references[reference as usize];
                    all |= excluded.is_some_and(|known| known != id);
                    excluded = Some(id);
                }
                _ => {}
            }
        }
        if let Some(id) = excluded {
            let was_set = bits[id as usize / 64] >> (id % 64) & 1 != 0;
            bits.iter_mut().zip(&vocabulary.others).for_each(|(word, others)| *word |= others);
            if !all && !was_set {
                bits[id as usize / 64] &= !(1 << (id % 64));
            }
        }
        mark_all(&named, &mut bits);
        if self.masks.len() >= KEPT_MASKS {
            self.masks.clear();
        }
        let mask = Arc::new(bits);
        self.masks.insert(state, Arc::clone(&mask));
        Ok(mask)
    }

    fn forget_what_is_left_behind(&mut self) -> Result<(), Error> {
        if self.automaton.size() > 2 * self.reduced_to.max(Automaton::MANY) {
            let (automaton, current) = self.automaton.reduced(&self.compiled, &self.current)?;
            (self.automaton, self.current, self.first) = (automaton, current, None);
            self.masks.clear();
            self.reduced_to = self.automaton.size();
        }
        Ok(())
    }

    fn not_allowed(&self, id: u32) -> String {
        let text = self.vocabulary.text(id);
        let token = if self.vocabulary.is_end(id) {
            format!("token {id}, which ends a text,")
        } else if text.is_empty() {
            format!("token {id}, which has no text,")
        } else {
            format!("token {id} ({})", shown(text))
        };
        format!("{token} is not what the grammar wants next; take one whose logit is not minus infinity")
    }
}

/// The message for a reference to a token that is not in the vocabulary.
fn unknown_token(reference: &TokenReference, size: usize) -> String {
    format!("the grammar names the token {reference}, but the ids of the vocabulary end at {}", size.saturating_sub(1))
}

fn walk(automaton: &mut Automaton, mut state: StateId, text: &[u8], budget: &mut Budget<'_>) -> Result<StateId, Error> {
    for byte in text {
        state = automaton.next(state, *byte, budget)?;
        if state == DEAD {
            break;
        }
    }
    Ok(state)
}
