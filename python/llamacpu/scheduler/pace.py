"""How many tokens of prompts go into a step, so that it ends soon: learned from the steps before."""

from __future__ import annotations

__all__ = ["Pace"]

LEAST_CHUNK = 16
LARGEST_CHUNK = 512
# What is believed before anything was measured, in seconds.
_PRIOR_TOKEN = 0.004
# How far one measurement moves an estimate.
_RATE = 0.3


class Pace:
    """Chooses the number of prompt tokens of a step.

    longest_step  seconds that a step beside running streams may take: the gap between two of their tokens
    alone         seconds of a step of prompts only: how soon it looks up for newcomers
    """

    def __init__(self, longest_step: float, alone: float = 0.5) -> None:
        self._longest_step = longest_step
        self._alone = max(alone, longest_step)
        self._token = _PRIOR_TOKEN
        # Seconds of a step without prompts, by the number of its tokens.
        self._decode: dict[int, float] = {}

    def room(self, decoding: int) -> int:
        """How many tokens of prompts fit beside so many decoded tokens."""
        decode = self.decode_seconds(decoding)
        # Where decoding alone takes most of that time, prompts get as much again: they, too, have to end.
        limit = max(self._longest_step - decode, decode) if decoding else self._alone
        count = int(limit / self._token)
        return min(max(count - count % LEAST_CHUNK, LEAST_CHUNK), LARGEST_CHUNK)

    def note(self, decoding: int, prompt: int, seconds: float) -> None:
        """A step of so many decoded tokens and tokens of prompts took so long."""
        if not prompt:
            old = self._decode.get(decoding, seconds)
            self._decode[decoding] = old + _RATE * (seconds - old)
        elif prompt >= LEAST_CHUNK:
            each = max(seconds - self.decode_seconds(decoding), 0.1 * seconds) / prompt
            self._token += _RATE * (each - self._token)

    def decode_seconds(self, decoding: int) -> float:
        """Seconds of a step of so many decoded tokens, as far as known."""
        if not decoding or not self._decode:
            return 0.0
        if decoding in self._decode:
            return self._decode[decoding]
        nearest = min(self._decode, key=lambda known: abs(known - decoding))
        return self._decode[nearest]
