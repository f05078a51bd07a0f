"""The embeddings of `Llama`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.tasks.embeddings import pooling_name, pooling_number, vectors

if TYPE_CHECKING:
    from llamacpu.answers.completions import Response
    from llamacpu.engine.interfaces import KVType
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.model import Model


class EmbeddingMethods:
    """What `Llama` inherits."""

    if TYPE_CHECKING:
        model_path: str
        n_batch: int
        _embedding: bool
        _file: GGUFFile
        _kv_type: KVType
        _pooling_type: int

        @property
        def model(self) -> Model: ...
        def n_ctx(self) -> int: ...
        def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = False) -> list[int]: ...

    def pooling_type(self) -> int:
        """How `embed` makes one vector of many: 0 not at all, 1 the mean, 2 the first token, 3 the last one.

        It is what was asked for, else what the file says, else 0.
        """
        asked = self._pooling_type if self._pooling_type != -1 else pooling_number(self._file.metadata)
        return max(asked, 0)

    def create_embedding(self, input: str | Sequence[str], model: str | None = None) -> Response:
        """Embeddings of texts, in the shape of the OpenAI interface."""
        texts = [input] if isinstance(input, str) else list(input)
        vectors, count = self.embed(texts, return_count=True)
        data = [{"object": "embedding", "embedding": vector, "index": i} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": model or self.model_path, "usage": usage}

    def embed(
        self,
        input: str | Sequence[str],
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """The embeddings of texts: a list of numbers, or without pooling a list of them for each token.

        normalize     scale every embedding to the Euclidean length 1
        truncate      leave out what is longer than `n_batch` or the context; otherwise that is a ValueError
        return_count  return the number of tokens too

        RuntimeError unless the Llama was made with embedding=True. The conversation is not touched.
        """
        if not self._embedding:
            raise RuntimeError("embeddings need a Llama that was made with embedding=True")
        texts = [input] if isinstance(input, str) else list(input)
        pooling = pooling_name(self.pooling_type())
        limit = min(self.n_ctx(), self.n_batch)
        count = 0

        def tokens() -> Iterator[list[int]]:
            nonlocal count
            for text in texts:
                ids = self.tokenize(text.encode())
                if len(ids) > limit and not truncate:
                    raise ValueError(
                        f"a text has {len(ids)} tokens, and n_ctx and n_batch allow {limit}; shorten it or truncate"
                    )
                count += len(ids[:limit])
                yield ids[:limit]

        found = vectors(self.model, tokens(), pooling, normalize=normalize, kv_type=self._kv_type)
        lists = [vector.tolist() for vector in found]
        output = lists[0] if isinstance(input, str) else lists
        return (output, count) if return_count else output
