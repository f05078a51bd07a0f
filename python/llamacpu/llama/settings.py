"""The arguments of `Llama`: checks, and the meaning of llama-cpp-python's arguments for this CPU engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from llamacpu import log
from llamacpu.arguments import Kinds, check_kinds, described, flag, function, integer, meant, number, path, texts
from llamacpu.drafting import Draft
from llamacpu.files import is_file
from llamacpu.generation.generate import draft_from
from llamacpu.model import Model

# Arguments that control where or how llama.cpp computes; results do not depend on them.
_NO_MEANING: Mapping[str, Any] = {
    "n_gpu_layers": 0,
    "split_mode": 1,
    "main_gpu": 0,
    "tensor_split": None,
    "use_mlock": False,
    "n_ubatch": 512,
    "n_threads_batch": None,
    "offload_kqv": True,
    "flash_attn": False,
    "op_offload": None,
    "swa_full": None,
    "no_perf": False,
    "numa": False,
    "lora_base": None,
}
# Arguments that would change what the model computes in a way that this engine does not support.
_NOT_CHANGEABLE: Mapping[str, Any] = {
    "yarn_attn_factor": 1.0,
    "attention_type": -1,
}
# Arguments that replace metadata: the value that keeps the file's metadata, and the key.
_METADATA: Mapping[str, tuple[Any, str]] = {
    "rope_freq_base": (0.0, ".rope.freq_base"),
    "yarn_ext_factor": (-1.0, ".rope.scaling.yarn_ext_factor"),
    "yarn_beta_fast": (32.0, ".rope.scaling.yarn_beta_fast"),
    "yarn_beta_slow": (1.0, ".rope.scaling.yarn_beta_slow"),
    "yarn_orig_ctx": (0, ".rope.scaling.original_context_length"),
}
_SCALINGS = {0: "none", 1: "linear", 2: "yarn"}
# Values that LangChain passes to every model, whatever its file says: treated as not given.
_NO_WISH = (("rope_freq_base", 10000.0), ("rope_freq_scale", 1.0), ("attention_type", 0))
# Arguments of older versions of llama-cpp-python, some of which LangChain still passes.
_RETIRED = frozenset(("f16_kv", "low_vram", "mul_mat_q", "n_gqa", "n_parts", "rms_norm_eps", "tensor_read_ahead"))
_KV_TYPES: Mapping[int | str | None, Literal["f32", "f16", "q8_0"]] = {
    None: "f16", 0: "f32", 1: "f16", 8: "q8_0", "f32": "f32", "f16": "f16", "q8_0": "q8_0",
}  # fmt: skip


# The arguments of completions, by kind of value.
COMPLETION_KINDS: Kinds = {
    number: (
        "temperature", "top_p", "min_p", "typical_p", "frequency_penalty", "presence_penalty", "repeat_penalty",
        "tfs_z", "mirostat_tau", "mirostat_eta", "timeout",
    ),
    integer: ("max_tokens", "top_k", "seed", "mirostat_mode", "top_logprobs"),
    flag: ("stream", "echo", "reasoning"),
    function: ("on_prompt", "on_picture", "formatter"),
    texts: ("stop",),
}  # fmt: skip
_KINDS: Kinds = {
    integer: (
        "n_gpu_layers", "split_mode", "main_gpu", "seed", "n_ctx", "n_batch", "n_ubatch", "n_threads",
        "n_threads_batch", "rope_scaling_type", "pooling_type", "attention_type", "yarn_orig_ctx",
        "last_n_tokens_size",
    ),
    number: (
        "rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast",
        "yarn_beta_slow", "lora_scale",
    ),
    flag: (
        "vocab_only", "use_mmap", "use_mlock", "logits_all", "embedding", "offload_kqv", "flash_attn", "op_offload",
        "swa_full", "no_perf", "spm_infill", "verbose",
    ),
    function: ("chat_handler", "on_load"),
    path: ("model_path",),
}  # fmt: skip


def check_completion(given: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for arguments of a completion with a value of the wrong kind."""
    check_kinds(given, COMPLETION_KINDS)
    grammar, bias = given.get("grammar"), given.get("logit_bias")
    if grammar is not None and not hasattr(grammar, "constraint"):
        raise TypeError(f"grammar is {described(grammar)}; expected a Grammar, as of Grammar.gbnf(text)")
    if bias is not None and not isinstance(bias, Mapping):
        raise TypeError(f"logit_bias is {described(bias)}; expected a dict of token ids to numbers")
    processors = given.get("logits_processor")
    if processors is not None and not hasattr(processors, "__iter__"):
        raise TypeError(f"logits_processor is {described(processors)}; expected a list of functions")


