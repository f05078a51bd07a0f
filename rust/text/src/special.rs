//! Special tokens in text: the text is cut at them before anything else happens.
//!
//! Longer tokens are matched first, over the whole text; tokens of equal length in the order of their ids, then from
//! left to right.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::Error;
use crate::error::needs;
use crate::places::Places;
use crate::vocabulary::{Kind, Vocabulary};

/// Maximum total size in bytes of all special tokens: the automaton that finds them takes some forty times as much.
const MOST_BYTES: usize = 4 << 20;

/// Bytes of the automaton per byte of the tokens, while it is built.
const FINDER_BYTES: usize = 80;
/// Bytes of lists per token, while the automaton is built.
const LISTS_BYTES: usize = 64;
/// Fixed overhead of any automaton, in bytes.
const SPARE_BYTES: usize = 4 << 20;

/// A part of the text after cutting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Plain text.
    Text(&'a [u8]),
    /// A special token.
    Token(u32),
}

/// Finds the special tokens of a vocabulary in text.
pub(crate) struct SpecialTokens {
    finder: Option<AhoCorasick>,
    tokens: Vec<Special>,
}

struct Special {
    id: u32,
    length: usize,
    /// Matched even if control tokens are not wanted.
    always: bool,
    /// Whether white space after it is part of it.
    strips_right: bool,
    /// The longest other special token that is a prefix of this one.
    shorter: Option<u32>,
}

