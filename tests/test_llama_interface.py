"""`Llama` beside llama-cpp-python 0.3: the same names, in the same order, with the same defaults.

The tables are facts about that library, written down by hand; `stop` is an empty list there and an empty tuple here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from fake_llama import llama
from llamacpu import compat
from llamacpu.llama import Llama, LlamaRAMCache

__all__ = ["llama"]

SAMPLING: dict[str, Any] = {
    "top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0, "temp": 0.8, "repeat_penalty": 1.0,
}  # fmt: skip
COMPLETION: dict[str, Any] = {
    "prompt": ..., "suffix": None, "max_tokens": 16, "temperature": 0.8, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0,
    "logprobs": None, "echo": False, "stop": (), "frequency_penalty": 0.0, "presence_penalty": 0.0,
    "repeat_penalty": 1.0, "top_k": 40, "stream": False, "seed": None, "tfs_z": 1.0, "mirostat_mode": 0,
    "mirostat_tau": 5.0, "mirostat_eta": 0.1, "model": None, "stopping_criteria": None, "logits_processor": None,
    "grammar": None, "logit_bias": None,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "__init__": {
        "model_path": ..., "n_gpu_layers": 0, "split_mode": 1, "main_gpu": 0, "tensor_split": None, "vocab_only": False,
        "use_mmap": True, "use_mlock": False, "kv_overrides": None, "seed": 0xFFFFFFFF, "n_ctx": 512, "n_batch": 512,
        "n_ubatch": 512, "n_threads": None, "n_threads_batch": None, "rope_scaling_type": -1, "pooling_type": -1,
        "attention_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0, "yarn_ext_factor": -1.0,
        "yarn_attn_factor": 1.0, "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0, "yarn_orig_ctx": 0, "logits_all": False,
        "embedding": False, "offload_kqv": True, "flash_attn": False, "op_offload": None, "swa_full": None,
        "no_perf": False, "last_n_tokens_size": 64, "lora_base": None, "lora_scale": 1.0, "lora_path": None,
        "numa": False, "chat_format": None, "chat_handler": None,
        "draft_model": "auto",  # None there: drafts cost nothing here where they do not help
        "tokenizer": None, "type_k": None, "type_v": None, "spm_infill": False, "verbose": True,
    },
    "tokenize": {"text": ..., "add_bos": True, "special": False},
    "detokenize": {"tokens": ..., "prev_tokens": None, "special": False},
    "set_cache": {"cache": ...},
    "set_seed": {"seed": ...},
    "reset": {},
    "eval": {"tokens": ...},
    "sample": {
        **SAMPLING, "frequency_penalty": 0.0, "presence_penalty": 0.0, "tfs_z": 1.0, "mirostat_mode": 0,
        "mirostat_eta": 0.1, "mirostat_tau": 5.0, "penalize_nl": True, "logits_processor": None, "grammar": None,
        "idx": None,
    },
    "generate": {
        "tokens": ..., **SAMPLING, "reset": True, "frequency_penalty": 0.0, "presence_penalty": 0.0, "tfs_z": 1.0,
        "mirostat_mode": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "penalize_nl": True, "logits_processor": None,
        "stopping_criteria": None, "grammar": None,
    },
    "create_embedding": {"input": ..., "model": None},
    "embed": {"input": ..., "normalize": False, "truncate": True, "return_count": False},
    "create_completion": COMPLETION,
    "__call__": COMPLETION,
    "create_chat_completion": {
        "messages": ..., "functions": None, "function_call": None, "tools": None, "tool_choice": None,
        "temperature": 0.2, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "typical_p": 1.0, "stream": False, "stop": (),
        "seed": None, "response_format": None, "max_tokens": None, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "repeat_penalty": 1.0, "tfs_z": 1.0, "mirostat_mode": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
        "model": None, "logits_processor": None, "grammar": None, "logit_bias": None, "logprobs": None,
        "top_logprobs": None,
    },
    "create_chat_completion_openai_v1": {},
    "save_state": {},
    "load_state": {"state": ...},
    "n_ctx": {},
    "n_embd": {},
    "n_vocab": {},
    "tokenizer": {},
    "token_eos": {},
    "token_bos": {},
    "token_nl": {},
    "pooling_type": {},
    "close": {},
    "logits_to_logprobs": {"logits": ..., "axis": -1},
    "longest_token_prefix": {"a": ..., "b": ...},
    "from_pretrained": {
        "repo_id": ..., "filename": None, "additional_files": None, "local_dir": None,
        "local_dir_use_symlinks": "auto", "cache_dir": None,
    },
}  # fmt: skip
NAMES = {
    "": "Llama LlamaState LogitsProcessorList StoppingCriteriaList MinTokensLogitsProcessor LlamaGrammar LlamaCache "
    "LlamaRAMCache LlamaDiskCache BaseLlamaCache LlamaTokenizer LLAMA_DEFAULT_SEED LLAMA_POOLING_TYPE_NONE "
    "LLAMA_POOLING_TYPE_MEAN LLAMA_POOLING_TYPE_CLS LLAMA_POOLING_TYPE_LAST LLAMA_SPLIT_MODE_LAYER GGML_TYPE_F16 "
    "GGML_TYPE_Q8_0 llama_supports_gpu_offload llama_print_system_info llama_log_set llama_backend_init",
    "llama": "Llama LlamaState LogitsProcessor LogitsProcessorList StoppingCriteria StoppingCriteriaList",
    "llama_cache": "BaseLlamaCache LlamaRAMCache LlamaDiskCache LlamaCache",
    "llama_chat_format": "LlamaChatCompletionHandler LlamaChatCompletionHandlerNotFoundException ChatFormatter "
    "ChatFormatterResponse Jinja2ChatFormatter LlamaChatCompletionHandlerRegistry get_chat_completion_handler "
    "register_chat_completion_handler register_chat_format chat_formatter_to_chat_completion_handler",
    "llama_grammar": "LlamaGrammar",
    "llama_speculative": "LlamaDraftModel LlamaPromptLookupDecoding",
    "llama_tokenizer": "BaseLlamaTokenizer LlamaTokenizer LlamaHFTokenizer",
}


@pytest.mark.parametrize("method", METHODS)
def test_arguments_have_the_known_names_order_and_defaults(method: str) -> None:
    parameters = inspect.signature(getattr(Llama, method)).parameters
    known = METHODS[method]
    found = {
        name: ... if parameter.default is parameter.empty else parameter.default
        for name, parameter in parameters.items()
        if name in known
    }
    assert list(found.items()) == list(known.items())
    extra = [name for name in parameters if name not in known and name not in ("self", "cls")]
    own = [parameters[name].kind for name in extra]
    assert all(kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in own), extra


@pytest.mark.parametrize("attribute", ["n_tokens", "input_ids", "scores", "eval_tokens", "eval_logits", "metadata"])
def test_what_is_read_like_a_field(attribute: str) -> None:
    assert not callable(getattr(Llama, attribute))


@pytest.mark.parametrize("module", NAMES)
def test_modules_have_the_known_names(module: str) -> None:
    offered = compat._names()[module]
    assert [name for name in NAMES[module].split() if name not in offered] == []


def test_functions_of_the_c_library() -> None:
    offered = compat._names()["llama_cpp"]
    assert offered["llama_supports_gpu_offload"]() is False
    assert offered["llama_supports_mmap"]() is True
    assert offered["llama_supports_mlock"]() is False
    assert offered["llama_max_devices"]() == 1
    assert b"threads" in offered["llama_print_system_info"]()

    @offered["llama_log_callback"]
    def quiet(level: int, text: bytes, data: object) -> None:
        raise AssertionError("nothing is ever logged through it")

    offered["llama_log_set"](quiet, None)
    offered["llama_backend_init"]()
    offered["llama_backend_free"]()


@pytest.mark.parametrize(
    "name", [name for name in dir(Llama) if not name.startswith("_") and callable(getattr(Llama, name))]
)
def test_every_method_says_what_it_does(name: str) -> None:
    method = getattr(Llama, name)
    assert method.__doc__
    assert method.__name__ == name


def test_fields_of_the_parts_can_be_read_and_set(llama: Callable[..., Llama]) -> None:
    llm = llama("abc", last_n_tokens_size=7, chat_format="chatml", overflow="shift")
    assert (llm.last_n_tokens_size, llm.chat_format, llm.overflow, llm.cache) == (7, "chatml", "shift", None)
    llm.overflow = "error"
    llm.last_n_tokens_size = 0
    llm.cache = LlamaRAMCache()
    assert llm("x", max_tokens=3)["choices"][0]["text"] == "abc"
    assert llm.last_result is not None
    assert llm.cache.cache_size > 0


def test_a_subclass_answers_calls_in_its_own_way(llama: Callable[..., Llama]) -> None:
    class Loud(Llama):
        def create_completion(self, *args: Any, **kwargs: Any) -> Any:
            return super().create_completion(*args, **kwargs)["choices"][0]["text"].upper()

    found = llama("abc")
    found.__class__ = Loud
    assert found("x") == "ABC"
