"""GGUF files: header, metadata, tensor table."""
