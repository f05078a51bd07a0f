"""Fairness between clients: the client that was served least comes next.

Every client has a counter of tokens, weighted by their cost. A client that returns after a pause starts at the lowest
counter of those being served, so that no client can save up credit and crowd out the others (the virtual token counter
of Sheng et al., "Fairness in Serving Large Language Models", arXiv:2401.00588).
"""

from __future__ import annotations

__all__ = ["Shares"]

PROMPT_WEIGHT = 1.0
ANSWER_WEIGHT = 2.0
# Counters of inactive clients are kept for their next request, but only up to this number of clients.
_MOST_CLIENTS = 4096


class Shares:
    """Counts how many tokens each client was served. Not thread-safe: its owner has a lock."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._active: dict[str, int] = {}

    def enter(self, client: str) -> None:
        """Note that a client has one more request."""
        if client not in self._active:
            least = min((self._served[other] for other in self._active), default=0.0)
            self._served[client] = max(self._served.pop(client, 0.0), least)
        self._active[client] = self._active.get(client, 0) + 1

    def leave(self, client: str) -> None:
        """Note that a request of a client has ended."""
        left = self._active.get(client, 0) - 1
        if left > 0:
            self._active[client] = left
            return
        self._active.pop(client, None)
        if not self._active:
            # Nobody is waiting: there is nothing to balance.
            self._served.clear()
            return
        for name in list(self._served):
            if len(self._served) <= _MOST_CLIENTS:
                break
            if name not in self._active:
                del self._served[name]

    def charge(self, client: str, tokens: int, weight: float = PROMPT_WEIGHT) -> None:
        """Charge a client for tokens."""
        if client in self._served:
            self._served[client] += weight * tokens

    def served(self, client: str) -> float:
        """Return how much a client was served so far, in weighted tokens."""
        return self._served.get(client, 0.0)
