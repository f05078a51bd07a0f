"""The request bodies of the Anthropic API, and their conversion to messages for chat templates."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from llamacpu.server.bodies import Body

__all__ = ["CountBody", "MessagesBody"]

StopText = Annotated[str, Field(min_length=1, max_length=1000)]
_READ = ("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking")


class AnthropicSource(Body):
    """A picture: its file in base64, or its address if the server fetches pictures."""

    type: Literal["base64", "url"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class AnthropicBlock(Body):
    """A content block of a message. Documents are rejected with an error."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[AnthropicBlock] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    source: AnthropicSource | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in _READ:
            raise ValueError(
                f"blocks of the type {value[:40]} are not read; this server understands text, pictures and tools"
            )
        return value

    @model_validator(mode="after")
    def _complete(self) -> AnthropicBlock:
        if self.type == "image" and (self.source is None or not (self.source.data or self.source.url)):
            raise ValueError("a block of the type image has no source; give its type base64 and its data")
        return self

    def parts(self) -> list[dict[str, Any]]:
        """Return text and pictures of the block, including nested blocks."""
        if isinstance(self.content, list):
            return [part for block in self.content for part in block.parts()]
        if self.type != "image":
            return [{"type": "text", "text": self.text or self.content or ""}]
        assert self.source is not None
        return [{"type": "image", "source": self.source.model_dump(exclude_none=True)}]

    def words(self) -> str:
        """Return the text of the block, including nested blocks."""
        if isinstance(self.content, list):
            return "".join(block.words() for block in self.content)
        return self.text or self.content or ""


class AnthropicMessage(Body):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[AnthropicBlock]

    def for_template(self) -> list[dict[str, Any]]:
        """Return messages in the form that chat templates expect; tool results become separate messages."""
        if isinstance(self.content, str):
            return [{"role": self.role, "content": self.content}]
        found: list[dict[str, Any]] = []
        for block in self.content:
            if block.type == "tool_result":
                content = block.words() if not _shows(block.parts()) else block.parts()
                found.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
        parts = [part for block in self.content if block.type in ("text", "image") for part in block.parts()]
        text: Any = parts if _shows(parts) else "".join(part["text"] for part in parts)
        calls = [
            {
                "id": block.id,
                "type": "function",
                "function": {"name": block.name or "", "arguments": json.dumps(block.input or {}, ensure_ascii=False)},
            }
            for block in self.content
            if block.type == "tool_use"
        ]
        thought = "".join(block.thinking or "" for block in self.content if block.type == "thinking")
        if text or calls or not found:
            message: dict[str, Any] = {"role": self.role, "content": text}
            if calls:
                message["tool_calls"] = calls
            if thought:
                message["reasoning_content"] = thought
            found.append(message)
        return found


def _shows(parts: list[dict[str, Any]]) -> bool:
    return any(part["type"] == "image" for part in parts)


class AnthropicTool(Body):
    """A tool that the model may call. Server-side tools are rejected with an error."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\"\\]+$")]
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    strict: bool | None = None

    @field_validator("type")
    @classmethod
    def _custom(cls, value: str | None) -> str | None:
        if value not in (None, "custom"):
            raise ValueError("tools that the server runs itself are not offered; give tools with an input_schema")
        return value

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.input_schema or {"type": "object"}}
        if self.description is not None:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


class AnthropicChoice(Body):
    """Tool choice: whether a tool is called, and which one."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    def as_openai(self) -> Any:
        """Return the choice in the form of the OpenAI API. Raises ValueError."""
        if self.type == "tool":
            if not self.name:
                raise ValueError("tool_choice is a tool without name; give its name")
            return {"type": "function", "function": {"name": self.name}}
        return {"auto": "auto", "any": "required", "none": "none"}[self.type]


class AnthropicThinking(Body):
    """Extended thinking: whether the model reasons before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = None


class AnthropicFormat(Body):
    """Output format of the answer."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class AnthropicOutput(Body):
    """Output settings."""

    format: AnthropicFormat | None = None


class CountBody(Body):
    """Request body of POST /v1/messages/count_tokens."""

    model: str | None = Field(None, max_length=500)
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, max_length=10_000)]
    system: str | list[AnthropicBlock] | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=512)] | None = None
    tool_choice: AnthropicChoice | None = None
    thinking: AnthropicThinking | None = None

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages in the form that chat templates expect."""
        found: list[dict[str, Any]] = []
        if self.system:
            words = self.system if isinstance(self.system, str) else "".join(block.words() for block in self.system)
            found.append({"role": "system", "content": words})
        for message in self.messages:
            found += message.for_template()
        return found

    def variables(self) -> dict[str, Any]:
        """Return the variables of the chat template."""
        return {} if self.thinking is None else {"enable_thinking": self.thinking.type != "disabled"}


class MessagesBody(CountBody):
    """Request body of POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=1 << 31)]
    stop_sequences: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=32)] | None
    ) = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Annotated[int, Field(ge=-1, le=1 << 31)] | None = None
    output_config: AnthropicOutput | None = None

    def form(self) -> dict[str, Any] | None:
        """Return the response format in the form of the OpenAI API."""
        if self.output_config is None or self.output_config.format is None:
            return None
        return {"type": "json_schema", "json_schema": {"schema": self.output_config.format.schema_}}
