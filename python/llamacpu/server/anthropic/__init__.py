"""The Anthropic API: messages, and how many tokens they have."""

from llamacpu.server.anthropic.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
