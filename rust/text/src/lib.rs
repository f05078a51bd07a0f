#![forbid(unsafe_code)]
//! Text: tokenizers built from GGUF metadata, streaming decoding, and the index over string arrays.
