"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import ContextOverflow
from llamacpu.server.errors import invalid
from llamacpu.server.openai.completions import prompts_of
from llamacpu.server.openai.requests import EmbeddingRequest
from llamacpu.server.prompts import using
from llamacpu.server.streams import JsonResponse, while_connected
from llamacpu.tasks import embeddings

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call
    from llamacpu.server.served import Served

__all__ = ["embed", "vectors_of"]


async def embed(call: Call) -> Response:
    """Compute unit-length embeddings of texts."""
    body: EmbeddingRequest = call.body
    texts = prompts_of(body.input)
    async with using(call, body.model) as use:
        vectors, tokens = await vectors_of(call, use.served, texts, dimensions=body.dimensions)
        name = use.served.name
    data = []
    for index, vector in enumerate(vectors):
        value: Any = [float(number) for number in vector]
        if body.encoding_format == "base64":
            value = base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": value})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JsonResponse({"object": "list", "data": data, "model": name, "usage": usage})


async def vectors_of(
    call: Call,
    served: Served,
    texts: list[str | list[int]],
    *,
    dimensions: int | None = None,
    truncate: bool = False,
    normalize: bool = True,
) -> tuple[list[np.ndarray[Any, np.dtype[np.float32]]], int]:
    """Return the embeddings of texts, in their order, and the total number of tokens. Raises ApiError."""
    if len(texts) > call.state.settings.inputs:
        raise invalid(f"input has {len(texts)} texts; this server takes {call.state.settings.inputs} at once", "input")
    width = int(served.model.config["embedding_length"])
    if dimensions is not None and dimensions > width:
        raise invalid(f"dimensions is {dimensions}; the vectors of this model have {width}", "dimensions")
    cancel = CancelToken(call.state.settings.timeout)
    work = call.state.work.long(_vectors, served, texts, truncate, normalize, cancel)
    found, tokens = await while_connected(call.request, work, cancel.cancel)
    if dimensions is None or dimensions == width:
        return found, tokens
    cut = [vector[:dimensions] for vector in found]
    return [vector / (float(np.linalg.norm(vector)) or 1.0) if normalize else vector for vector in cut], tokens


def _vectors(
    served: Served, texts: list[str | list[int]], truncate: bool, normalize: bool, cancel: CancelToken
) -> tuple[list[Any], int]:
    tokenizer, vocabulary = served.model.tokenizer, served.model.vocab_size
    rows = []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text) if isinstance(text, str) else text
        if not ids:
            raise invalid(f"input[{number}] is empty; expected a text", "input")
        if any(not 0 <= token < vocabulary for token in ids):
            raise invalid(f"input[{number}] holds an unknown token; expected 0 to {vocabulary - 1}", "input")
        limit = embeddings.most_tokens(served.model, served.context)
        if len(ids) > limit and not truncate:
            raise ContextOverflow(f"input[{number}] has {len(ids)} tokens and the model holds {limit}; cut it")
        rows.append(tokenizer.truncate(ids, limit))
    pooling = embeddings.default_pooling(served.model.metadata)
    found = list(embeddings.vectors(served.model, rows, pooling, normalize=normalize, cancel=cancel))
    return found, sum(map(len, rows))
