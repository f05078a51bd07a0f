"""LangChain embeddings based on `llamacpu.Llama`; programs import them from `llamacpu.integrations.langchain`."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.utils import from_env
from pydantic import BaseModel, Field, PrivateAttr

from llamacpu.llama import Llama

__all__ = ["LlamaCpuEmbeddings", "path_of_environment"]

_PLACE = "LLAMACPU_MODEL_PATH"


def path_of_environment() -> str:
    """The path in the environment variable LLAMACPU_MODEL_PATH. Raises ValueError if it is not set."""
    words = f"there is no model_path; name a .gguf file, or set {_PLACE} to its path"
    found: str = from_env(_PLACE, error_message=words)()
    return found


class LlamaCpuEmbeddings(BaseModel, Embeddings):
    """Embeddings of texts from a GGUF file."""

    model_path: str = Field(default_factory=path_of_environment)
    """Path of the file; defaults to the environment variable LLAMACPU_MODEL_PATH."""
    n_ctx: int = 0
    """Maximum number of tokens of a text; 0 for the model's training context."""
    n_threads: int | None = None
    """Number of threads; None for as many as the machine provides."""
    pooling_type: int = -1
    """Pooling: 1 the mean over the tokens, 2 the first token, 3 the last; -1 for the file's setting, else the mean."""
    normalize: bool = True
    """Whether embeddings are scaled to Euclidean length 1."""
    truncate: bool = True
    """Whether texts that are too long are cut; otherwise they raise ValueError."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Other arguments of `llamacpu.Llama`."""

    _llama: Llama = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Open the file."""
        super().model_post_init(context)
        chosen = {"n_ctx": self.n_ctx, "n_threads": self.n_threads, **self.model_kwargs}
        self._llama = Llama(self.model_path, embedding=True, **{"pooling_type": self.pooling_type, **chosen})
        if self._llama.pooling_type() == 0:
            self._llama.close()
            self._llama = Llama(self.model_path, embedding=True, pooling_type=1, **chosen)
        self._llama.n_batch = self._llama.n_ctx()

    @property
    def llama(self) -> Llama:
        """The underlying `llamacpu.Llama`."""
        return self._llama

    def close(self) -> None:
        """Free the model's memory; the object cannot be used afterwards."""
        self._llama.close()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the embeddings of texts."""
        found = self._llama.embed(list(texts), normalize=self.normalize, truncate=self.truncate) if texts else []
        return [list(vector) for vector in found]

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a text."""
        return self.embed_documents([text])[0]
