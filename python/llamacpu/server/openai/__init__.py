"""The OpenAI API: chat completions, text completions, embeddings, models, responses."""

from llamacpu.server.openai.endpoints import ENDPOINTS

__all__ = ["ENDPOINTS"]
