"""POST /api/embed and /api/embeddings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llamacpu.server.ollama.generating import keep
from llamacpu.server.ollama.requests import EmbedBody, EmbeddingsBody
from llamacpu.server.openai.embeddings import vectors_of
from llamacpu.server.prompts import using
from llamacpu.server.streams import JsonResponse

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call

__all__ = ["embed", "embeddings"]


async def embed(call: Call) -> Response:
    """Compute unit-length embeddings of texts."""
    body: EmbedBody = call.body
    started = time.monotonic_ns()
    texts: list[str | list[int]] = [body.input] if isinstance(body.input, str) else [*body.input]
    async with using(call, body.wanted) as use:
        keep(use, call)
        loaded = time.monotonic_ns()
        vectors, tokens = await vectors_of(
            call, use.served, texts, dimensions=body.dimensions or None, truncate=body.truncate is not False
        )
        return JsonResponse(
            {
                "model": body.wanted or use.served.name,
                "embeddings": [[float(number) for number in vector] for vector in vectors],
                "total_duration": time.monotonic_ns() - started,
                "load_duration": loaded - started,
                "prompt_eval_count": tokens,
            }
        )


async def embeddings(call: Call) -> Response:
    """Compute the embedding of a text without normalization."""
    body: EmbeddingsBody = call.body
    async with using(call, body.wanted) as use:
        keep(use, call)
        if not body.prompt:
            return JsonResponse({"embedding": []})
        vectors, _ = await vectors_of(call, use.served, [body.prompt], truncate=True, normalize=False)
        return JsonResponse({"embedding": [float(number) for number in vectors[0]]})
