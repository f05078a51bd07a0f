//! SentencePiece vocabularies (`tokenizer.ggml.model` = `llama`): two neighbours are joined if the result is a token,
//! the token with the highest score first (Kudo and Richardson 2018, model type BPE, identity normalization).

use crate::Error;
use crate::merging::{Join, MergeBuffers, Pairs, Symbol, merge};
use crate::utf8::character_length;
use crate::vocabulary::Vocabulary;

/// The character that stands for a space.
pub(crate) const SPACE: &str = "\u{2581}";

/// The symbol of a character that is not a token.
const NO_TOKEN: u32 = u32::MAX;

/// The scores of a vocabulary and its byte tokens.
pub(crate) struct SentencePieces {
    /// One per token; lower is more urgent.
    priorities: Vec<u32>,
    /// The token of each byte, used for characters without a token.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
    /// Whether no token continues past a space that follows something else, so that words can be merged one by one.
    words_are_separate: bool,
}

impl SentencePieces {
    /// `scores` has one value per token, or is absent; `unknown` stands for characters that cannot be written in bytes.
    pub(crate) fn new(vocabulary: &Vocabulary, scores: Option<&[f32]>, unknown: Option<u32>) -> Result<Self, Error> {
        let count = vocabulary.len();
        let scores = vocabulary.checked_scores(scores)?;
        let mut priorities = Vec::new();
        priorities.try_reserve_exact(count)?;
        priorities.extend((0..count).map(|id| priority(scores.map_or(0.0, |scores| scores[id]))));
        let bytes = (0..=u8::MAX)
            .map(|byte| vocabulary.find(format!("<0x{byte:02X}>").as_bytes()).or_else(|| vocabulary.find(&[byte])))
            .collect();
        let words_are_separate = (0..count as u32).all(|id| !word_boundaries(vocabulary.bytes(id)).any(|_| true));
        Ok(Self { priorities, bytes, unknown, words_are_separate })
    }

    /// Appends the ids of `text`, with a space put before it if `space_first`.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &[u8],
        space_first: bool,
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let mut escaped = std::mem::take(&mut work.escaped);
        escaped.clear();
        escaped.try_reserve(text.len() + SPACE.len())?;
        if space_first {
            escaped.extend_from_slice(SPACE.as_bytes());
        }
        for (number, part) in text.split(|&byte| byte == b' ').enumerate() {
            escaped.try_reserve(part.len() + SPACE.len())?;
            if number > 0 {
                escaped.extend_from_slice(SPACE.as_bytes());
            }
            escaped.extend_from_slice(part);
        }
        let mut start = 0;
        if self.words_are_separate {
            for boundary in word_boundaries(&escaped) {
                self.encode_word(vocabulary, &escaped[start..boundary], work, ids)?;
                start = boundary;
            }
        }
        self.encode_word(vocabulary, &escaped[start..], work, ids)?;
        work.escaped = escaped;
        Ok(())
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &[u8],
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        work.symbols.clear();
        let mut start = 0;
        while start < word.len() {
            let length = character_length(&word[start..]);
            let id = vocabulary.find(&word[start..start + length]).unwrap_or(NO_TOKEN);
            work.symbols.try_reserve(1)?;
            work.symbols.push(Symbol { start: start as u32, length: length as u32, id });
            start += length;
        }
        merge(&Joined { pieces: self, vocabulary }, word, &mut work.symbols, &mut work.scratch)?;
        for symbol in &work.symbols {
            ids.try_reserve(symbol.length as usize)?;
            if symbol.id != NO_TOKEN {
                ids.push(symbol.id);
                continue;
            }
            let bytes = &word[symbol.start as usize..(symbol.start + symbol.length) as usize];
            if bytes.iter().all(|&byte| self.bytes[usize::from(byte)].is_some()) {
                ids.extend(bytes.iter().filter_map(|&byte| self.bytes[usize::from(byte)]));
            } else if let Some(unknown) = self.unknown {
                ids.push(unknown);
            } else {
                return Err(Error::Unsupported(format!(
                    "the vocabulary has no token for {:?}: neither its bytes nor an unknown token",
                    String::from_utf8_lossy(bytes)
                )));
            }
        }
        Ok(())
    }
}

/// Working memory of one call.
#[derive(Default)]
pub(crate) struct Work {
    escaped: Vec<u8>,
    symbols: Vec<Symbol>,
    scratch: MergeBuffers,
}

struct Joined<'a> {
    pieces: &'a SentencePieces,
    vocabulary: &'a Vocabulary,
}

impl Pairs for Joined<'_> {
    #[inline]
    fn join(&self, text: &[u8], left: Symbol, right: Symbol) -> Option<Join> {
        let id = self.vocabulary.find(&text[left.start as usize..(right.start + right.length) as usize])?;
        Some(Join { priority: self.pieces.priorities[id as usize], id })
    }
}

/// Maps scores in descending order to integers in ascending order.
fn priority(score: f32) -> u32 {
    // Positive and negative zero are the same score.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !bits & 0x7FFF_FFFF }
}

/// Positions of spaces that follow something else.
fn word_boundaries(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let space = SPACE.as_bytes();
    (1..text.len())
        .filter(move |&at| text[at] == space[0] && text[at..].starts_with(space) && !text[..at].ends_with(space))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::tests::array;

    #[test]
    fn higher_scores_come_first() {
        let scores = [f32::INFINITY, 3.5, 1.0, 0.0, -1e-40, -1.0, -1000.0, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|pair| priority(pair[0]) < priority(pair[1])));
        assert_eq!(priority(0.0), priority(-0.0));
    }

    #[test]
    fn words_begin_at_the_first_of_their_spaces() {
        let text = "\u{2581}\u{2581}ab\u{2581}c\u{2581}\u{2581}";
        assert_eq!(word_boundaries(text.as_bytes()).collect::<Vec<_>>(), [8, 12]);
        assert_eq!(word_boundaries(b"ab").count(), 0);
    }

    #[test]
    fn words_merge_the_same_together_and_apart() {
        let tokens = ["<unk>", "\u{2581}", "a", "b", "\u{2581}a", "ab", "\u{2581}\u{2581}", "\u{2581}ab"];
        let scores = [0.0, -1.0, -1.0, -1.0, -2.0, -1.5, -3.0, -1.2];
        let (data, index) = array(&tokens);
        let vocabulary = Vocabulary::new(&data, &index, None, false).unwrap();
        let apart = SentencePieces::new(&vocabulary, Some(&scores), Some(0)).unwrap();
        assert!(apart.words_are_separate);
        let together = SentencePieces { words_are_separate: false, ..apart };
        let apart = SentencePieces::new(&vocabulary, Some(&scores), Some(0)).unwrap();
        for text in ["ab  ab a", "   ", "a b ab   aabb", "x ab", ""] {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            apart.encode(&vocabulary, text.as_bytes(), true, &mut Work::default(), &mut one).unwrap();
            together.encode(&vocabulary, text.as_bytes(), true, &mut Work::default(), &mut other).unwrap();
            assert_eq!(one, other, "{text:?}");
        }
    }
}
