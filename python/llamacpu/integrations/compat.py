"""llamacpu under the name of llama-cpp-python, for programs that import ``llama_cpp``.

    import llamacpu.compat
    llamacpu.compat.install()
    from llama_cpp import Llama          # llamacpu.Llama

LangChain's ``ChatLlamaCpp`` and ``LlamaCpp`` and LlamaIndex's ``LlamaCPP`` run on it unchanged.
"""

from __future__ import annotations

import logging
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from llamacpu.constraints import gbnf_examples
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.schema_to_gbnf import json_schema_to_gbnf
from llamacpu.drafting import NGramDraft
from llamacpu.drafting.draft import MOST_TOKENS
from llamacpu.integrations.compat_library import CONSTANTS, FUNCTIONS, missing
from llamacpu.llama import Llama, function_calling, hf_formats, standard_formats, vision_handlers
from llamacpu.llama import caches as llama_caches
from llamacpu.llama import formats as llama_formats
from llamacpu.llama import tokenizer as llama_tokenizer
from llamacpu.llama import types as llama_types
from llamacpu.llama.state import LlamaState

__all__ = ["LogitsProcessorList", "MinTokensLogitsProcessor", "StoppingCriteriaList", "install", "uninstall"]

# The version of llama-cpp-python whose interface this module provides.
VERSION = "0.3.36"

Scores = npt.NDArray[np.single]
Tokens = npt.NDArray[np.intc]


class LogitsProcessorList(list[Callable[[Tokens, Scores], Scores]]):
    """A list of logits processors, applied one after another."""

    def __call__(self, input_ids: Tokens, scores: Scores) -> Scores:
        for process in self:
            scores = process(input_ids, scores)
        return scores


class StoppingCriteriaList(list[Callable[[Tokens, Scores], bool]]):
    """A list of stopping criteria, any one of which ends the text."""

    def __call__(self, input_ids: Tokens, logits: Scores) -> bool:
        return any(criterion(input_ids, logits) for criterion in self)


class MinTokensLogitsProcessor:
    """Forbids the end-of-text token until the answer has `min_tokens` tokens."""

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        self.min_tokens = min_tokens
        self.token_eos = token_eos
        self.prompt_tokens: int | None = None

    def __call__(self, input_ids: Tokens, scores: Scores) -> Scores:
        if self.prompt_tokens is None:
            self.prompt_tokens = len(input_ids)
        if len(input_ids) - self.prompt_tokens < self.min_tokens:
            scores[self.token_eos] = -np.inf
        return scores


class LlamaDraftModel(ABC):
    """Base class of draft models written for llama-cpp-python."""

    @abstractmethod
    def __call__(self, input_ids: Tokens, /, **kwargs: Any) -> Tokens:
        """Return tokens that may follow these."""


class LlamaPromptLookupDecoding(LlamaDraftModel, NGramDraft):
    """Proposes what followed an earlier occurrence of the last tokens; see `llamacpu.NGramDraft`."""

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        NGramDraft.__init__(self, min_match=1, max_tokens=max(1, min(num_pred_tokens, MOST_TOKENS)))
        self.max_ngram_size = max_ngram_size
        self.num_pred_tokens = num_pred_tokens

    def __call__(self, input_ids: Tokens, /, **kwargs: Any) -> Tokens:
        return self.find_candidate_pred_tokens(input_ids, self.max_ngram_size, self.num_pred_tokens)

    @staticmethod
    def find_candidate_pred_tokens(input_ids: Tokens, max_ngram_size: int, num_pred_tokens: int) -> Tokens:
        """Return up to `num_pred_tokens` tokens that followed the first earlier occurrence of the last tokens.

        The longest suffix that occurs earlier is used, of at most `max_ngram_size` tokens; without one the result is
        empty. The method is prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding.
        """
        count = len(input_ids)
        for size in range(min(max_ngram_size, count - 1), 0, -1):
            earlier = np.lib.stride_tricks.sliding_window_view(input_ids[: count - 1], size)
            found = np.flatnonzero((earlier == input_ids[count - size :]).all(axis=1))
            if len(found):
                start = int(found[0]) + size
                return input_ids[start : start + max(num_pred_tokens, 0)]
        return np.zeros(0, dtype=np.intc)


