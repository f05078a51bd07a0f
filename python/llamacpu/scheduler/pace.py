"""How many prompt tokens go into a step so that it ends in time, learned from previous steps."""

from __future__ import annotations

__all__ = ["LEAST_CHUNK", "Pace"]

LEAST_CHUNK = 16
LARGEST_CHUNK = 512
# Chunks are multiples of this, which suits the kernels' tiles.
_GRAIN = 8
# Before anything was measured.
_FIRST_CHUNK = 64
# How far one measurement moves an estimate, and by what factor at most.
_RATE = 0.5
_MOST_FACTOR = 2.0
# A chunk below this fraction of the allowed size says little: most of its time does not depend on its size.
_TELLING = 0.75


class Pace:
    """Chooses the number of prompt tokens in a step, with and without running streams.

    longest_step  seconds that a step with running streams may take: the gap between two of their tokens. If decoding
                  alone takes more than half of that, prompts get as much time as decoding
    alone         seconds of a step of prompts only: how soon new requests can join
    """

    def __init__(self, longest_step: float, alone: float = 0.5) -> None:
        self._longest_step = longest_step
        self._alone = max(alone, longest_step)
        # Whether there are running streams -> number of tokens that take the time allowed.
        self._size = {True: float(_FIRST_CHUNK), False: float(_FIRST_CHUNK)}
        # Seconds of a step without prompts, by its number of tokens.
        self._decode: dict[int, float] = {}

    def room(self, decoding: int) -> int:
        """Return how many prompt tokens fit into a step with `decoding` decoded tokens."""
        count = int(self._size[decoding > 0])
        return min(max(count - count % _GRAIN, LEAST_CHUNK), LARGEST_CHUNK)

    def note(self, decoding: int, prompt: int, seconds: float) -> None:
        """Note how many seconds a step of `decoding` decoded tokens and `prompt` prompt tokens took."""
        if not prompt:
            old = self._decode.get(decoding, seconds)
            self._decode[decoding] = old + _RATE * (seconds - old)
            return
        limit = max(self._longest_step, 2 * self.decode_seconds(decoding)) if decoding else self._alone
        size = self._size[decoding > 0]
        factor = min(max(limit / max(seconds, 1e-9), 1 / _MOST_FACTOR), _MOST_FACTOR)
        fitting = prompt * factor
        if prompt >= _TELLING * size or fitting > size:
            size += _RATE * (fitting - size)
        self._size[decoding > 0] = min(max(size, LEAST_CHUNK), LARGEST_CHUNK)

    def decode_seconds(self, decoding: int) -> float:
        """Return the seconds of a step of `decoding` decoded tokens, as far as known."""
        if not decoding or not self._decode:
            return 0.0
        if decoding in self._decode:
            return self._decode[decoding]
        nearest = min(self._decode, key=lambda known: abs(known - decoding))
        return self._decode[nearest]
