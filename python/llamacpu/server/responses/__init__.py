"""The Responses API of OpenAI: conversations as items, without any memory of earlier ones."""

from llamacpu.server.responses.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
