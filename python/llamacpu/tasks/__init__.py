"""Tasks other than text generation: embeddings, reranking and moderation."""
