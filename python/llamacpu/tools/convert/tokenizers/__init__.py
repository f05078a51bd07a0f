"""Tokenizers of checkpoints as the keys of a GGUF file: one file for each kind of vocabulary."""
