"""llamacpu under the name of llama-cpp-python, for programs that import ``llama_cpp``.

    import llamacpu.compat
    llamacpu.compat.install()
    from llama_cpp import Llama          # llamacpu.Llama

LangChain's ``ChatLlamaCpp`` and ``LlamaCpp`` and LlamaIndex's ``LlamaCPP`` run unchanged on it.
"""

from __future__ import annotations

import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from llamacpu.constraints.grammar import Grammar
from llamacpu.drafting import NGramDraft
from llamacpu.drafting.draft import MOST_TOKENS
from llamacpu.drafting.ngram import NGramDrafter
from llamacpu.llama import Llama
from llamacpu.llama import caches as llama_caches
from llamacpu.llama import formats as llama_formats
from llamacpu.llama import tokenizer as llama_tokenizer
from llamacpu.llama.state import LlamaState

__all__ = ["LogitsProcessorList", "MinTokensLogitsProcessor", "StoppingCriteriaList", "install", "uninstall"]

# The version of llama-cpp-python whose interface this is.
VERSION = "0.3.36"

_CONSTANTS: dict[str, int] = {
    "LLAMA_DEFAULT_SEED": 0xFFFFFFFF,
    "LLAMA_SPLIT_MODE_NONE": 0, "LLAMA_SPLIT_MODE_LAYER": 1, "LLAMA_SPLIT_MODE_ROW": 2,
    "LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED": -1, "LLAMA_ROPE_SCALING_TYPE_NONE": 0,
    "LLAMA_ROPE_SCALING_TYPE_LINEAR": 1, "LLAMA_ROPE_SCALING_TYPE_YARN": 2,
    "LLAMA_POOLING_TYPE_UNSPECIFIED": -1, "LLAMA_POOLING_TYPE_NONE": 0, "LLAMA_POOLING_TYPE_MEAN": 1,
    "LLAMA_POOLING_TYPE_CLS": 2, "LLAMA_POOLING_TYPE_LAST": 3, "LLAMA_POOLING_TYPE_RANK": 4,
    "LLAMA_ATTENTION_TYPE_UNSPECIFIED": -1, "LLAMA_ATTENTION_TYPE_CAUSAL": 0, "LLAMA_ATTENTION_TYPE_NON_CAUSAL": 1,
    "GGML_TYPE_F32": 0, "GGML_TYPE_F16": 1, "GGML_TYPE_Q4_0": 2, "GGML_TYPE_Q8_0": 8, "GGML_TYPE_BF16": 30,
}  # fmt: skip

Scores = npt.NDArray[np.single]
Tokens = npt.NDArray[np.intc]


class LogitsProcessorList(list[Callable[[Tokens, Scores], Scores]]):
    """Logits processors, one after the other."""

    def __call__(self, input_ids: Tokens, scores: Scores) -> Scores:
        for process in self:
            scores = process(input_ids, scores)
        return scores


class StoppingCriteriaList(list[Callable[[Tokens, Scores], bool]]):
    """Stopping criteria, of which one is enough."""

    def __call__(self, input_ids: Tokens, logits: Scores) -> bool:
        return any(criterion(input_ids, logits) for criterion in self)


class MinTokensLogitsProcessor:
    """Forbids the end-of-text token before `min_tokens` tokens of answer."""

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
    """Base of draft models that are written for llama-cpp-python."""

    @abstractmethod
    def __call__(self, input_ids: Tokens, /, **kwargs: Any) -> Tokens:
        """The tokens that may follow these."""


class LlamaPromptLookupDecoding(LlamaDraftModel, NGramDraft):
    """Proposes what followed the last tokens where they stood before; see `llamacpu.NGramDraft`."""

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        NGramDraft.__init__(self, min_match=1, max_tokens=max(1, min(num_pred_tokens, MOST_TOKENS)))
        self.max_ngram_size = max_ngram_size
        self.num_pred_tokens = num_pred_tokens

    def __call__(self, input_ids: Tokens, /, **kwargs: Any) -> Tokens:
        drafter = NGramDrafter([int(token) for token in input_ids], self.min_match)
        return np.array(drafter.propose(self.num_pred_tokens), dtype=np.intc)


