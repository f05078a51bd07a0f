"""Text and token ids: the tokenizer, stop strings, infilling."""
