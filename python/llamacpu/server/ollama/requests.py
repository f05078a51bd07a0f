"""The request bodies of Ollama's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llamacpu.server.bodies import Body

__all__ = [
    "ChatBody",
    "CopyBody",
    "CreateBody",
    "EmbedBody",
    "EmbeddingsBody",
    "GenerateBody",
    "ModelBody",
    "Options",
    "PullBody",
    "seconds_of",
]

Count = Annotated[int, Field(ge=-2, le=1 << 31)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Images = Annotated[list[str], Field(max_length=64)]
KeepAlive = str | float | int | None
Think = bool | Literal["low", "medium", "high", "max", "none"] | None
Form = Literal["", "json"] | dict[str, Any] | None

# Name of the field of `Sampling`; all other fields have the same name.
_OTHER_NAMES = {"repeat_last_n": "penalty_last_n"}
# Ollama's defaults that differ from llama.cpp's.
_DEFAULTS = {"top_p": 0.9, "min_p": 0.0}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Options(Body):
    """Generation options. Those of another engine (num_gpu, num_thread, ...) have no effect."""

    temperature: float | None = Field(None, ge=0, le=1000)
    top_k: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, ge=0, le=1)
    repeat_last_n: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    repeat_penalty: float | None = Field(None, gt=0, le=1000)
    presence_penalty: float | None = Field(None, ge=-1000, le=1000)
    frequency_penalty: float | None = Field(None, ge=-1000, le=1000)
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: float | None = Field(None, ge=0)
    mirostat_eta: float | None = Field(None, ge=0)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    num_predict: Count | None = None
    num_ctx: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    num_keep: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=32)] | None = None

    def sampling(self, metadata: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of `Sampling` that the request sets, and Ollama's defaults where nothing else sets them.

        The other sources are the settings that come with the model's name and the metadata of its file.
        """
        found: dict[str, Any] = {
            name: value
            for name, value in _DEFAULTS.items()
            if name not in preset and metadata.get(f"general.sampling.{name}") is None
        }
        for name, value in self:
            if value is not None and name not in ("num_predict", "num_ctx", "num_keep", "stop"):
                found[_OTHER_NAMES.get(name, name)] = value
        return found

    @property
    def most_tokens(self) -> int | None:
        """The maximum number of tokens of the answer; negative values mean no limit."""
        return None if self.num_predict is None or self.num_predict < 0 else self.num_predict

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ModelBody(Body):
    """The name of a model; `name` is the deprecated form."""

    model: str | None = Field(None, max_length=500)
    name: str | None = Field(None, max_length=500)
    verbose: bool | None = None

    @property
    def wanted(self) -> str | None:
        """The name of the model."""
        return self.model or self.name


class PullBody(ModelBody):
    """A model to download; connections to the registry are always encrypted, even with `insecure`."""

    stream: bool | None = None
    insecure: bool | None = None


class CopyBody(Body):
    """A model to copy under a second name."""

    source: str | None = Field(None, max_length=500)
    destination: str | None = Field(None, max_length=500)


class Answering(ModelBody):
    """Fields shared by /api/generate and /api/chat."""

    stream: bool | None = None
    format: Form = None
    options: Options | None = None
    keep_alive: KeepAlive = None
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def settings(self) -> Options:
        """The options; their defaults if the request has none."""
        return self.options or Options.model_validate({})

    @property
    def streamed(self) -> bool:
        """Whether the answer is streamed, which is the default."""
        return self.stream is not False

    @property
    def form(self) -> dict[str, Any] | None:
        """The response format in the form of the OpenAI API."""
        if not self.format:
            return None
        if self.format == "json":
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"schema": self.format}}

    @property
    def variables(self) -> dict[str, Any]:
        """Variables of the chat template."""
        if self.think is None:
            return {}
        if isinstance(self.think, str):
            return {"enable_thinking": self.think != "none", "reasoning_effort": self.think}
        return {"enable_thinking": self.think}


class GenerateBody(Answering):
    """Request body of POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: Annotated[list[int], Field(max_length=1 << 20)] | None = None
    raw: bool | None = None
    images: Images | None = None


class Kept(BaseModel):
    """A part of a message whose additional fields are passed to the chat template."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class OllamaCalled(Kept):
    """The function of a tool call."""

    name: str
    arguments: dict[str, Any] | str | None = None


class OllamaCall(Kept):
    """A tool call in an earlier answer."""

    id: str | None = None
    function: OllamaCalled


class OllamaMessage(Kept):
    """A message of the conversation."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | None = None
    thinking: str | None = None
    images: Images | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect."""
        found = self.model_dump(exclude_none=True, exclude={"thinking", "tool_name"})
        found.setdefault("content", "")
        if self.tool_name is not None:
            found["name"] = self.tool_name
        if self.thinking:
            found["reasoning_content"] = self.thinking
        return found


class OllamaFunction(Kept):
    """The definition of a function."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\"\\]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class OllamaTool(Kept):
    """A tool that the model may call."""

    type: Literal["function"] = "function"
    function: OllamaFunction

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect."""
        return self.model_dump(exclude_none=True)


class ChatBody(Answering):
    """Request body of POST /api/chat."""

    messages: Annotated[list[OllamaMessage], Field(max_length=10_000)] | None = None
    tools: Annotated[list[OllamaTool], Field(max_length=512)] | None = None


class CreateBody(ModelBody):
    """A new model based on an existing one; `modelfile` is the deprecated form of the settings."""

    base: str | None = Field(None, alias="from", max_length=500)
    modelfile: str | None = Field(None, max_length=4 << 20)
    system: str | None = None
    template: str | None = None
    license: str | list[str] | None = None
    parameters: dict[str, Any] | None = None
    messages: list[OllamaMessage] | None = None
    stream: bool | None = None
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    quantize: str | None = None


class EmbedBody(ModelBody):
    """Request body of POST /api/embed."""

    input: str | list[str]
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class EmbeddingsBody(ModelBody):
    """Request body of POST /api/embeddings (deprecated)."""

    prompt: str | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


def seconds_of(keep_alive: KeepAlive) -> float | None:
    """Return how long a model stays in memory, in seconds, from a number or a text such as "5m"; None is forever.

    Raises ValueError.
    """
    if isinstance(keep_alive, str):
        total, rest, sign = 0.0, keep_alive.strip(), 1
        if rest[:1] == "-":
            sign, rest = -1, rest[1:]
        if not rest:
            raise ValueError('keep_alive is empty; expected a time such as "5m", or -1 for ever')
        while rest:
            digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
            rest = rest[len(digits) :]
            unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
            rest = rest[len(unit) :]
            try:
                total += float(digits) * _UNITS[unit or "s"]
            except (ValueError, KeyError):
                raise ValueError(f'keep_alive is {keep_alive[:40]!r}; expected a time such as "5m"') from None
        keep_alive = sign * total
    return None if keep_alive is None or keep_alive < 0 else float(keep_alive)
