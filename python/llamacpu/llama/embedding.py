"""The embeddings of `Llama`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.tasks.embeddings import most_tokens, pooling_name, pooling_number, vectors

if TYPE_CHECKING:
    from llamacpu.llama.conversation import Conversation
    from llamacpu.llama.text import LlamaText

__all__ = ["Embeddings"]


class Embeddings:
    """Computes embeddings with the model of a conversation, without changing the conversation.

    wanted          whether the `Llama` was created with embedding=True
    asked_pooling   the pooling type, by llama.cpp's numbers; -1 for the file's setting
    n_batch         maximum number of tokens of a text
    """

    def __init__(
        self,
        conversation: Conversation,
        text: LlamaText,
        metadata: Mapping[str, Any],
        model_path: str,
        *,
        wanted: bool,
        asked_pooling: int,
        n_batch: int,
    ) -> None:
        self.wanted = wanted
        self.n_batch = n_batch
        self._conversation = conversation
        self._text = text
        self._metadata = metadata
        self._model_path = model_path
        self._asked_pooling = asked_pooling

    def pooling_type(self) -> int:
        """Return how `embed` combines token vectors into one.

        0 is no pooling, 1 the mean, 2 the first token, 3 the last one, 4 the scores of the model's classifier. The
        result is the requested type, else the file's setting, else 0.
        """
        asked = self._asked_pooling if self._asked_pooling != -1 else pooling_number(self._metadata)
        return max(asked, 0)

    def create_embedding(self, input: str | Sequence[str], model: str | None = None) -> dict[str, Any]:
        """Return the embeddings of texts in the format of the OpenAI API.

        Raises RuntimeError unless the Llama was created with embedding=True.
        """
        texts = [input] if isinstance(input, str) else list(input)
        vectors, count = self.embed(texts, return_count=True)
        data = [{"object": "embedding", "embedding": vector, "index": i} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": model or self._model_path, "usage": usage}

    def embed(
        self,
        input: str | Sequence[str],
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """Return the embedding of a text, or a list of those of several texts.

        An embedding is a list of numbers, or without pooling a list of such lists, one for each token.

        normalize     scale every embedding to Euclidean length 1
        truncate      cut texts longer than `n_batch` or the context; otherwise they raise ValueError
        return_count  also return the number of tokens

        Raises RuntimeError unless the Llama was created with embedding=True. The conversation is not changed.
        """
        if not self.wanted:
            raise RuntimeError("embeddings need a Llama that was made with embedding=True")
        texts = [input] if isinstance(input, str) else list(input)
        pooling = pooling_name(self.pooling_type())
        model = self._conversation.model
        limit = min(most_tokens(model, self._conversation.n_ctx()), self.n_batch)
        count = 0

        def tokens() -> Iterator[list[int]]:
            nonlocal count
            for text in texts:
                ids = self._text.tokenize(text.encode())
                if len(ids) > limit and not truncate:
                    raise ValueError(
                        f"a text has {len(ids)} tokens, and n_ctx and n_batch allow {limit}; shorten it or truncate"
                    )
                ids = model.tokenizer.truncate(ids, limit)
                count += len(ids)
                yield ids

        found = vectors(model, tokens(), pooling, normalize=normalize, kv_type=self._conversation.kv_type)
        lists = [vector.tolist() for vector in found]
        output = lists[0] if isinstance(input, str) else lists
        return (output, count) if return_count else output

    def rank(self, query: str, documents: Sequence[str], truncate: bool = True) -> list[float]:
        """Score how well each document answers the query; see `Model.rank`. The conversation is not changed."""
        from llamacpu.tasks.reranking import rank

        found: list[float] = rank(self._conversation.model, query, documents, truncate=truncate).tolist()
        return found
