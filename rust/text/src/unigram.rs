//! Unigram vocabularies (`tokenizer.ggml.model` = `t5`): of all ways to cut a text into tokens, the one with the
//! highest sum of scores (Kudo 2018, arXiv:1804.10959, section 3.2), found from left to right (Viterbi 1967).
//!
//! Scores are summed in f64 over the whole text, as in llama.cpp. The `tokenizers` library starts again at every word:
//! where two ways have the same sum (`--` and `-`, `-` and `--`), rounding may break the tie in one implementation and
//! not in the other. A character without a token becomes its bytes if the vocabulary has byte tokens, as in
//! SentencePiece (llama.cpp ignores these tokens), and otherwise the unknown token, one for each run of such
//! characters.

use crate::Error;
use crate::charsmap::CharsMap;
use crate::prefixes::Prefixes;
use crate::sentence_piece::SPACE;
use crate::utf8::character_length;
use crate::vocabulary::{Kind, Vocabulary};

/// How much worse a character without a token is than the worst token.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Longer texts are refused after rewriting: this is four times the longest accepted text, and only a hostile table of
/// replacements makes a text grow that much.
const LONGEST_REWRITTEN: usize = 256 << 20;

/// Marks an unknown character in the lattice.
const UNKNOWN: u32 = u32::MAX;

/// How a vocabulary treats white space.
#[derive(Clone, Copy)]
pub(crate) struct Spaces {
    /// Whether a space is put before the first word.
    pub(crate) prefix: bool,
    /// Whether runs of spaces are collapsed and trailing spaces removed.
    pub(crate) merged: bool,
}

/// The scores of a vocabulary.
pub(crate) struct Unigrams {
    tokens: Prefixes,
    scores: Vec<f64>,
    unknown_score: f64,
    unknown: Option<u32>,
    /// The token of each byte, if the vocabulary has all of them.
    bytes: Option<Vec<u32>>,
    charsmap: Option<CharsMap>,
    spaces: Spaces,
}

