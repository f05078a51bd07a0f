"""POST /rerank and /v1/rerank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import ModelError
from llamacpu.server.errors import invalid
from llamacpu.server.llama_server.requests import RerankBody
from llamacpu.server.prompts import using
from llamacpu.server.streams import JsonResponse, while_connected
from llamacpu.tasks import reranking

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call
    from llamacpu.server.served import Served

__all__ = ["rerank"]


async def rerank(call: Call) -> Response:
    """Rank documents for a query, best first: Jina's format or, with `texts`, that of Text Embeddings Inference."""
    body: RerankBody = call.body
    documents = body.texts if body.documents is None else body.documents
    if not documents:
        raise invalid("documents is missing or empty; expected a list of texts", "documents")
    if len(documents) > call.state.settings.inputs:
        most = call.state.settings.inputs
        raise invalid(f"documents has {len(documents)} texts; this server takes {most} at once", "documents")
    async with using(call, body.model) as use:
        cancel = CancelToken(call.state.settings.timeout)
        work = call.state.work.long(_scores, use.served, body.query, documents, cancel)
        scores, tokens = await while_connected(call.request, work, cancel.cancel)
        name = use.served.name
    order = sorted(range(len(documents)), key=lambda index: (-scores[index], index))[: body.top_n]
    if body.documents is None:
        return JsonResponse(
            [
                {"index": index, "score": scores[index], **({"text": documents[index]} if body.return_text else {})}
                for index in order
            ]
        )
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in order]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": documents[result["index"]]}
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JsonResponse({"model": name, "object": "list", "usage": usage, "results": results})


def _scores(served: Served, query: str, documents: list[str], cancel: CancelToken) -> tuple[list[float], int]:
    try:
        reranking.check(served.model)
    except ModelError as error:
        raise invalid(str(error), "model") from None
    texts = list(reranking.pairs(served.model, query, documents, truncate=True))
    found = reranking.scores(served.model, iter(texts), cancel)
    return found.tolist(), sum(len(text.ids) for text in texts)
