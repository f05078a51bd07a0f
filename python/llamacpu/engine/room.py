"""How much memory a model needs and whether this machine has it, from the file header alone."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from llamacpu.engine import machine
from llamacpu.families.memory import amount, kv_bytes, longest_context, state_bytes

if TYPE_CHECKING:
    from llamacpu.families.config import Config
    from llamacpu.gguf.file import GGUFFile

__all__ = ["Room"]

# Bytes per element: f32, f16, and q8_0 (32 elements and an f16 scale in 34 bytes).
_KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
# Tokens for whose keys and values room is left next to the weights of a model that does not fit as a whole.
_USUAL_CONTEXT = 4096
_EXPERT = re.compile(r"\.ffn_(gate|up|down|gate_up)(_exps|\.\d+)\.")


class Room:
    """The memory that a model needs with `context` tokens (`None`: as many as it was trained for), and what is free.

    All sizes are in bytes.
    """

    def __init__(self, file: GGUFFile, config: Config, context: int | None = None, kv_type: str = "f16") -> None:
        self._file = file
        self._config = config
        self.context: int = config.context_length if context is None else context
        self.kv_type = kv_type
        self.weights: int = sum(tensor.nbytes for tensor in file.tensors)
        self.free: int | None = machine.available_memory()
        """memory that programs may still take; None if the system does not report it"""

    @property
    def keys(self) -> int:
        """Size of the keys and values of a conversation of `context` tokens."""
        return kv_bytes(self._config, self.context, _KV_BYTES[self.kv_type])

    @property
    def states(self) -> int:
        """Size of the states of recurrent layers that such a conversation keeps at most."""
        return state_bytes(self._config, self.context)

    @property
    def experts(self) -> int:
        """Size of the weights that a router chooses among."""
        return sum(tensor.nbytes for tensor in self._file.tensors if _EXPERT.search(tensor.name))

    @property
    def fits(self) -> bool | None:
        """Whether weights, keys and values fit together; None if the free memory is unknown."""
        return None if self.free is None else self.weights + self.keys + self.states <= self.free

    @property
    def limit(self) -> int | None:
        """The memory that weights may take if they do not fit next to a short conversation; None otherwise."""
        if self.free is None or self.weights + self.short_conversation <= self.free:
            return None
        return max(self.free - self.free // 8 - self.short_conversation, 0)

    def longest_contexts(self) -> dict[str, int] | None:
        """The longest context, up to `context`, that fits, by the type of keys and values; None if unknown."""
        if self.free is None:
            return None
        left = max(self.free - self.weights - self.states, 0)
        return {name: longest_context(self._config, left, self.context, size) for name, size in _KV_BYTES.items()}

    def fitting(self) -> str:
        """A line that says whether the model fits, and if not, what would."""
        if self.free is None:
            return "unknown: the system does not tell how much memory is free"
        if self.fits:
            return f"yes: {amount(self.free)} are free on this machine"
        longest = self.longest_contexts() or {}
        ways = [f"-c {count} --kv-type {name}" for name, count in longest.items() if count > 0]
        if ways:
            return f"no: {amount(self.free)} are free; would fit: {', '.join(ways)}"
        return f"no: {amount(self.free)} are free, less than the weights take; {self.from_disk()}"

    def from_disk(self) -> str:
        """A phrase on running the model from disk, and on what would fit instead."""
        count, used, experts = self._config.experts, self._config.experts_used, self.experts
        read = ""
        if count and experts:
            token = self.weights - experts + experts * used // count
            read = f", {amount(token)} of it for a token ({used} of {count} experts)"
        numbers = sum(math.prod(tensor.shape) for tensor in self._file.tensors)
        bits = 8 * max((self.free or 0) - self.short_conversation, 0) / max(numbers, 1)
        fitting = f"a file of at most {bits:.1f} bits a weight" if bits >= 1.5 else "a smaller model"
        return f"it runs from disk, slowly{read}; {fitting} would fit, or a machine with more memory"

    @property
    def short_conversation(self) -> int:
        """Size of the keys and values, and of the states, of a short conversation."""
        tokens = min(self._config.context_length, _USUAL_CONTEXT)
        return kv_bytes(self._config, tokens, _KV_BYTES["f16"]) + state_bytes(self._config, tokens)
