"""Run the Llama family of language models from GGUF files on any CPU.

    import llamacpu

    llm = llamacpu.Llama("model.gguf")             # the easy front
    model = llamacpu.Model("model.gguf")           # token ids in, logits out

Names are imported when they are first used, so that `import llamacpu` costs next to nothing.
"""

from __future__ import annotations

import importlib

# Type checkers recognize this name; importing typing would account for most of this package's import time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from llamacpu import kernels
    from llamacpu.chat import ChatTemplate
    from llamacpu.checkpoints.checkpoint import Checkpoint
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.drafting import LearnedDraft, ModelDraft, NGramDraft
    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.engine.session import Session
    from llamacpu.errors import (
        Cancelled,
        CheckpointError,
        ContextOverflow,
        GGUFError,
        GrammarError,
        LlamaCpuError,
        ModelError,
        Overloaded,
        PictureError,
        SessionError,
        StoreError,
        TemplateError,
        TrainingError,
    )
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.llama import Llama
    from llamacpu.model import Model
    from llamacpu.sampling import Sampler, Sampling
    from llamacpu.scheduler import Engine
    from llamacpu.server import serve
    from llamacpu.text.tokenizer import Tokenizer
    from llamacpu.tools.compare import compare
    from llamacpu.tools.control_vectors import control_vector
    from llamacpu.tools.convert import convert
    from llamacpu.tools.convert_lora import convert_lora
    from llamacpu.tools.imatrix import imatrix
    from llamacpu.tools.merge import merge
    from llamacpu.tools.perplexity import perplexity
    from llamacpu.tools.quantize import quantize
    from llamacpu.tools.train import TrainingResult, TrainingSettings, train

__all__ = [
    "CancelToken",
    "Cancelled",
    "ChatTemplate",
    "Checkpoint",
    "CheckpointError",
    "ContextOverflow",
    "Engine",
    "GGUFError",
    "GGUFFile",
    "Grammar",
    "GrammarError",
    "LearnedDraft",
    "Llama",
    "LlamaCpuError",
    "Model",
    "ModelDraft",
    "ModelError",
    "NGramDraft",
    "Overloaded",
    "PictureError",
    "Sampler",
    "Sampling",
    "Session",
    "SessionError",
    "StoreError",
    "TemplateError",
    "Tokenizer",
    "TrainingError",
    "TrainingResult",
    "TrainingSettings",
    "__version__",
    "compare",
    "control_vector",
    "convert",
    "convert_lora",
    "imatrix",
    "kernels",
    "merge",
    "perplexity",
    "quantize",
    "serve",
    "train",
]

_MODULES = {
    "CancelToken": "engine.interfaces",
    "Cancelled": "errors",
    "ChatTemplate": "chat",
    "Checkpoint": "checkpoints.checkpoint",
    "CheckpointError": "errors",
    "ContextOverflow": "errors",
    "Engine": "scheduler",
    "GGUFError": "errors",
    "GGUFFile": "gguf.file",
    "Grammar": "constraints.grammar",
    "GrammarError": "errors",
    "Llama": "llama",
    "LlamaCpuError": "errors",
    "Model": "model",
    "LearnedDraft": "drafting",
    "ModelDraft": "drafting",
    "ModelError": "errors",
    "NGramDraft": "drafting",
    "Overloaded": "errors",
    "PictureError": "errors",
    "Sampler": "sampling",
    "Sampling": "sampling",
    "Session": "engine.session",
    "SessionError": "errors",
    "StoreError": "errors",
    "TemplateError": "errors",
    "Tokenizer": "text.tokenizer",
    "TrainingError": "errors",
    "TrainingResult": "tools.train",
    "TrainingSettings": "tools.train",
    "compare": "tools.compare",
    "control_vector": "tools.control_vectors",
    "imatrix": "tools.imatrix",
    "merge": "tools.merge",
    "perplexity": "tools.perplexity",
    "quantize": "tools.quantize",
    "convert": "tools.convert",
    "convert_lora": "tools.convert_lora",
    "serve": "server",
    "train": "tools.train",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(f"llamacpu.{_MODULES[name]}"), name)
    elif name == "kernels":
        value = importlib.import_module("llamacpu.kernels")
    elif name == "__version__":
        value = importlib.import_module("llamacpu._native").__version__
    else:
        raise AttributeError(f"module 'llamacpu' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
