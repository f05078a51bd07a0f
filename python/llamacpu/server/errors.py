"""What a client receives when a request fails: a status and a message that says what was wrong and what to do."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import Any

from llamacpu.errors import (
    Cancelled,
    ContextOverflow,
    GGUFError,
    GrammarError,
    LlamaCpuError,
    ModelError,
    Overloaded,
    PictureError,
    TemplateError,
)

__all__ = ["ApiError", "invalid", "told"]

log: logging.Logger = logging.getLogger("llamacpu.server")

_FIELD = re.compile(r"([a-z][a-z0-9_]*) (?:is|has|names|holds|asks) ")


@dataclass
class ApiError(Exception):
    """A failed request with its HTTP status.

    param        the wrong field of the request, such as "messages[0].content"
    code         a machine-readable error code
    retry_after  seconds after which the same request may succeed
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: int | None = None

    def __str__(self) -> str:
        """Return the message."""
        return self.message

    @property
    def kind(self) -> str:
        """The type of the error, as the OpenAI API names it."""
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
        if self.status in kinds:
            return kinds[self.status]
        return "invalid_request_error" if self.status < 500 else "server_error"

    @property
    def headers(self) -> dict[str, str]:
        """Header fields that belong in the response."""
        found = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found

    def openai(self) -> dict[str, Any]:
        """Return the error object of the OpenAI API."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def ollama(self) -> dict[str, Any]:
        """Return the error object of Ollama's API."""
        return {"error": self.message}

    def anthropic(self) -> dict[str, Any]:
        """Return the error object of the Anthropic API."""
        kinds = {413: "request_too_large", 500: "api_error", 501: "api_error", 503: "overloaded_error"}
        kind = kinds.get(self.status, self.kind)
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def llama_server(self) -> dict[str, Any]:
        """Return the error object of llama-server."""
        return {"error": {"code": self.status, "message": self.message, "type": self.kind, "param": self.param}}

    def shaped(self, path: str) -> dict[str, Any]:
        """Return the error object of the API that a path belongs to."""
        if path.startswith("/api/"):
            return self.ollama()
        return self.anthropic() if path.startswith("/v1/messages") else self.openai()


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error for a request that is itself wrong (400)."""
    return ApiError(400, message, param, code)


def told(error: BaseException) -> ApiError:
    """Convert an exception of the layers below into the error that the client receives."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextOverflow):
        return invalid(text, "messages", "context_length_exceeded")
    if isinstance(error, PictureError):
        return invalid(text, "messages")
    if isinstance(error, TemplateError):
        return invalid(f"the chat template does not take these messages: {text}", "messages")
    if isinstance(error, GrammarError):
        return invalid(text, "response_format")
    if isinstance(error, Overloaded):
        # 429 if this client alone has too many requests, 503 if the server as a whole is full.
        status = 429 if error.scope == "client" else 503
        return ApiError(status, text, code="queue_full", retry_after=max(math.ceil(error.retry_after), 1))
    if isinstance(error, Cancelled):
        return ApiError(503, "the answer was cancelled; ask again", code="cancelled", retry_after=1)
    if isinstance(error, MemoryError):
        return ApiError(503, "not enough memory for this request; ask for less, or later", retry_after=10)
    if isinstance(error, ImportError):
        return ApiError(501, text, code="not_installed")
    if isinstance(error, (ModelError, GGUFError, LlamaCpuError)):
        log.error("a model failed: %s", text)
        return ApiError(500, text, code="model_error")
    if isinstance(error, (ValueError, OverflowError)):
        return invalid(text, _field(text))
    log.error("a request failed in a way that it should not", exc_info=error)
    return ApiError(500, "something went wrong that should not; the server's log has the details")


def _field(text: str) -> str | None:
    """The field that a message begins with, as in "top_p is 3; expected 0 to 1"."""
    match = _FIELD.match(text)
    return match[1] if match else None