def check(arguments: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Note arguments without effect in the log; raise ValueError or TypeError for those that cannot be honoured.

    An unknown argument is reported as a warning, because a misspelt one would otherwise be silently ignored.

    arguments  the constructor's arguments, name to value
    other      arguments that the constructor does not have
    """
    check_kinds(arguments, _KINDS)
    overflow, overrides = arguments["overflow"], arguments["kv_overrides"]
    if overflow not in ("error", "truncate", "shift"):
        raise ValueError(f'overflow is {overflow!r}; expected "error", "truncate" or "shift"')
    if overrides is not None and not isinstance(overrides, Mapping):
        raise TypeError(f"kv_overrides is {described(overrides)}; expected a dict of metadata keys to values")
    n_ctx = arguments["n_ctx"]
    if n_ctx is not None and n_ctx < 0:
        raise ValueError(f"n_ctx is {n_ctx}; expected a number of tokens, or 0 for what the model was trained for")
    for name, default in _NOT_CHANGEABLE.items():
        value = arguments[name]
        if value not in (default, None, "") and (name, value) not in _NO_WISH:
            raise ValueError(f"{name} is {value!r}; it cannot be changed here: expected {default!r}")
    for name, value in _NO_WISH:
        if arguments[name] == value:
            log.info("%s=%r: what the file says is used", name, value)
    for name, default in _NO_MEANING.items():
        if arguments[name] != default:
            log.info("%s=%r has no meaning for this engine and changes nothing", name, arguments[name])
    for name in sorted(set(other) & _RETIRED):
        log.info("%s=%r: an argument of older versions, which changes nothing", name, other[name])
    for name in sorted(set(other) - _RETIRED):
        warnings.warn(
            f"Llama takes no argument {name!r}, and leaves it out{meant(name, set(arguments) - set(other))}",
            UserWarning,
            stacklevel=4,
        )


def overrides(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata overrides for `Model`, from `kv_overrides` and the arguments of the rotary position embedding.

    Raises ValueError for an unknown rope_scaling_type.
    """
    found: dict[str, Any] = dict(arguments["kv_overrides"] or {})
    for name, (default, key) in _METADATA.items():
        value = arguments[name]
        if value not in (default, None) and (name, value) not in _NO_WISH:
            found[key] = value
    scale = arguments["rope_freq_scale"]
    if scale and ("rope_freq_scale", scale) not in _NO_WISH:
        found[".rope.scaling.factor"] = 1.0 / scale
    scaling = arguments["rope_scaling_type"]
    if scaling not in (-1, None):
        if scaling not in _SCALINGS:
            raise ValueError(
                f"rope_scaling_type is {scaling!r}; expected -1 (the file's), 0 (none), 1 (linear) or 2 (YaRN)"
            )
        found[".rope.scaling.type"] = _SCALINGS[scaling]
    return found


def kv_type(key: int | str | None, value: int | str | None) -> Literal["f32", "f16", "q8_0"]:
    """The storage type of keys and values, from ggml's type numbers or names; both use the same type.

    Raises ValueError for a type that is not supported.
    """
    wanted = key if key is not None else value
    if wanted not in _KV_TYPES:
        raise ValueError(f"type_k is {wanted!r}; expected 0 (f32), 1 (f16), 8 (q8_0) or None")
    if value is not None and key is not None and _KV_TYPES.get(value) != _KV_TYPES[key]:
        log.info("type_v=%r: keys and values are stored alike, as type_k says", value)
    return _KV_TYPES[wanted]


def draft(wanted: Any, model: Model | None) -> Draft | None:
    """The source of drafts for a model: an argument as `generate` takes it, or what `Model.open_draft` opens."""
    if isinstance(wanted, os.PathLike) or (isinstance(wanted, str) and wanted != "auto"):
        return None if model is None else model.open_draft(wanted)
    return draft_from(wanted)


def lora(arguments: Mapping[str, Any]) -> list[tuple[str, float]] | None:
    """The adapter for `Model`, from `lora_path` and `lora_scale`; None without one."""
    path = arguments["lora_path"]
    return [(path, arguments["lora_scale"])] if path else None


def file_of(name: str) -> str:
    """The path of the model file for a path or a model's name."""
    if not name or is_file(name):
        return name
    from llamacpu.store.resolve import resolve

    return os.fspath(resolve(name).path)
