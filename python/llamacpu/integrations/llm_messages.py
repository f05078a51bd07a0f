"""What ``llm`` hands over as a prompt, as messages of the OpenAI API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

__all__ = ["messages_of"]


def messages_of(prompt: Any, conversation: Any) -> list[dict[str, Any]]:
    """The conversation up to this prompt.

    Versions of ``llm`` with messages put the whole conversation into the prompt; earlier ones hand over the earlier
    responses beside it.
    """
    if hasattr(prompt, "messages"):
        return [made for message in prompt.messages for made in _from_parts(message)]
    turns = [*((r.prompt, r) for r in (conversation.responses if conversation else ())), (prompt, None)]
    messages: list[dict[str, Any]] = []
    system = next((turn.system for turn, _ in turns if turn.system), None)
    if system:
        messages.append({"role": "system", "content": system})
    for turn, answer in turns:
        for result in getattr(turn, "tool_results", None) or ():
            messages.append({"role": "tool", "content": str(result.output), "tool_call_id": result.tool_call_id})
        content = _content(turn.prompt, turn.attachments)
        if content:
            messages.append({"role": "user", "content": content})
        if answer is not None:
            messages.append(_answer(answer.text_or_raise(), answer.tool_calls_or_raise()))
    return messages


def _from_parts(message: Any) -> list[dict[str, Any]]:
    """A message of parts: results of tools become messages of their own."""
    from llm import parts

    def of(kind: Any) -> list[Any]:
        return [part for part in message.parts if isinstance(part, kind)]

    text = "\n".join(part.text for part in of(parts.TextPart) if part.text)
    attachments = [part.attachment for part in of(parts.AttachmentPart)]
    results = of(parts.ToolResultPart)
    found = [
        {"role": "tool", "content": _content(part.output, part.attachments), "tool_call_id": part.tool_call_id}
        for part in results
    ]
    if message.role == "assistant":
        answer = _answer(text, of(parts.ToolCallPart))
        reasoning = "\n".join(part.text for part in of(parts.ReasoningPart) if part.text)
        return [{**answer, "reasoning_content": reasoning} if reasoning else answer]
    if message.role == "system":
        return [{"role": "system", "content": text}]
    content = _content(text, attachments)
    return [*found, {"role": "user", "content": content}] if content or not found else found


def _content(text: str, attachments: Iterable[Any] | None) -> str | list[dict[str, Any]]:
    """A text, with pictures before it."""
    pictures = [_picture(attachment) for attachment in attachments or ()]
    return [*pictures, *([{"type": "text", "text": text}] if text else [])] if pictures else text or ""


def _picture(attachment: Any) -> dict[str, Any]:
    data = base64.b64encode(attachment.content_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{attachment.resolve_type()};base64,{data}"}}


def _answer(text: str, calls: Iterable[Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    functions = [
        {
            "id": call.tool_call_id or "000000000",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for call in calls
    ]
    return {**message, "tool_calls": functions} if functions else message
