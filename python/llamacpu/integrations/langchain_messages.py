"""Conversion of LangChain's messages to those of the OpenAI API, and of answers to LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


def messages_of(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The messages in the form that `create_chat_completion` takes, including reasoning and calls that were not parsed.

    A message in Anthropic's form may become several: each tool result in it becomes a separate message.
    """
    found: list[dict[str, Any]] = []
    for message in messages:
        reasoning = ""
        if isinstance(message, AIMessage):
            reasoning = message.additional_kwargs.get("reasoning_content") or ""
            if isinstance(message.content, list):
                thoughts = [part for part in message.content if _kind(part) in _THOUGHTS]
                reasoning = reasoning or "\n".join(filter(None, map(_thought, thoughts)))
                content = [part for part in message.content if _kind(part) not in _THOUGHTS]
                message = message.model_copy(update={"content": content})
        # Results come right after their calls, and the user's text after the results.
        found += sorted(convert_to_openai_messages([message]), key=lambda made: made["role"] != "tool")
        if reasoning:
            found[-1]["reasoning_content"] = reasoning
    return found


# Types of reasoning blocks: Anthropic's and LangChain's.
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, Mapping) else None


def _thought(part: Mapping[str, Any]) -> str:
    return str(part.get("thinking") or part.get("reasoning") or "")


def _usage(usage: Mapping[str, Any] | None) -> dict[str, int] | None:
    if usage is None:
        return None
    given, made = usage["prompt_tokens"], usage["completion_tokens"]
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}


def result_of(response: Mapping[str, Any], name: str) -> ChatResult:
    """Convert a chat completion to LangChain's result."""
    choice = response["choices"][0]
    message = choice["message"]
    calls, invalid = [], []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        try:
            arguments = json.loads(function["arguments"] or "{}")
            if not isinstance(arguments, dict):
                raise ValueError(f"the arguments are {type(arguments).__name__}; an object was expected")
        except ValueError as error:
            wrong = {"name": function["name"], "args": function["arguments"], "id": call["id"], "error": str(error)}
            invalid.append(invalid_tool_call(**wrong))
        else:
            calls.append(tool_call(name=function["name"], args=arguments, id=call["id"]))
    metadata: dict[str, Any] = {"finish_reason": choice["finish_reason"], "model_name": name}
    metadata["model_provider"] = "llamacpu"
    if choice.get("logprobs") is not None:
        metadata["logprobs"] = choice["logprobs"]
    reasoning = message.get("reasoning_content")
    answer = AIMessage(
        content=message.get("content") or "",
        additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=_usage(response.get("usage")),
        response_metadata=metadata,
        id=response["id"],
    )
    info = {"finish_reason": choice["finish_reason"]}
    return ChatResult(
        generations=[ChatGeneration(message=answer, generation_info=info)], llm_output={"model_name": name}
    )


def chunk_of(name: str, choice: Mapping[str, Any]) -> ChatGenerationChunk | None:
    """Convert a chunk of an answer to LangChain's; None if it is empty."""
    delta = choice["delta"]
    calls = [
        tool_call_chunk(
            name=call["function"].get("name"), args=call["function"].get("arguments"), id=call.get("id"),
            index=call["index"],
        )
        for call in delta.get("tool_calls") or ()
    ]  # fmt: skip
    reasoning = delta.get("reasoning_content")
    content = delta.get("content") or ""
    if not (content or calls or reasoning):
        return None
    message = AIMessageChunk(
        content=content,
        additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
        tool_call_chunks=calls,
        id=name,
    )
    chances = choice.get("logprobs")
    return ChatGenerationChunk(message=message, generation_info={"logprobs": chances} if chances else None)


def last_chunk_of(reason: str | None, usage: Mapping[str, Any] | None, name: str) -> ChatGenerationChunk:
    """The last chunk of an answer: why it ended, and how many tokens it has."""
    metadata = {"finish_reason": reason, "model_name": name, "model_provider": "llamacpu"}
    message = AIMessageChunk(
        content="", response_metadata=metadata, usage_metadata=_usage(usage), chunk_position="last"
    )
    return ChatGenerationChunk(message=message, generation_info={"finish_reason": reason})
