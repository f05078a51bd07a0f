"""The request router of Ray Serve that sends requests whose prompts begin alike to one replica."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ray.serve.request_router import RequestRouter

from llamacpu.ray.affinity import ranked

if TYPE_CHECKING:
    from ray.serve.request_router import PendingRequest, RunningReplica

__all__ = ["PrefixRouter"]


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray comes without types
    """Routes by the first argument of a call, the key of its prefix (`llamacpu.ray.affinity.prefix_key`).

    A replica that runs as many requests as it takes is passed over for the next one in the order of the key, so that a
    popular prefix spreads over replicas when, and only when, one is not enough. A call without a key goes to the less
    busy one of two that are drawn.
    """

    # A replica that computes may take a while to say how busy it is, and with Ray's tenth of a second would be passed
    # over for one without the prefix. One that has died is known at once.
    queue_len_response_deadline_s: float = 5.0
    max_queue_len_response_deadline_s: float = 10.0

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replicas to try, in order."""
        if pending_request is None:
            return [candidate_replicas]
        # Otherwise a full cluster would be asked again and again without a pause.
        pending_request.routing_context.should_backoff = True
        key = pending_request.args[0] if pending_request.args else ""
        if not key:
            drawn = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
            return [drawn, candidate_replicas]
        return [[one] for one in ranked(key, ((one.replica_id.unique_id, one) for one in candidate_replicas))]
