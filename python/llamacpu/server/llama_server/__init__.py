"""The endpoints of llama-server beyond the OpenAI API: completion, infill, tokens, templates, properties."""

from llamacpu.server.llama_server.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
