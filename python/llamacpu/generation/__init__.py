"""Text generation: a prompt is continued piece by piece, and a result reports how it went."""

from llamacpu.generation.generate import CancelToken, generate
from llamacpu.generation.result import GeneratedToken, GenerationResult, Timings
from llamacpu.generation.stream import Generation

__all__ = ["CancelToken", "GeneratedToken", "Generation", "GenerationResult", "Timings", "generate"]