impl Unigrams {
    /// `scores` has one value per token, or is absent; `unknown` stands for characters without a token; `charsmap` is
    /// the table that rewrites text before it is cut.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        scores: Option<&[f32]>,
        unknown: Option<u32>,
        charsmap: Option<&[u8]>,
        spaces: Spaces,
    ) -> Result<Self, Error> {
        let count = vocabulary.len();
        let scores = vocabulary.checked_scores(scores)?;
        let score = |id: usize| scores.map_or(0.0, |scores| scores[id]);
        if let Some(id) = (0..count).find(|&id| !score(id).is_finite()) {
            return Err(Error::File(format!(
                "the score of token {id} is infinite; expected a logarithm of a probability"
            )));
        }
        let is_normal = |id: u32| vocabulary.kind(id) == Kind::Normal;
        let lowest = (0..count).filter(|&id| is_normal(id as u32)).map(score).fold(f32::MAX, f32::min);
        let mut exact = Vec::new();
        exact.try_reserve_exact(count)?;
        // Tokens that were added by hand have no probability: they are taken wherever they occur.
        let is_added = |id: usize| vocabulary.kind(id as u32) == Kind::UserDefined;
        exact.extend((0..count).map(|id| if is_added(id) { 0.0 } else { f64::from(score(id)) }));
        let byte = |byte: u8| {
            let found = vocabulary.find(format!("<0x{byte:02X}>").as_bytes());
            found.filter(|&id| vocabulary.kind(id) == Kind::Byte)
        };
        Ok(Self {
            tokens: Prefixes::new(vocabulary, |id| {
                matches!(vocabulary.kind(id), Kind::Normal | Kind::UserDefined | Kind::Unused)
            })?,
            scores: exact,
            unknown_score: f64::from(lowest - UNKNOWN_PENALTY),
            unknown,
            bytes: (0..=u8::MAX).map(byte).collect(),
            charsmap: charsmap.map(CharsMap::new).transpose()?,
            spaces,
        })
    }

    /// Whether a text on its own begins with a space that nobody wrote.
    pub(crate) fn puts_space_first(&self) -> bool {
        self.spaces.prefix || self.spaces.merged
    }

    /// Appends the ids of `text`. `space_first` says whether to put a space before the text, if the vocabulary does so
    /// at all.
    pub(crate) fn encode(
        &self,
        text: &[u8],
        space_first: bool,
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.rewrite(text, space_first, &mut work.text)?;
        self.search(&work.text, &mut work.best)?;
        work.path.clear();
        let mut end = work.text.len();
        while end > 0 {
            let Best { token, length, .. } = work.best[end];
            work.path.try_reserve(1)?;
            work.path.push((token, length));
            end -= length as usize;
        }
        let mut was_unknown = false;
        let mut start = 0;
        for &(token, length) in work.path.iter().rev() {
            let bytes = &work.text[start..start + length as usize];
            start += bytes.len();
            ids.try_reserve(bytes.len())?;
            if token != UNKNOWN {
                ids.push(token);
            } else if let Some(tokens) = &self.bytes {
                ids.extend(bytes.iter().map(|&byte| tokens[usize::from(byte)]));
            } else if let Some(unknown) = self.unknown {
                if !was_unknown {
                    ids.push(unknown);
                }
            } else {
                return Err(Error::Unsupported(format!(
                    "the vocabulary has no token for {:?}: neither its bytes nor an unknown token",
                    String::from_utf8_lossy(bytes)
                )));
            }
            was_unknown = token == UNKNOWN;
        }
        Ok(())
    }

    /// The best way to reach each position of the text where a character begins.
    fn search(&self, text: &[u8], best: &mut Vec<Best>) -> Result<(), Error> {
        best.clear();
        best.try_reserve_exact(text.len() + 1)?;
        best.resize(text.len() + 1, Best { score: f64::NEG_INFINITY, token: UNKNOWN, length: 0 });
        best[0].score = 0.0;
        let mut at = 0;
        while at < text.len() {
            let character = character_length(&text[at..]);
            let so_far = best[at].score;
            let mut is_known = false;
            for (length, token) in self.tokens.of(&text[at..]) {
                is_known |= length == character;
                best[at + length].improve(so_far + self.scores[token as usize], token, length);
            }
            if !is_known {
                best[at + character].improve(so_far + self.unknown_score, UNKNOWN, character);
            }
            at += character;
        }
        Ok(())
    }

    /// Rewrites characters by the table, replacing spaces with U+2581 and invalid UTF-8 with U+FFFD.
    fn rewrite(&self, text: &[u8], space_first: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        let mut prefix_wanted = space_first && self.spaces.prefix;
        let mut within_word = false;
        // A text that continues another one gets no space before it other than its own.
        let mut space_wanted = space_first;
        let mut at = 0;
        while at < text.len() {
            let found = match &self.charsmap {
                Some(map) => map.replacement(&text[at..])?,
                None => None,
            };
            let (length, becomes) = found.unwrap_or_else(|| {
                let length = character_length(&text[at..]);
                let character = &text[at..at + length];
                (length, if std::str::from_utf8(character).is_ok() { character } else { "\u{FFFD}".as_bytes() })
            });
            at += length;
            if out.len() + 2 * SPACE.len() * becomes.len() > LONGEST_REWRITTEN {
                return Err(Error::Argument(format!(
                    "the text becomes longer than {LONGEST_REWRITTEN} bytes when it is normalized; cut it at line ends"
                )));
            }
            out.try_reserve(2 * SPACE.len() * becomes.len())?;
            for &byte in becomes {
                if byte == b' ' {
                    within_word = false;
                    space_wanted = true;
                    if !self.spaces.merged {
                        out.extend_from_slice(SPACE.as_bytes());
                    }
                    continue;
                }
                if !within_word {
                    within_word = true;
                    if prefix_wanted || (self.spaces.merged && space_wanted) {
                        out.extend_from_slice(SPACE.as_bytes());
                        prefix_wanted = false;
                    }
                }
                out.push(byte);
            }
        }
        Ok(())
    }
}

/// The best way to a position: its score, its last token and that token's length in bytes.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    token: u32,
    length: u32,
}

impl Best {
    /// Among equals the first one stays: it has the longest last token.
    #[inline]
    fn improve(&mut self, score: f64, token: u32, length: usize) {
        if score > self.score {
            *self = Self { score, token, length: length as u32 };
        }
    }
}

/// Working memory of one call.
#[derive(Default)]
pub(crate) struct Work {
    text: Vec<u8>,
    best: Vec<Best>,
    path: Vec<(u32, u32)>,
}
