#![forbid(unsafe_code)]
//! Text: tokenizers built from GGUF metadata, streaming decoding, grammars, and the index over string arrays.
//!
//! A text first goes through `special`, which cuts out special tokens, and then through `pre_tokenizer` and
//! `byte_pair`, or through `sentence_piece`; both of these merge neighbours with `merging` and ask `vocabulary` for
//! ids. Alternatively it goes through `word_piece` or `unigram`, which use `prefixes` to look up the tokens that a text
//! begins with. In the other direction, `tokenizer` produces bytes, and `utf8` turns them into text without ever
//! showing half a character.
//!
//! Why not the `tokenizers` crate, against whose Python package these tokenizers are tested? It stores every token as a `String`
//! several times and takes three times as long to build from the arrays of a GGUF file. It refuses merges that do not
//! lead to a token and texts that are not UTF-8. Its merges by rank cannot express "the highest score, then the
//! leftmost", nor join characters that are not tokens themselves. A SentencePiece vocabulary requires both.

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
