"""Types for the messages, tools and response formats of a request, in the format of the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

__all__ = ["ChatMessage", "ChatTool", "ResponseFormat", "ToolChoice"]


class _TextPart(TypedDict):
    type: Literal["text"]
    text: str


class _CalledFunction(TypedDict):
    name: str
    arguments: str


class _ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: _CalledFunction


Content: TypeAlias = str | Sequence[_TextPart]


class SystemMessage(TypedDict):
    """A system message: how the model should behave."""

    role: Literal["system", "developer"]
    content: Content


class _User(TypedDict):
    role: Literal["user"]
    content: Content


class UserMessage(_User, total=False):
    """A message of the user."""

    name: str


class _Assistant(TypedDict):
    role: Literal["assistant"]


class AssistantMessage(_Assistant, total=False):
    """An earlier answer: its text, the tools it called, or both."""

    content: Content | None
    reasoning_content: str | None
    tool_calls: Sequence[_ToolCall] | None
    name: str


class _Tool(TypedDict):
    role: Literal["tool"]
    content: Content


class ToolMessage(_Tool, total=False):
    """The result of a tool call."""

    tool_call_id: str
    name: str


ChatMessage: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage
"""A message of a conversation."""


class _Function(TypedDict):
    name: str


class ToolFunction(_Function, total=False):
    """A function that the model may call; `parameters` is a JSON schema of an object."""

    description: str
    parameters: Mapping[str, Any]
    strict: bool | None


class ChatTool(TypedDict):
    """A tool that the model may call."""

    type: Literal["function"]
    function: ToolFunction


class _Named(TypedDict):
    name: str


class _ChosenFunction(TypedDict):
    type: Literal["function"]
    function: _Named


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | _ChosenFunction
"""Whether a tool is called: never, as the model decides, any one, or the named one."""


class _TextFormat(TypedDict):
    type: Literal["text"]


class _JSONObject(TypedDict):
    type: Literal["json_object"]


class JSONObjectFormat(_JSONObject, total=False):
    """An answer in JSON, valid under a schema if one is given."""

    schema: Mapping[str, Any]


class _Schema(TypedDict):
    schema: Mapping[str, Any]


class NamedSchema(_Schema, total=False):
    """A JSON schema with a name."""

    name: str
    description: str
    strict: bool | None


class JSONSchemaFormat(TypedDict):
    """An answer in JSON that is valid under a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat: TypeAlias = _TextFormat | JSONObjectFormat | JSONSchemaFormat
"""The format of an answer: text, JSON, or JSON valid under a schema."""
