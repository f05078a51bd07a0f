#![forbid(unsafe_code)]
//! Transformers: configuration, weights, KV pages, sessions and the one forward pass. Knows no Python.
