"""A short table of popular models, for "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["KNOWN", "did_you_mean"]

KNOWN = (
    "codellama", "codellama:7b-code", "command-r", "deepseek-r1", "deepseek-r1:8b", "deepseek-v2", "gemma",
    "gemma2", "gemma2:2b", "gemma3", "gemma3:1b", "gpt-oss", "gpt-oss:20b", "granite3.3", "llama2", "llama3",
    "llama3:8b", "llama3.1", "llama3.1:8b", "llama3.2", "llama3.2:1b", "llama3.2:3b", "llama3.3", "llama4",
    "llama-guard3", "llama-guard3:1b", "mistral", "mistral-nemo", "mistral-small", "mixtral", "nomic-embed-text",
    "olmo2", "orca-mini", "phi3", "phi3.5", "qwen2", "qwen2.5", "qwen2.5:0.5b", "qwen2.5-coder", "qwen3",
    "qwen3:0.6b", "qwen3:4b", "smollm", "smollm2", "smollm2:135m", "stablelm2", "starcoder2", "tinyllama",
    "vicuna", "zephyr",
)  # fmt: skip
"""Names in Ollama's registry whose architectures this version can run."""


def did_you_mean(name: str, local: Iterable[str] = ()) -> str:
    """Return "; did you mean ...?" for an unknown name, "" if no known name is similar."""
    choices = list(dict.fromkeys([*local, *KNOWN]))
    close = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.6)
    if not close:
        plain = name.lower().replace("-", "").replace("_", "").replace(" ", "")
        close = [known for known in choices if known.replace("-", "") in (plain, plain.partition(":")[0])][:3]
    return f"; did you mean {' or '.join(close)}?" if close else ""
