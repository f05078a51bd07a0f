"""Speculative decoding: several tokens are proposed, one pass verifies them all, and the confirmed ones are kept.

The text is exactly the same as without it: the sampler chooses every token from the model's own logits, and a
guess only decides how many of these logits come out of one pass (Leviathan et al., arXiv:2211.17192; guesses looked up
in the text itself: Saxena, "Prompt lookup decoding", 2023).
"""

from llamacpu.drafting.draft import Draft, Drafter, FunctionDraft
from llamacpu.drafting.learned import LearnedDraft
from llamacpu.drafting.model_draft import ModelDraft
from llamacpu.drafting.ngram import NGramDraft
from llamacpu.drafting.opening import open_draft
from llamacpu.drafting.proposer import Proposer

__all__ = ["Draft", "Drafter", "FunctionDraft", "LearnedDraft", "ModelDraft", "NGramDraft", "Proposer", "open_draft"]