impl SpecialTokens {
    /// Collects control, unknown and user-defined tokens. `strips_right` says after which of them white space is dropped.
    pub(crate) fn new(vocabulary: &Vocabulary, strips_right: &dyn Fn(u32) -> bool) -> Result<Self, Error> {
        let is_special = |id: &u32| {
            matches!(vocabulary.kind(*id), Kind::Control | Kind::Unknown | Kind::UserDefined)
                && !vocabulary.bytes(*id).is_empty()
        };
        let mut ids: Vec<u32> = Vec::new();
        for id in (0..vocabulary.len() as u32).filter(is_special) {
            ids.try_reserve(1)?;
            ids.push(id);
        }
        if ids.is_empty() {
            return Ok(Self { finder: None, tokens: Vec::new() });
        }
        let bytes: usize = ids.iter().map(|&id| vocabulary.bytes(id).len()).sum();
        if bytes > MOST_BYTES {
            return Err(Error::Unsupported(format!(
                "the special tokens have {bytes} bytes altogether; at most {MOST_BYTES} are supported"
            )));
        }
        needs(FINDER_BYTES * bytes + ids.len() * (size_of::<Special>() + LISTS_BYTES) + SPARE_BYTES)?;
        // In sorted order, the prefixes of a text come before it: they form the stack of open texts.
        let mut shorter = vec![None; ids.len()];
        let mut sorted: Vec<u32> = (0..ids.len() as u32).collect();
        sorted.sort_by_key(|&number| (vocabulary.bytes(ids[number as usize]), Reverse(number)));
        let mut open: Vec<u32> = Vec::new();
        for number in sorted {
            let bytes = vocabulary.bytes(ids[number as usize]);
            while open.last().is_some_and(|&other| !bytes.starts_with(vocabulary.bytes(ids[other as usize]))) {
                open.pop();
            }
            shorter[number as usize] = open.last().copied();
            open.push(number);
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(ids.iter().map(|&id| vocabulary.bytes(id)))
            .map_err(|error| Error::Unsupported(format!("too many or too long special tokens: {error}")))?;
        let tokens = ids.iter().zip(shorter).map(|(&id, shorter)| Special {
            id,
            length: vocabulary.bytes(id).len(),
            always: vocabulary.kind(id) == Kind::UserDefined,
            strips_right: strips_right(id),
            shorter,
        });
        Ok(Self { finder: Some(finder), tokens: tokens.collect() })
    }

    /// Calls `part` for every part of `text` in order. Without `control`, only user-defined tokens are cut out.
    pub(crate) fn cut<'a>(
        &self,
        text: &'a [u8],
        control: bool,
        part: &mut dyn FnMut(Part<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut at = 0;
        for (start, number) in self.find(text, control)? {
            if start > at {
                part(Part::Text(&text[at..start]))?;
            }
            let special = &self.tokens[number as usize];
            part(Part::Token(special.id))?;
            at = start + special.length;
            if special.strips_right {
                at += text[at..].iter().take_while(|byte| matches!(byte, b' ' | 9..=13)).count();
            }
        }
        if at < text.len() {
            part(Part::Text(&text[at..]))?;
        }
        Ok(())
    }

    /// The special tokens to cut out, by position.
    fn find(&self, text: &[u8], control: bool) -> Result<Vec<(usize, u32)>, Error> {
        let mut taken = Vec::new();
        let Some(finder) = &self.finder else { return Ok(taken) };
        let length = |number: u32| self.tokens[number as usize].length;
        // The longest token at every position; all other tokens there are prefixes of it.
        let mut longest: Vec<(usize, u32)> = Vec::new();
        for found in finder.find_overlapping_iter(text) {
            let number = found.pattern().as_u32();
            if control || self.tokens[number as usize].always {
                longest.try_reserve(1)?;
                longest.push((found.start(), number));
            }
        }
        if longest.is_empty() {
            return Ok(taken);
        }
        longest.sort_unstable_by_key(|&(start, number)| (start, Reverse(length(number))));
        longest.dedup_by_key(|&mut (start, _)| start);
        let candidate = |start, number: u32| (length(number), Reverse(number), Reverse(start));
        let mut waiting = Vec::new();
        waiting.try_reserve_exact(longest.len())?;
        waiting.extend(longest.iter().map(|&(start, number)| candidate(start, number)));
        taken.try_reserve_exact(longest.len())?;
        drop(longest);
        let mut queue = BinaryHeap::from(waiting);
        let (mut starts, mut ends) = (Places::new(text.len())?, Places::new(text.len() + 1)?);
        while let Some((length, Reverse(number), Reverse(start))) = queue.pop() {
            let next = starts.next(start).unwrap_or(usize::MAX);
            // Inside a taken token, its end comes before the start of the next one.
            if ends.next(start + 1).is_some_and(|end| end <= next) {
                continue;
            }
            let room = next - start;
            if length <= room {
                taken.push((start, number));
                starts.mark(start);
                ends.mark(start + length);
                continue;
            }
            let mut next = self.tokens[number as usize].shorter;
            while let Some(number) = next {
                let special = &self.tokens[number as usize];
                if special.length <= room && (control || special.always) {
                    // It replaces the one that was taken out, so the queue does not grow.
                    queue.push(candidate(start, number));
                    break;
                }
                next = special.shorter;
            }
        }
        taken.sort_unstable();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::tests::array;

    fn special(texts: &[&str], kinds: &[i32]) -> SpecialTokens {
        let (data, index) = array(texts);
        let vocabulary = Vocabulary::new(&data, &index, Some(kinds), false).unwrap();
        SpecialTokens::new(&vocabulary, &|id| texts[id as usize] == "<strip>").unwrap()
    }

    fn parts(tokens: &SpecialTokens, text: &str, control: bool) -> Vec<String> {
        let mut parts = Vec::new();
        let mut collect = |part: Part<'_>| {
            parts.push(match part {
                Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Part::Token(id) => id.to_string(),
            });
            Ok(())
        };
        tokens.cut(text.as_bytes(), control, &mut collect).unwrap();
        parts
    }

    #[test]
    fn longer_tokens_come_first_wherever_they_are() {
        let tokens = special(&["ab", "abc", "cdef", "x"], &[3, 3, 3, 1]);
        assert_eq!(parts(&tokens, "abcdefx", true), ["0", "2", "x"]);
        assert_eq!(parts(&tokens, "abcabd", true), ["1", "0", "d"]);
    }

    #[test]
    fn user_defined_tokens_match_always() {
        let tokens = special(&["<c>", "<u>", "<unk>"], &[3, 4, 2]);
        assert_eq!(parts(&tokens, "a<c><u><unk>", false), ["a<c>", "1", "<unk>"]);
        assert_eq!(parts(&tokens, "a<c><u><unk>", true), ["a", "0", "1", "2"]);
    }

    #[test]
    fn white_space_is_dropped_where_asked() {
        let tokens = special(&["<strip>", "<keep>"], &[3, 3]);
        assert_eq!(parts(&tokens, "<strip> \n a<keep> b<strip> ", true), ["0", "a", "1", " b", "0"]);
    }

    /// The definition: for every token, longest first, cut all text that is left.
    fn by_definition(texts: &[String], text: &str) -> Vec<String> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&number| Reverse(texts[number].len()));
        let mut parts = vec![(text.to_owned(), false)];
        for number in order {
            let mut next = Vec::new();
            for (part, is_token) in parts {
                if is_token {
                    next.push((part, true));
                    continue;
                }
                for (count, piece) in part.split(&texts[number][..]).enumerate() {
                    if count > 0 {
                        next.push((number.to_string(), true));
                    }
                    next.push((piece.to_owned(), false));
                }
            }
            parts = next;
        }
        parts.into_iter().map(|(part, _)| part).filter(|part| !part.is_empty()).collect()
    }

    #[test]
    fn the_cuts_are_those_of_the_definition() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..500 {
            let mut word = |longest: u64| -> String {
                (0..=random(longest)).map(|_| char::from(b'a' + random(3) as u8)).collect()
            };
            let mut texts: Vec<String> = (0..6).map(|_| word(4)).collect();
            texts.sort();
            texts.dedup();
            let text = word(30);
            let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            let tokens = special(&borrowed, &vec![3; texts.len()]);
            assert_eq!(parts(&tokens, &text, true), by_definition(&texts, &text), "{texts:?} in {text:?}");
        }
    }
}
