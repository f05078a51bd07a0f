"""The parts of the C library that the module `llama_cpp` offers: constants, capability queries and log functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CONSTANTS: dict[str, int] = {
    "LLAMA_DEFAULT_SEED": 0xFFFFFFFF,
    "LLAMA_SPLIT_MODE_NONE": 0, "LLAMA_SPLIT_MODE_LAYER": 1, "LLAMA_SPLIT_MODE_ROW": 2,
    "LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED": -1, "LLAMA_ROPE_SCALING_TYPE_NONE": 0,
    "LLAMA_ROPE_SCALING_TYPE_LINEAR": 1, "LLAMA_ROPE_SCALING_TYPE_YARN": 2,
    "LLAMA_POOLING_TYPE_UNSPECIFIED": -1, "LLAMA_POOLING_TYPE_NONE": 0, "LLAMA_POOLING_TYPE_MEAN": 1,
    "LLAMA_POOLING_TYPE_CLS": 2, "LLAMA_POOLING_TYPE_LAST": 3, "LLAMA_POOLING_TYPE_RANK": 4,
    "LLAMA_ATTENTION_TYPE_UNSPECIFIED": -1, "LLAMA_ATTENTION_TYPE_CAUSAL": 0, "LLAMA_ATTENTION_TYPE_NON_CAUSAL": 1,
    "LLAMA_VOCAB_TYPE_NONE": 0, "LLAMA_VOCAB_TYPE_SPM": 1, "LLAMA_VOCAB_TYPE_BPE": 2, "LLAMA_VOCAB_TYPE_WPM": 3,
    "LLAMA_FLASH_ATTN_TYPE_AUTO": -1, "LLAMA_FLASH_ATTN_TYPE_DISABLED": 0, "LLAMA_FLASH_ATTN_TYPE_ENABLED": 1,
    "GGML_TYPE_F32": 0, "GGML_TYPE_F16": 1, "GGML_TYPE_Q4_0": 2, "GGML_TYPE_Q4_1": 3, "GGML_TYPE_Q5_0": 6,
    "GGML_TYPE_Q5_1": 7, "GGML_TYPE_Q8_0": 8, "GGML_TYPE_Q8_1": 9, "GGML_TYPE_Q2_K": 10, "GGML_TYPE_Q3_K": 11,
    "GGML_TYPE_Q4_K": 12, "GGML_TYPE_Q5_K": 13, "GGML_TYPE_Q6_K": 14, "GGML_TYPE_Q8_K": 15, "GGML_TYPE_BF16": 30,
    "GGML_NUMA_STRATEGY_DISABLED": 0, "GGML_NUMA_STRATEGY_DISTRIBUTE": 1, "GGML_NUMA_STRATEGY_ISOLATE": 2,
}  # fmt: skip
"""Constants by their names in llama.cpp."""


def llama_supports_gpu_offload() -> bool:
    """Return False: everything is computed on the CPU."""
    return False


def llama_supports_mmap() -> bool:
    """Return True: files are memory-mapped."""
    return True


def llama_supports_mlock() -> bool:
    """Return False: pages are not locked in memory."""
    return False


def llama_max_devices() -> int:
    """Return 1: the CPU is the only device."""
    return 1


def llama_backend_init() -> None:
    """Do nothing: there is nothing to initialize."""


def llama_backend_free() -> None:
    """Do nothing: there is nothing to free."""


def llama_numa_init(numa: int) -> None:
    """Do nothing: there is nothing to configure."""


def llama_log_callback(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function unchanged."""
    return function


def llama_log_set(callback: Any, user_data: Any) -> None:
    """Do nothing: nothing is printed that could be redirected; the log is `logging.getLogger("llamacpu")`."""


def llama_print_system_info() -> bytes:
    """The instruction set and the number of threads in use."""
    from llamacpu.engine.machine import describe

    facts = describe()
    return f"{facts['architecture']} | {facts['isa']} | threads = {facts['threads']}".encode()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        llama_backend_free, llama_backend_init, llama_log_callback, llama_log_set, llama_max_devices, llama_numa_init,
        llama_print_system_info, llama_supports_gpu_offload, llama_supports_mlock, llama_supports_mmap,
    )
}  # fmt: skip
"""Functions by their names in llama.cpp."""


def missing(name: str) -> Any:
    """`__getattr__` of the modules: raise AttributeError, with an explanation for names of the C library."""
    if name.startswith(("llama_", "ggml_", "mtmd_")):
        raise AttributeError(
            f"{name} belongs to the C library of llama.cpp, which is not used here; use the methods of llama_cpp.Llama"
        )
    raise AttributeError(f"llamacpu.compat has no {name!r}")
