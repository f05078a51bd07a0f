"""Models and sessions: token ids in, logits out."""
