"""Random numbers from a seed: MT19937, seeded and read as in C++ programs.

A seed therefore gives the same draws on every machine and with every version of Python and NumPy, and the same
draws as llama.cpp when that is built with the GNU standard library. Python's generator is also MT19937, but
turns a seed into a state differently, so the state is computed here (Matsumoto and Nishimura,
"Mersenne Twister", 1998; the 2002 initialization).
"""

import math
import random

_STATE_WORDS = 624
_MULTIPLIER = 1812433253
_MASK = 0xFFFFFFFF


class Mersenne:
    """A stream of uniform draws determined by the seed (0 to 2**32 - 1)."""

    def __init__(self, seed: int) -> None:
        word = seed & _MASK
        words = [word]
        for index in range(1, _STATE_WORDS):
            word = (_MULTIPLIER * (word ^ (word >> 30)) + index) & _MASK
            words.append(word)
        self._random = random.Random()
        self._random.setstate((3, (*words, _STATE_WORDS), None))

    def word(self) -> int:
        """The next 32 random bits."""
        return self._random.getrandbits(32)

    def double(self) -> float:
        """A uniform value in [0, 1) from 64 bits, low word first."""
        low = self.word()
        number = (low + self.word() * 4294967296.0) / 18446744073709551616.0
        return number if number < 1 else math.nextafter(1.0, 0.0)

    def single(self) -> float:
        """A uniform value in [0, 1) from 32 bits, at most the largest float32 below 1."""
        return min(self.word() / 4294967296.0, 1.0 - 2.0**-24)
