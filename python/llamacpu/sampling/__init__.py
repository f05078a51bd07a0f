"""Logits in, one token id out: the sampler chain of the llama family as small pure steps.

settings       the caller's choices (`Sampling`), validated
candidates     the tokens still in play, and their probabilities
truncation     top-n-sigma, top-k, typical, top-p, min-p, XTC: which candidates remain
repetition     repeat, frequency and presence penalties, DRY
temperature    fixed and dynamic temperature
draw           the last step: draws from the distribution, mirostat 1 and 2, adaptive-p
mersenne       the random numbers: a seed gives the same ones everywhere
chain          `Sampler`: the steps in the requested order, and their state
log_probability  how likely the model found a token
"""

from llamacpu.sampling.chain import Sampler
from llamacpu.sampling.log_probability import TokenLogProbability, log_probability
from llamacpu.sampling.settings import DEFAULT_SAMPLERS, Sampling

__all__ = ["DEFAULT_SAMPLERS", "Sampler", "Sampling", "TokenLogProbability", "log_probability"]
