#![forbid(unsafe_code)]
//! Text: tokenizers built from GGUF metadata, streaming decoding, grammars, and the index over string arrays.
//!
//! A text goes through `special` (cut out special tokens), then through `pre_tokenizer` and `byte_pair`, or through
//! `sentence_piece`; both join neighbours with `merging` and ask `vocabulary` for ids. Or it goes through `word_piece` or
//! `unigram`, which look up in `prefixes` what a text begins with. On the way back `tokenizer` gives bytes, and `utf8`
//! makes text of them that never shows half a character.
//!
//! Why not the `tokenizers` crate, beside which these are tested: it holds every token as a `String` several times
//! and is built three times slower from the arrays of a GGUF file, it refuses merges that lead to no token and texts that
//! are no UTF-8, and its merges by rank cannot say "the highest score, then the leftmost", nor join characters that are
//! no tokens themselves. Both are what a SentencePiece vocabulary means.

mod byte_level;
mod byte_pair;
mod characters;
mod charsmap;
mod ending;
mod error;
pub mod grammar;
mod merging;
mod places;
mod pre_tokenizer;
mod prefixes;
mod sentence_piece;
mod special;
mod strings;
mod tokenizer;
mod unigram;
mod utf8;
mod vocabulary;
mod word_piece;

pub use byte_pair::WhiteSpace;
pub use error::Error;
pub use strings::{Index, Read, index_strings, index_strings_of};
pub use tokenizer::{Family, Tokenizer, Tokens};
pub use utf8::TextStream;
pub use vocabulary::Kind;
