"""The request bodies of llama-server."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from llamacpu.server.bodies import Body
from llamacpu.server.openai.requests import Message, Progress, Stop, Tool
from llamacpu.server.sampling_fields import LoraScale, SamplingFields

__all__ = [
    "ApplyTemplate",
    "Completion",
    "Detokenize",
    "EmbeddingBody",
    "Infill",
    "LoraScales",
    "MediaPrompt",
    "RerankBody",
    "Tokenize",
]


class MediaPrompt(Body):
    """A prompt of text and pictures: one picture for each <__media__> in the text."""

    prompt_string: str
    multimodal_data: Annotated[list[str], Field(max_length=4096)] = Field(default_factory=list)


Ids = list[int]
Prompt = str | MediaPrompt | Ids | list[str | int] | list[str | Ids | list[str | int] | MediaPrompt]
Biased = dict[str, float | bool] | Annotated[list[list[Any]], Field(max_length=4096)]


class NativeFields(SamplingFields):
    """Fields shared by /completion and /infill."""

    model: str | None = Field(None, max_length=500)
    n_predict: Annotated[int, Field(ge=-2, le=1 << 31)] | None = None
    max_tokens: Annotated[int, Field(ge=-2, le=1 << 31)] | None = None
    stream: bool | None = None
    return_progress: Progress = None
    stop: Stop = None
    n_probs: Annotated[int, Field(ge=0, le=100)] | None = None
    n_keep: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    logit_bias: Biased | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    return_tokens: bool | None = None
    timings_per_token: bool | None = None
    post_sampling_probs: bool | None = None
    t_max_predict_ms: Annotated[float, Field(ge=0)] | None = None
    cache_prompt: bool | None = None
    id_slot: int | None = None
    response_fields: Annotated[list[str], Field(max_length=100)] | None = None

    @property
    def most_tokens(self) -> int | None:
        """The maximum number of tokens of the answer; negative values mean no limit."""
        given = self.max_tokens if self.n_predict is None else self.n_predict
        return None if given is None or given < 0 else given


class Completion(NativeFields):
    """Request body of POST /completion."""

    prompt: Prompt = ""


class InfillFile(Body):
    """Another file of the project, as additional context."""

    text: str = ""
    filename: str | None = None


class Infill(NativeFields):
    """Request body of POST /infill: fill in the middle between a prefix and a suffix."""

    input_prefix: str = ""
    input_suffix: str = ""
    prompt: str = ""
    input_extra: Annotated[list[InfillFile], Field(max_length=100)] | None = None


class Tokenize(Body):
    """Request body of POST /tokenize."""

    model: str | None = Field(None, max_length=500)
    content: str = ""
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class Detokenize(Body):
    """Request body of POST /detokenize."""

    model: str | None = Field(None, max_length=500)
    tokens: list[int] = Field(default_factory=list)


class ApplyTemplate(Body):
    """Request body of POST /apply-template."""

    model: str | None = Field(None, max_length=500)
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    tools: Annotated[list[Tool], Field(max_length=512)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class RerankBody(Body):
    """Request body of POST /v1/rerank, in the format of Jina or of Text Embeddings Inference (with `texts`)."""

    model: str | None = Field(None, max_length=500)
    query: str
    documents: list[str] | None = None
    texts: list[str] | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    return_text: bool = False


class LoraScales(Body):
    """Request body of POST /lora-adapters."""

    lora: Annotated[list[LoraScale], Field(max_length=256)]


class EmbeddingBody(Body):
    """Request body of POST /embedding."""

    model: str | None = Field(None, max_length=500)
    content: str | list[str] | Ids | None = None
    input: str | list[str] | Ids | None = None
