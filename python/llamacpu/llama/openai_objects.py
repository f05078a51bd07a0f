"""Responses as objects of the openai package instead of dictionaries."""

from __future__ import annotations

from typing import Any


def openai_objects(response: Any, *, stream: bool) -> Any:
    """A `ChatCompletion`, or for a stream an iterator of `ChatCompletionChunk`; see `import_openai`."""
    completion, chunk = import_openai()
    return (chunk(**each) for each in response) if stream else completion(**response)


def import_openai() -> tuple[Any, Any]:
    """The classes of whole and streamed answers. Raises ImportError without the openai package."""
    try:
        from openai.types.chat import ChatCompletion, ChatCompletionChunk
    except ImportError:
        raise ImportError(
            "create_chat_completion_openai_v1 needs the openai package; install it with: pip install openai"
        ) from None
    return ChatCompletion, ChatCompletionChunk
