"""How the checkpoints of each architecture become a GGUF file."""
