"""Constrained output: schemas, grammars and tool calls become masks over the vocabulary."""
