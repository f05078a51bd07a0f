//! WordPiece vocabularies (`tokenizer.ggml.model` = `bert`): a word is cut, from left to right, into the longest tokens
//! available (Devlin et al. 2019, arXiv:1810.04805; Wu et al. 2016, arXiv:1609.08144, section 4.1).
//!
//! In a GGUF file, U+2581 marks the beginning of a word, and continuations have no `##` before them. Cleaning and
//! cutting into words follow llama.cpp, which differs from the `tokenizers` library in corner cases: words may be of
//! any length (not 100 characters); only the first part of a decomposed character counts, and all marks are treated as
//! accents (only the first letter of a Hangul syllable is left, and the spacing vowel signs of Indic scripts are
//! dropped); and U+000B, U+000C and U+0085 separate words instead of vanishing.

use crate::Error;
use crate::characters::{CharacterSet, base};
use crate::prefixes::Prefixes;
use crate::sentence_piece::SPACE;
use crate::utf8::character_length;
use crate::vocabulary::Vocabulary;

/// How text is cleaned before it is cut.
#[derive(Clone, Copy)]
pub(crate) struct Cleaning {
    /// Whether letters are lowercased.
    pub(crate) lowercase: bool,
    /// Whether accents are removed from letters.
    pub(crate) strip_accents: bool,
}

/// The tokens of a vocabulary, and the rules for cutting text into words.
pub(crate) struct WordPieces {
    tokens: Prefixes,
    unknown: Option<u32>,
    cleaning: Cleaning,
    accents: CharacterSet,
    control: CharacterSet,
    /// Characters that are separate words.
    single: CharacterSet,
}

/// Punctuation, ASCII symbols and Chinese characters. The third block from the end begins at U+2B920, as in the
/// `tokenizers` library, rather than at U+2B820 as in the original.
const SINGLE: &str = concat!(
    r"[\p{P}$+<=>^`|~\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}",
    r"\x{2B740}-\x{2B81F}\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
);

impl WordPieces {
    /// `unknown` stands for a word that cannot be written in tokens.
    pub(crate) fn new(vocabulary: &Vocabulary, unknown: Option<u32>, cleaning: Cleaning) -> Result<Self, Error> {
        Ok(Self {
            tokens: Prefixes::new(vocabulary, |_| true)?,
            unknown,
            cleaning,
            accents: CharacterSet::of(r"\p{M}")?,
            control: CharacterSet::of(r"[\p{Cc}\p{Cf}\p{Co}]")?,
            single: CharacterSet::of(SINGLE)?,
        })
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, text: &[u8], work: &mut Work, ids: &mut Vec<u32>) -> Result<(), Error> {
        let mut at = 0;
        work.clear();
        while at < text.len() {
            let length = character_length(&text[at..]);
            let character = std::str::from_utf8(&text[at..at + length]).ok().and_then(|text| text.chars().next());
            at += length;
            // Invalid UTF-8 would become U+FFFD, which is dropped.
            let Some(mut character) = character else { continue };
            if self.cleaning.strip_accents {
                character = base(character);
            }
            if character.is_whitespace() {
                self.end_word(work, ids)?;
                continue;
            }
            if character == char::REPLACEMENT_CHARACTER
                || self.control.contains(character)
                || (self.cleaning.strip_accents && self.accents.contains(character))
            {
                continue;
            }
            let is_single = self.single.contains(character);
            if self.cleaning.lowercase {
                // U+0130 becomes two characters, the second of which is an accent.
                character = character.to_lowercase().next().unwrap_or(character);
            }
            if is_single {
                self.end_word(work, ids)?;
                work.push(character)?;
                self.end_word(work, ids)?;
            } else {
                work.push(character)?;
            }
        }
        self.end_word(work, ids)
    }

    /// Appends the ids of the collected word, or the unknown token for all of it.
    fn end_word(&self, work: &mut Work, ids: &mut Vec<u32>) -> Result<(), Error> {
        let word = &work.word[..];
        if word.len() == SPACE.len() {
            return Ok(());
        }
        let known = ids.len();
        let mut at = 0;
        while at < word.len() {
            let Some((length, id)) = self.tokens.of(&word[at..]).last() else { break };
            ids.try_reserve(1)?;
            ids.push(id);
            at += length;
        }
        if at < word.len() {
            ids.truncate(known);
            let Some(unknown) = self.unknown else {
                return Err(Error::Unsupported(format!(
                    "the vocabulary has no tokens for {} and no unknown token",
                    crate::error::shown(&word[SPACE.len()..])
                )));
            };
            ids.try_reserve(1)?;
            ids.push(unknown);
        }
        work.clear();
        Ok(())
    }
}

/// Working memory of one call: a word, with the mark of its beginning.
#[derive(Default)]
pub(crate) struct Work {
    word: Vec<u8>,
}

impl Work {
    fn clear(&mut self) {
        self.word.clear();
        self.word.extend_from_slice(SPACE.as_bytes());
    }

    fn push(&mut self, character: char) -> Result<(), Error> {
        self.word.try_reserve(character.len_utf8())?;
        self.word.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}
