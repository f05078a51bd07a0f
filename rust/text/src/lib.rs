#![forbid(unsafe_code)]
//! Text: tokenizers built from GGUF metadata, streaming decoding, and the index over string arrays.

mod error;
mod strings;

pub use error::Error;
pub use strings::{Index, index_strings};
