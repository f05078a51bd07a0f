//! The tokenizer of a model: text to ids and ids to bytes.

use crate::byte_pair::{self, BytePairs, WhiteSpace};
use crate::pre_tokenizer::{PreTokenizer, Symbols, symbols_of};
use crate::sentence_piece::{self, SPACE, SentencePieces};
use crate::special::{Part, SpecialTokens};
use crate::unigram::{self, Spaces, Unigrams};
use crate::vocabulary::{Kind, Vocabulary};
use crate::word_piece::{self, Cleaning, WordPieces};
use crate::{Error, Index, ending};

/// Longer texts are refused: merging a long run of a single letter takes up to a hundred times its size in memory.
const LONGEST_TEXT: usize = 64 << 20;

/// The vocabulary arrays that every family has.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    /// The bytes that the indexes point into.
    pub data: &'a [u8],
    /// The texts: `tokenizer.ggml.tokens`.
    pub texts: &'a Index,
    /// The type number of each token, if the file has them: `tokenizer.ggml.token_type`.
    pub kinds: Option<&'a [i32]>,
    /// The special tokens after which white space is dropped: none if this is `None`, otherwise all except those with a
    /// listed name.
    pub strips_right_except: Option<&'a [String]>,
}

/// The parameters that distinguish one family of vocabularies from another.
#[derive(Clone, Copy)]
pub enum Family<'a> {
    /// SentencePiece-style (`llama`): merges pairs by score.
    SentencePiece {
        /// One per token: `tokenizer.ggml.scores`.
        scores: Option<&'a [f32]>,
        /// The id that stands for what cannot be written.
        unknown: Option<u32>,
        /// Whether a space is put before a text and after every special token.
        space_prefix: bool,
    },
    /// Byte-level BPE (`gpt2`): merges pairs by their place in a list.
    BytePair {
        /// The bytes that the index of the list points into.
        data: &'a [u8],
        /// The list: `tokenizer.ggml.merges`.
        merges: &'a Index,
        /// The rule that cuts text into words: `tokenizer.ggml.pre`.
        pre: &'a str,
        /// How white space is treated before that.
        white_space: WhiteSpace,
    },
    /// WordPiece (`bert`): takes the longest tokens of each word.
    WordPiece {
        /// The id that stands for a word that cannot be written.
        unknown: Option<u32>,
        /// Whether letters are lowercased.
        lowercase: bool,
        /// Whether accents are removed from letters.
        strip_accents: bool,
    },
    /// Unigram (`t5`): chooses the tokens with the highest probability.
    Unigram {
        /// One per token: `tokenizer.ggml.scores`.
        scores: Option<&'a [f32]>,
        /// The id that stands for what cannot be written.
        unknown: Option<u32>,
        /// The table of replacements: `tokenizer.ggml.precompiled_charsmap`.
        charsmap: Option<&'a [u8]>,
        /// Whether a space is put before a text and after every special token.
        space_prefix: bool,
        /// Whether runs of spaces are collapsed and trailing spaces removed.
        merges_spaces: bool,
    },
}

enum Algorithm {
    SentencePiece { pieces: SentencePieces, space_prefix: bool },
    BytePair(Box<BytePairs>),
    WordPiece(Box<WordPieces>),
    Unigram(Box<Unigrams>),
}

/// Working memory of one call.
#[derive(Default)]
struct Work {
    byte_pair: byte_pair::Work,
    sentence_piece: sentence_piece::Work,
    word_piece: word_piece::Work,
    unigram: unigram::Work,
}

/// Converts text to ids and back. Adding BOS and EOS is up to the caller.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    special: SpecialTokens,
    algorithm: Algorithm,
    endings: Vec<u32>,
    adds_bos: bool,
}

impl Tokenizer {
    /// Builds the tokenizer from the arrays of a file.
    ///
    /// # Errors
    /// [`Error::File`] if the arrays contradict each other; [`Error::Unsupported`] for an unknown word rule.
    pub fn new(tokens: Tokens<'_>, family: Family<'_>) -> Result<Self, Error> {
        let byte_level =
            if let Family::BytePair { pre, .. } = family { symbols_of(pre)? == Symbols::Bytes } else { false };
        let mut vocabulary = Vocabulary::new(tokens.data, tokens.texts, tokens.kinds, byte_level)?;
        let endings = ending::mark(&mut vocabulary);
        let strips_right = |id: u32| {
            tokens.strips_right_except.is_some_and(|except| !except.iter().any(|name| *name == vocabulary.piece(id)))
        };
        let special = SpecialTokens::new(&vocabulary, &strips_right)?;
        let mut adds_bos = true;
        if let Family::SentencePiece { unknown, .. }
        | Family::WordPiece { unknown, .. }
        | Family::Unigram { unknown, .. } = family
            && let Some(id) = unknown
            && !vocabulary.is_token(id)
        {
            return Err(Error::Argument(format!("the unknown token {id} is not in the vocabulary")));
        }
        let algorithm = match family {
            Family::SentencePiece { scores, unknown, space_prefix } => {
                Algorithm::SentencePiece { pieces: SentencePieces::new(&vocabulary, scores, unknown)?, space_prefix }
            }
            Family::BytePair { data, merges, pre, white_space } => {
                let words = PreTokenizer::named(pre)?;
                adds_bos = words.adds_bos();
                Algorithm::BytePair(Box::new(BytePairs::new(&mut vocabulary, data, merges, words, white_space)?))
            }
            Family::WordPiece { unknown, lowercase, strip_accents } => {
                let cleaning = Cleaning { lowercase, strip_accents };
                Algorithm::WordPiece(Box::new(WordPieces::new(&vocabulary, unknown, cleaning)?))
            }
            Family::Unigram { scores, unknown, charsmap, space_prefix, merges_spaces } => {
                adds_bos = false;
                let spaces = Spaces { prefix: space_prefix, merged: merges_spaces };
                Algorithm::Unigram(Box::new(Unigrams::new(&vocabulary, scores, unknown, charsmap, spaces)?))
            }
        };
        Ok(Self { vocabulary, special, algorithm, endings, adds_bos })
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether texts begin with BOS if the file does not say.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The tokens whose text shows that they end a generation.
    pub fn endings(&self) -> &[u32] {
        &self.endings
    }

    /// The kind of a token.
    pub fn kind(&self, id: u32) -> Kind {
        self.vocabulary.kind(id)
    }

    /// The id of the token with this text in the file.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.vocabulary.token(text)
    }

