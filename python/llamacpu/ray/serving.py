"""The server on a cluster, with Ray Serve: replicas of the ASGI application behind a prefix-aware front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, WorkerCrashedError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from llamacpu.ray.cluster import PROCESS_BYTES, check_fits, cores_of_this_actor, weights_of
from llamacpu.ray.forwarding import Forwarding, ReplicaLost, answered
from llamacpu.ray.router import PrefixRouter
from llamacpu.server import app
from llamacpu.server.application import public_paths
from llamacpu.server.errors import ApiError
from llamacpu.server.security import Security
from llamacpu.server.settings import Settings
from llamacpu.server.sources import Stored, sources_of

__all__ = ["application"]

_REPLICA = "LlamacpuReplica"
# Beyond this, another stream in the same engine adds little to its tokens per second.
_STREAMS = 8


class Replica:
    """An engine (or several, one per model) in its own actor, with the whole server in front of it."""

    def __init__(self, models: Mapping[str, str], options: Mapping[str, Any]) -> None:
        options = {"threads": cores_of_this_actor(), **options}
        self._app = app(models, **options)
        self._lifespan = self._app.lifespan()
        self._name = serve.get_replica_context().replica_id.unique_id
        self._begun: asyncio.Task[Any] | None = None

    async def check_health(self) -> None:
        """Called by Ray before a replica gets requests, and then periodically; Ray replaces the replica on an error."""
        if self._begun is None:
            self._begun = asyncio.ensure_future(self._lifespan.__aenter__())
        await asyncio.shield(self._begun)
        for served in self._app.models.loaded:
            if served.engine.error is not None:
                raise served.engine.error

    async def answer(self, key: str, scope: dict[str, Any], body: bytes) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the ASGI messages of the response to a request. `key` is what the router chose this replica by."""
        async for messages in answered(self._app, scope, body):
            for message in messages:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), (b"x-llamacpu-replica", self._name.encode())]
            yield [dict(message) for message in messages]

    async def __del__(self) -> None:
        """Called by Ray when it ends a replica, after the last response."""
        if self._begun is not None:
            await self._lifespan.__aexit__(None, None, None)


