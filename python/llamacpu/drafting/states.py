"""What a drafter knows of the text: hidden states of the model that have been computed and that it has not read yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WaitingStates"]


@dataclass
class WaitingStates:
    """States of consecutive positions of the model's session, with the ids at these positions.

    start  the position of the first one
    """

    start: int = 0
    ids: list[int] = field(default_factory=list)
    states: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The position after the last one."""
        return self.start + len(self.ids)

    def add(self, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Append the states, float32[places, tokens, width], of the tokens `ids`."""
        self.ids += ids
        self.states.append(states)

    def cut(self, position: int) -> None:
        """Forget the states from a position on."""
        while self.states and self.end > position:
            last = self.states.pop()
            count = last.shape[1]
            kept = max(position - (self.end - count), 0)
            del self.ids[len(self.ids) - count + kept :]
            if kept:
                self.states.append(last[:, :kept])

    def take(self) -> tuple[list[int], NDArray[np.float32] | None]:
        """All ids and states, which are no longer waiting."""
        import numpy

        ids, states, end = self.ids, self.states, self.end
        self.start, self.ids, self.states = end, [], []
        if not states:
            return ids, None
        return ids, states[0] if len(states) == 1 else numpy.concatenate(states, axis=1)
