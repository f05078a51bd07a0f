"""Ollama's API: generate, chat, embeddings, and model information."""

from llamacpu.server.ollama.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
