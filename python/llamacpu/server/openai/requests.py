"""The request bodies of the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llamacpu.server.bodies import Body
from llamacpu.server.sampling_fields import SamplingFields

__all__ = ["ChatRequest", "CompletionRequest", "EmbeddingRequest", "Message", "Progress", "Stop", "Tool", "stops"]

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Stop = Text | Annotated[list[Text], Field(max_length=32)] | None
Limit = Annotated[int, Field(ge=1, le=1 << 31)]
Bias = Annotated[dict[str, Annotated[float, Field(ge=-1000, le=1000)]], Field(max_length=4096)]


class Kept(BaseModel):
    """A part of a request whose additional fields are passed to the chat template."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class ImageUrl(Kept):
    """Where a picture is: a data URL, or an address if the server fetches pictures."""

    url: str
    detail: str | None = None


class Part(Kept):
    """A content part of a message: text or an image. Audio and files are rejected with an error."""

    type: Literal["text", "input_text", "output_text", "refusal", "image_url", "input_image", "input_audio", "file"]
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageUrl | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("input_audio", "file"):
            raise ValueError(f"parts of the type {value} are not read; this server understands text and pictures")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Part:
        if self.type in ("image_url", "input_image") and not self.image_url:
            raise ValueError(f"a part of the type {self.type} has no image_url; give its url, a data URL")
        return self

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect; a picture as it was sent."""
        if self.type not in ("image_url", "input_image"):
            return {"type": "text", "text": self.text or self.refusal or ""}
        url = self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url
        return {"type": "image_url", "image_url": {"url": url}}


class CalledFunction(Kept):
    """The function of a tool call; arguments are a JSON string or an object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(Kept):
    """A tool call in an earlier answer."""

    id: str | None = None
    type: Literal["function"] | None = "function"
    function: CalledFunction


class Message(Kept):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    reasoning_content: str | None = None

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect."""
        found = self.model_dump(exclude_none=True)
        found.setdefault("content", None)
        if isinstance(self.content, list):
            found["content"] = [part.for_template() for part in self.content]
        return found


class Function(Kept):
    """The definition of a function."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\"\\]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Kept):
    """A tool that the model may call."""

    type: Literal["function"] = "function"
    function: Function

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect."""
        return self.model_dump(exclude_none=True)


class NamedFunction(Body):
    """The name of a function."""

    name: str


class NamedTool(Body):
    """The choice of a specific tool."""

    type: Literal["function"] = "function"
    function: NamedFunction


class SchemaFormat(Body):
    """A JSON schema; `strict` forbids additional properties."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The response format."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    schema_: dict[str, Any] | bool | None = Field(None, alias="schema")

    def as_dict(self) -> dict[str, Any]:
        """Return it in the form that the layer of answers takes."""
        return self.model_dump(exclude_none=True, by_alias=True)


class StreamOptions(Body):
    """Options of a streamed response."""

    include_usage: bool | None = None


Progress = Annotated[
    bool | None,
    Field(
        description="With stream, as in llama-server: while the prompt is processed, chunks without text say in "
        "prompt_progress how many of its tokens are (total, cache, processed, time_ms) and pictures are encoded."
    ),
]


class Common(SamplingFields):
    """Fields shared by chat and text completions."""

    model: str | None = Field(None, max_length=500)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_progress: Progress = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Stop = None
    logit_bias: Bias | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    guided_json: dict[str, Any] | None = None
    """The schema as sent by clients of vLLM, among them Llama Stack."""
    user: str | None = None

    def bias(self) -> dict[int, float] | None:
        """Return the bias by token id. Raises ValueError for keys that are not token ids."""
        if self.logit_bias is None:
            return None
        wrong = next(
            (key for key in self.logit_bias if not (key.isascii() and key.isdecimal() and len(key) < 10)), None
        )
        if wrong is not None:
            raise ValueError(f"logit_bias has the key {wrong[:40]!r}; expected ids of tokens")
        return {int(key): value for key, value in self.logit_bias.items()}

    def form(self) -> dict[str, Any] | None:
        """Return the response format, whichever field defines it."""
        schema = self.json_schema if self.json_schema is not None else self.guided_json
        if self.response_format is None and schema is not None:
            return {"type": "json_schema", "json_schema": {"schema": schema}}
        return None if self.response_format is None else self.response_format.as_dict()


class ChatRequest(Common):
    """Request body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    tools: Annotated[list[Tool], Field(max_length=512)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    functions: Annotated[list[Function], Field(max_length=512)] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    continue_final_message: bool | None = None
    """Whether the answer continues the last message, which is from the assistant."""
    chat_template_kwargs: dict[str, Any] | None = None

    def variables(self) -> Mapping[str, Any]:
        """Return the variables of the chat template."""
        found = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            found.setdefault("reasoning_effort", self.reasoning_effort)
            if self.reasoning_effort == "none":
                found.setdefault("enable_thinking", False)
        return found


class CompletionRequest(Common):
    """Request body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None


class EmbeddingRequest(Body):
    """Request body of POST /v1/embeddings."""

    model: str | None = Field(None, max_length=500)
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    user: str | None = None


def stops(given: Stop) -> tuple[str, ...]:
    """Return the stop strings as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())