class Front:
    """An ASGI application that forwards requests to replicas after checking access."""

    def __init__(self, settings: Settings) -> None:
        self._asgi = Security(Forwarding(self._ask, settings), settings, public_paths(settings))
        self._handle: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle an ASGI connection."""
        await self._asgi(scope, receive, send)

    async def _ask(self, key: str, scope: dict[str, Any], body: bytes) -> AsyncIterator[list[dict[str, Any]]]:
        if self._handle is None:
            name = serve.get_replica_context().app_name
            self._handle = serve.get_deployment_handle(_REPLICA, app_name=name).options(stream=True)
        answer = self._handle.answer.remote(key, scope, body)
        ended = False
        try:
            async for messages in answer:
                yield messages
            ended = True
        except (RayActorError, WorkerCrashedError) as error:
            raise ReplicaLost from error
        except BackPressureError:
            raise ApiError(
                503, "all replicas are busy and enough requests wait; ask again later", code="queue_full", retry_after=5
            ) from None
        except DeploymentUnavailableError:
            raise ApiError(503, "no replica can be started; see the log of Ray Serve", retry_after=30) from None
        finally:
            if not ended:
                answer.cancel()


def application(
    models: Any,
    *,
    replicas: int | tuple[int, int] = 1,
    num_cpus: int = 1,
    target_ongoing_requests: float = _STREAMS,
    autoscaling: Mapping[str, Any] | None = None,
    fronts: int = 1,
    **options: Any,
) -> Any:
    """The server of `llamacpu.server.app` as an application of Ray Serve, with replicas on the machines of a cluster.

        serve.run(llamacpu.ray.application("/models/8b.gguf", replicas=(1, 4), num_cpus=16))

    Requests whose prompts share a prefix go to the same replica, which has it in its prefix cache: those for one model
    with the same system prompt, tools and first message (or the same field `prompt_cache_key`). A replica that runs
    `parallel` requests is skipped in favor of the next one. The header field `x-llamacpu-replica` names the replica
    that answered.

    models      as in `llamacpu.server.app`, but only files at paths that all machines can read, or names of models
                that all of them have
    replicas    a number, or the least and the most, between which their number follows the load
    num_cpus    cores of each replica, which are the threads of its models
    target_ongoing_requests  the number of running and waiting requests per replica that autoscaling aims for
    autoscaling further fields of `ray.serve.config.AutoscalingConfig`, such as upscale_delay_s
    fronts      processes that read requests and forward them
    options     options of `llamacpu.server.app`: `hosts` for names that clients reach the cluster by, `api_keys`,
                `parallel`, `queue` (of each front), `kv_memory` ...

    Ray Serve listens on loopback unless `serve.start` or `serve run` says otherwise. Raises ValueError and
    FileNotFoundError for invalid or missing models and settings, and ValueError for more cores or memory than a machine
    of the cluster has, if Ray is initialized.
    """
    low, high = (replicas, replicas) if isinstance(replicas, int) else replicas
    if not 0 < low <= high or fronts < 1:
        raise ValueError(f"replicas is {replicas} and fronts {fronts}; expected 1 or more, and the least first")
    if not target_ongoing_requests > 0:
        raise ValueError(f"target_ongoing_requests is {target_ongoing_requests}; expected a number above 0")
    sources = sources_of(models)
    files = {name: _path(name, source) for name, source in sources.items()}
    # A model referred to by name comes with its own settings, which its file does not have.
    given = {name: found.name if isinstance(found, Stored) else str(found) for name, found in sources.items()}
    outer = {name: options[name] for name in options if name not in _OF_POOL}
    settings = Settings(**outer)
    # Wrong aliases and a missing guard are reported here instead of in a log of the cluster. The priority is that of
    # the replicas' processes, not of this one.
    app(files, **{**options, "priority": None})
    memory = _memory(files, options, settings)
    if ray.is_initialized():
        check_fits(next(iter(files.values())), num_cpus, memory)
    scaling: dict[str, Any] = {"num_replicas": low}
    if low < high or autoscaling:
        limits = {"min_replicas": low, "max_replicas": high, "target_ongoing_requests": target_ongoing_requests}
        scaling = {"autoscaling_config": AutoscalingConfig(**{**limits, **(autoscaling or {})})}
    replica = serve.deployment(
        Replica,
        name=_REPLICA,
        ray_actor_options={"num_cpus": num_cpus, "memory": memory},
        max_ongoing_requests=settings.parallel,
        max_queued_requests=settings.queue,
        request_router_config=RequestRouterConfig(request_router_class=PrefixRouter),
        graceful_shutdown_timeout_s=settings.grace_seconds + 10,
        **scaling,
    )
    front = serve.deployment(
        serve.ingress(Front(settings))(_Ingress),
        name="LlamacpuFront",
        num_replicas=fronts,
        ray_actor_options={"num_cpus": 0, "memory": PROCESS_BYTES},
        max_ongoing_requests=settings.connections,
    )
    return front.bind(replica.bind(given, options))


class _Ingress:
    """The class that Ray Serve wraps around `Front`; it gets the replicas' handle so that they belong to one app."""

    def __init__(self, replicas: Any) -> None:
        self.replicas = replicas


_OF_POOL = ("aliases", "threads", "memory_budget", "keep_alive", "guard")


def _path(name: str, source: Any) -> Path:
    if isinstance(source, Stored):
        return source.path
    if not isinstance(source, Path):
        raise ValueError(f"the model {name} is open; replicas open models themselves: give the path of its file")
    return source.resolve()


def _memory(files: Mapping[str, Path], options: Mapping[str, Any], settings: Settings) -> int:
    """Return the bytes that a replica needs: for its process, the models loaded at once, and keys and values."""
    weights = sum(weights_of(path) for path in files.values())
    if options.get("memory_budget") is not None:
        weights = min(weights, options["memory_budget"])
    guard = options.get("guard")
    if guard is not None:
        weights += sum(weights_of(_path(name, source)) for name, source in sources_of(guard).items())
    return PROCESS_BYTES + weights + (settings.kv_memory or 0) * len(files)
