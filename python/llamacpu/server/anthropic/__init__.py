"""The Anthropic API: messages and token counting."""

from llamacpu.server.anthropic.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
