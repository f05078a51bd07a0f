"""Ollama's API: generate, chat, embeddings, and what it says of its models."""

from llamacpu.server.ollama.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