    /// The text of a token as stored in the file.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such token.
    pub fn piece(&self, id: i64) -> Result<String, Error> {
        Ok(self.vocabulary.piece(self.checked(id)?))
    }

    /// The ids of `text`, which need not be valid UTF-8.
    ///
    /// `parse_special`: whether control and unknown tokens written in the text become these tokens; otherwise they stay
    /// text.
    /// `space_first`: whether a SentencePiece vocabulary puts its space before the text, if it does so at all.
    ///
    /// # Errors
    /// [`Error::Argument`] for a text of more than 64 MiB; [`Error::Unsupported`] for a character that the vocabulary cannot
    /// express in any way; [`Error::Memory`].
    pub fn encode(&self, text: &[u8], parse_special: bool, space_first: bool) -> Result<Vec<u32>, Error> {
        if text.len() > LONGEST_TEXT {
            return Err(Error::Argument(format!(
                "a text of {} bytes is too long: at most {LONGEST_TEXT} can be tokenized at once; cut it at line ends",
                text.len()
            )));
        }
        let mut ids = Vec::new();
        let mut work = Work::default();
        let mut space_wanted = space_first;
        self.special.cut(text, parse_special, &mut |part| {
            match part {
                Part::Token(id) => {
                    ids.try_reserve(1)?;
                    ids.push(id);
                    space_wanted = true;
                }
                Part::Text(text) => {
                    self.encode_part(text, space_wanted, &mut work, &mut ids)?;
                    space_wanted = false;
                }
            }
            Ok(())
        })?;
        Ok(ids)
    }

    fn encode_part(&self, text: &[u8], space_first: bool, work: &mut Work, ids: &mut Vec<u32>) -> Result<(), Error> {
        match &self.algorithm {
            Algorithm::BytePair(pairs) => pairs.encode(&self.vocabulary, text, &mut work.byte_pair, ids),
            Algorithm::SentencePiece { pieces, space_prefix } => {
                pieces.encode(&self.vocabulary, text, *space_prefix && space_first, &mut work.sentence_piece, ids)
            }
            Algorithm::WordPiece(pieces) => pieces.encode(text, &mut work.word_piece, ids),
            Algorithm::Unigram(unigrams) => unigrams.encode(text, space_first, &mut work.unigram, ids),
        }
    }

    /// Whether encoding puts a space before a text that has none.
    fn puts_space_first(&self) -> bool {
        match &self.algorithm {
            Algorithm::SentencePiece { space_prefix, .. } => *space_prefix,
            Algorithm::BytePair(_) => false,
            Algorithm::WordPiece(_) => true,
            Algorithm::Unigram(unigrams) => unigrams.puts_space_first(),
        }
    }

    /// Appends the bytes of a token. Without `special`, control and unknown tokens produce none.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such token; [`Error::Memory`].
    pub fn decode_into(&self, id: i64, special: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let id = self.checked(id)?;
        let bytes = self.vocabulary.bytes(id);
        out.try_reserve(bytes.len())?;
        match (self.vocabulary.kind(id), &self.algorithm) {
            (Kind::Unused, _) => {}
            (Kind::Control | Kind::Unknown, _) if !special => {}
            (Kind::Control | Kind::Unknown | Kind::UserDefined, _) => out.extend_from_slice(bytes),
            (Kind::Normal, Algorithm::BytePair(pairs)) if !pairs.marks_spaces() => out.extend_from_slice(bytes),
            (Kind::Byte, _) => match byte_of(bytes) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(bytes),
            },
            (Kind::Normal, _) => {
                let mut rest = bytes;
                while let [first, after @ ..] = rest {
                    if let Some(after) = rest.strip_prefix(SPACE.as_bytes()) {
                        out.push(b' ');
                        rest = after;
                    } else {
                        out.push(*first);
                        rest = after;
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes of a whole sequence of ids.
    ///
    /// `stand_alone`: whether to remove the space that encoding put before the text, if there is one.
    ///
    /// # Errors
    /// [`Error::Argument`] if an id is not a token; [`Error::Memory`].
    pub fn decode(&self, ids: &[i64], special: bool, stand_alone: bool) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut may_strip = stand_alone && self.puts_space_first();
        for &id in ids {
            let start = out.len();
            self.decode_into(id, special, &mut out)?;
            if may_strip && !matches!(self.kind(id as u32), Kind::Control | Kind::Unknown) {
                may_strip = false;
                if out.get(start) == Some(&b' ') {
                    out.remove(start);
                }
            }
        }
        Ok(out)
    }

    fn checked(&self, id: i64) -> Result<u32, Error> {
        match u32::try_from(id) {
            Ok(known) if self.vocabulary.is_token(known) => Ok(known),
            _ => Err(Error::Argument(format!(
                "there is no token {id}: the vocabulary has the ids 0 to {}",
                self.vocabulary.len() - 1
            ))),
        }
    }
}

/// The byte that a byte token stands for; such tokens are written `<0x0A>`.
fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}