# Functions of the C library that programs call to ask what it can do, or to keep it quiet.


def llama_supports_gpu_offload() -> bool:
    """False: everything is computed on the processor."""
    return False


def llama_supports_mmap() -> bool:
    """True: files are mapped."""
    return True


def llama_supports_mlock() -> bool:
    """False: pages are not locked in memory."""
    return False


def llama_max_devices() -> int:
    """1: the processor."""
    return 1


def llama_backend_init() -> None:
    """Nothing has to be prepared."""


def llama_backend_free() -> None:
    """Nothing has to be given back."""


def llama_log_callback(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself."""
    return function


def llama_log_set(callback: Any, user_data: Any) -> None:
    """Nothing is printed that could be kept quiet; the log is `logging.getLogger("llamacpu")`."""


def llama_print_system_info() -> bytes:
    """The instruction set and the number of threads in use."""
    from llamacpu.engine.machine import describe

    facts = describe()
    return f"{facts['architecture']} | {facts['isa']} | threads = {facts['threads']}".encode()


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    llama_backend_free,
    llama_backend_init,
    llama_log_callback,
    llama_log_set,
    llama_max_devices,
    llama_print_system_info,
    llama_supports_gpu_offload,
    llama_supports_mlock,
    llama_supports_mmap,
)


def _names() -> dict[str, dict[str, Any]]:
    """What each module of the package offers."""
    caches = {name: getattr(llama_caches, name) for name in llama_caches.__all__}
    formats = {name: getattr(llama_formats, name) for name in llama_formats.__all__}
    grammar = {"LlamaGrammar": Grammar}
    tokenizer = {name: getattr(llama_tokenizer, name) for name in llama_tokenizer.__all__}
    functions = {function.__name__: function for function in _FUNCTIONS}
    drafts = {"LlamaDraftModel": LlamaDraftModel, "LlamaPromptLookupDecoding": LlamaPromptLookupDecoding}
    main = {
        "Llama": Llama,
        "LlamaState": LlamaState,
        "LogitsProcessor": Callable[[Tokens, Scores], Scores],
        "LogitsProcessorList": LogitsProcessorList,
        "MinTokensLogitsProcessor": MinTokensLogitsProcessor,
        "StoppingCriteria": Callable[[Tokens, Scores], bool],
        "StoppingCriteriaList": StoppingCriteriaList,
        **caches,
        **grammar,
        **tokenizer,
    }
    return {
        "": {**main, **functions, **_CONSTANTS, "__version__": VERSION},
        "llama": main,
        "llama_cache": caches,
        "llama_chat_format": formats,
        "llama_cpp": {**functions, **_CONSTANTS},
        "llama_grammar": grammar,
        "llama_speculative": drafts,
        "llama_tokenizer": tokenizer,
    }


def _shape(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return dict[str, Any]


def install() -> types.ModuleType:
    """Make ``import llama_cpp`` give llamacpu in this process, and return that module.

    RuntimeError if llama-cpp-python itself has been imported already: both at once would meet in one name.
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
    # Programs name these types in annotations only: they are dicts.
    shapes = types.ModuleType("llama_cpp.llama_types")
    shapes.__dict__["__getattr__"] = _shape
    sys.modules[shapes.__name__] = shapes
    package.__dict__["llama_types"] = shapes
    sys.modules["llama_cpp"] = package
    return package


def uninstall() -> None:
    """Undo `install`: the next ``import llama_cpp`` looks for llama-cpp-python again."""
    if hasattr(sys.modules.get("llama_cpp"), "__llamacpu__"):
        for name in [name for name in sys.modules if name == "llama_cpp" or name.startswith("llama_cpp.")]:
            del sys.modules[name]
