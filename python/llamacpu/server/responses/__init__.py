"""The Responses API of OpenAI: conversations as items, without storage of earlier responses."""

from llamacpu.server.responses.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
