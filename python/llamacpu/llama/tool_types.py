"""The types of functions, tools and their calls, under the names of llama-cpp-python's module `llama_types`."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

JsonType = None | int | str | bool | list[Any] | dict[str, Any]
ChatCompletionFunctionParameters = dict[str, JsonType]


class _Named(TypedDict):
    name: str


class _Call(_Named):
    arguments: str


class ChatCompletionResponseFunctionCall(_Call):
    pass


class ChatCompletionRequestAssistantMessageFunctionCall(_Call):
    pass


class ChatCompletionStreamResponseDeltaFunctionCall(_Call):
    pass


class ChatCompletionMessageToolCallFunction(_Call):
    pass


class ChatCompletionMessageToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: ChatCompletionMessageToolCallFunction


ChatCompletionMessageToolCalls = list[ChatCompletionMessageToolCall]


class ChatCompletionMessageToolCallChunkFunction(TypedDict):
    name: str | None
    arguments: str


class _ToolCallChunk(TypedDict):
    index: int
    type: Literal["function"]
    function: ChatCompletionMessageToolCallChunkFunction


class ChatCompletionMessageToolCallChunk(_ToolCallChunk, total=False):
    id: str


class _Function(_Named):
    parameters: ChatCompletionFunctionParameters


class ChatCompletionFunction(_Function, total=False):
    description: str


class ChatCompletionFunctions(_Function, total=False):
    description: str


class ChatCompletionToolFunction(_Function, total=False):
    description: str


class ChatCompletionTool(TypedDict):
    type: Literal["function"]
    function: ChatCompletionToolFunction


class ChatCompletionFunctionCallOption(_Named):
    pass


class ChatCompletionRequestFunctionCallOption(_Named):
    pass


ChatCompletionRequestFunctionCall = Literal["none", "auto"] | ChatCompletionRequestFunctionCallOption


class ChatCompletionNamedToolChoiceFunction(_Named):
    pass


class ChatCompletionNamedToolChoice(TypedDict):
    type: Literal["function"]
    function: ChatCompletionNamedToolChoiceFunction


ChatCompletionToolChoiceOption = Literal["none", "auto", "required"] | ChatCompletionNamedToolChoice
