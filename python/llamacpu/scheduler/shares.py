"""Fairness between clients: whoever was served least comes next.

Every client has a counter of tokens, weighted by what they cost; a client that begins to ask after a pause starts at
the lowest counter of those that are being served, so that nobody saves up a right to crowd out the others (the virtual
token counter of Sheng et al., "Fairness in Serving Large Language Models", arXiv:2401.00588).
"""

from __future__ import annotations

__all__ = ["Shares"]

PROMPT_WEIGHT = 1.0
ANSWER_WEIGHT = 2.0
# Counters of clients that ask for nothing now are kept for the next time, but not without end.
_MOST_CLIENTS = 4096


class Shares:
    """How many tokens each client was given. Not for several threads: its owner has a lock."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._active: dict[str, int] = {}

    def enter(self, client: str) -> None:
        """A client has one request more."""
        if client not in self._active:
            least = min((self._served[other] for other in self._active), default=0.0)
            self._served[client] = max(self._served.pop(client, 0.0), least)
        self._active[client] = self._active.get(client, 0) + 1

    def leave(self, client: str) -> None:
        """A request of a client has ended."""
        left = self._active.get(client, 0) - 1
        if left > 0:
            self._active[client] = left
            return
        self._active.pop(client, None)
        if not self._active:
            # Nobody is waiting: nothing is to be made up for.
            self._served.clear()
            return
        for name in list(self._served):
            if len(self._served) <= _MOST_CLIENTS:
                break
            if name not in self._active:
                del self._served[name]

    def charge(self, client: str, tokens: int, weight: float = PROMPT_WEIGHT) -> None:
        """A client was given tokens."""
        if client in self._served:
            self._served[client] += weight * tokens

    def served(self, client: str) -> float:
        """What a client was given so far."""
        return self._served.get(client, 0.0)
