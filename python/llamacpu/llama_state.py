"""Saved states of a `Llama`, and caches of them, as llama-cpp-python has them."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.model import Session

log = logging.getLogger("llamacpu")


class LlamaState:
    """A conversation at one moment: its tokens, the logits that were kept, and the seed.

    The keys and values are shared with the `Llama` until one of the two goes on. A state that was pickled has the
    tokens only; loading it computes them again, with the same result to the last bit.
    """

    def __init__(
        self,
        input_ids: npt.NDArray[np.intc],
        scores: npt.NDArray[np.single],
        n_tokens: int,
        session: Session | None,
        seed: int | None,
    ) -> None:
        self.input_ids = input_ids
        self.scores = scores
        self.n_tokens = n_tokens
        self.session = session
        self.seed = seed

    @property
    def llama_state_size(self) -> int:
        """Bytes that the state holds on to."""
        return (self.session.nbytes if self.session is not None else 0) + self.input_ids.nbytes + self.scores.nbytes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None}


def shared_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


class BaseLlamaCache:
    """What `Llama.set_cache` takes: states by the tokens that they hold."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        self.capacity_bytes = capacity_bytes

    @property
    def cache_size(self) -> int:
        """Bytes in the cache."""
        return 0

    def __contains__(self, key: Sequence[int]) -> bool:
        return False

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        raise KeyError("there is no state with a common beginning")

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        """Nothing is kept."""


class LlamaRAMCache(BaseLlamaCache):
    """States in memory; the one used longest ago goes first when they need more than `capacity_bytes`."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self.cache_state: OrderedDict[tuple[int, ...], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        """Bytes in the cache; keys and values that states share are counted in each of them."""
        return sum(state.llama_state_size for state in self.cache_state.values())

    def _best(self, key: Sequence[int]) -> tuple[int, ...] | None:
        best, longest = None, 0
        for known in self.cache_state:
            length = shared_prefix(known, key)
            if length > longest:
                best, longest = known, length
        return best

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._best(key) is not None

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        best = self._best(key)
        if best is None:
            raise KeyError("there is no state with a common beginning")
        self.cache_state.move_to_end(best)
        return self.cache_state[best]

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        self.cache_state.pop(tuple(key), None)
        self.cache_state[tuple(key)] = value
        while self.cache_state and self.cache_size > self.capacity_bytes:
            self.cache_state.popitem(last=False)


LlamaCache = LlamaRAMCache


class LlamaDiskCache(LlamaRAMCache):
    """Known for its name: the states are kept in memory, since computing one again is exact and needs no disk."""

    def __init__(self, cache_dir: str | os.PathLike[str] = "", capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        log.info("LlamaDiskCache keeps its states in memory; %s is not used", os.fspath(cache_dir) or "no folder")
