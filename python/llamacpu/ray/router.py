"""A request router for Ray Serve that sends requests whose prompts share a prefix to the same replica."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ray.serve.request_router import RequestRouter

from llamacpu.ray.affinity import ranked

if TYPE_CHECKING:
    from ray.serve.request_router import PendingRequest, RunningReplica

__all__ = ["PrefixRouter"]


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray comes without types
    """Routes by the first argument of a call, its prefix key (`llamacpu.ray.affinity.prefix_key`).

    A replica that runs as many requests as it accepts is skipped in favor of the next in the key's order, so that a
    popular prefix spreads over replicas if, and only if, one is not enough. A call without a key goes to the less busy
    of two replicas chosen at random.
    """

    # A replica that is computing may take a while to report how busy it is; with Ray's default of a tenth of a second
    # it would be skipped in favor of one without the prefix. A replica that has died is noticed at once.
    queue_len_response_deadline_s: float = 5.0
    max_queue_len_response_deadline_s: float = 10.0

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas to try, in order."""
        if pending_request is None:
            return [candidate_replicas]
        # Otherwise a full cluster would be polled continuously without a pause.
        pending_request.routing_context.should_backoff = True
        key = pending_request.args[0] if pending_request.args else ""
        if not key:
            drawn = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
            return [drawn, candidate_replicas]
        return [[one] for one in ranked(key, ((one.replica_id.unique_id, one) for one in candidate_replicas))]