def _names() -> dict[str, dict[str, Any]]:
    """The names that each module of the package offers."""
    caches = {name: getattr(llama_caches, name) for name in llama_caches.__all__}
    shapes = llama_types.TYPES
    grammar = {
        "LlamaGrammar": Grammar,
        "LLAMA_GRAMMAR_DEFAULT_ROOT": "root",
        "json_schema_to_gbnf": json_schema_to_gbnf,
        **{name: value for name, value in vars(gbnf_examples).items() if name.endswith("_GBNF")},
    }
    formats = {
        **{name: getattr(llama_formats, name) for name in llama_formats.__all__},
        **{name: getattr(hf_formats, name) for name in hf_formats.__all__},
        **{name: getattr(function_calling, name) for name in function_calling.__all__},
        **{name: getattr(vision_handlers, name) for name in vision_handlers.__all__},
        **standard_formats.FUNCTIONS,
        **standard_formats.templates(),
    }
    tokenizer = {name: getattr(llama_tokenizer, name) for name in llama_tokenizer.__all__}
    drafts = {"LlamaDraftModel": LlamaDraftModel, "LlamaPromptLookupDecoding": LlamaPromptLookupDecoding}
    library = {**FUNCTIONS, **CONSTANTS}
    main = {
        "Llama": Llama,
        "LlamaDraftModel": LlamaDraftModel,
        "LlamaGrammar": Grammar,
        "LlamaState": LlamaState,
        "LogitsProcessor": Callable[[Tokens, Scores], Scores],
        "LogitsProcessorList": LogitsProcessorList,
        "MinTokensLogitsProcessor": MinTokensLogitsProcessor,
        "StoppingCriteria": Callable[[Tokens, Scores], bool],
        "StoppingCriteriaList": StoppingCriteriaList,
        **caches,
        **tokenizer,
        **shapes,
    }
    return {
        "": {**main, **library, "__version__": VERSION, "__getattr__": missing},
        "_internals": {"__getattr__": missing},
        "_logger": {"logger": logging.getLogger("llamacpu"), "set_verbose": lambda verbose: None},
        "llama": main,
        "llama_cache": caches,
        "llama_chat_format": formats,
        "llama_cpp": {**library, "__getattr__": missing},
        "llama_grammar": grammar,
        "llama_speculative": drafts,
        "llama_tokenizer": tokenizer,
        "llama_types": shapes,
    }


def install() -> types.ModuleType:
    """Make ``import llama_cpp`` return llamacpu in this process, and return that module.

    Raises RuntimeError if llama-cpp-python itself has already been imported: the two would share one name.
    """
    known = sys.modules.get("llama_cpp")
    if known is not None and not hasattr(known, "__llamacpu__"):
        raise RuntimeError("llama_cpp is imported already; call llamacpu.compat.install() before that")
    package = types.ModuleType("llama_cpp", "llamacpu under the name of llama-cpp-python.")
    package.__path__ = []
    package.__dict__["__llamacpu__"] = True
    for name, offered in _names().items():
        module = package
        if name:
            module = types.ModuleType(f"llama_cpp.{name}")
            sys.modules[module.__name__] = module
            setattr(package, name, module)
        module.__dict__.update(offered)
    sys.modules["llama_cpp"] = package
    return package


def uninstall() -> None:
    """Undo `install`: the next ``import llama_cpp`` looks for llama-cpp-python again."""
    if hasattr(sys.modules.get("llama_cpp"), "__llamacpu__"):
        for name in [name for name in sys.modules if name == "llama_cpp" or name.startswith("llama_cpp.")]:
            del sys.modules[name]
