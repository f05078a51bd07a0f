"""The endpoints that llama-server has besides the OpenAI API: completion, infill, tokens, templates, properties."""

from llamacpu.server.llama_server.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
