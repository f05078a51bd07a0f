"""What a model is used for beside writing: embeddings and moderation."""
