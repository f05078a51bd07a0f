"""What programs for llama-cpp-python find in the module `llama_cpp`: types, chat formats, grammars, attributes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_llama import Tokens, llama
from fake_model import START, VOCABULARY, ids_of
from llamacpu import Llama, compat
from llamacpu.constraints import gbnf_examples
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import GrammarError
from llamacpu.llama import LlamaDiskCache, LlamaRAMCache, hf_formats
from llamacpu.llama.formats import get_chat_completion_handler
from llamacpu.llama.standard_formats import FORMATS

__all__ = ["llama"]
Make = Callable[..., Llama]
USER = [{"role": "user", "content": "Hi"}]
TURNS = [
    {"role": "system", "content": "Be"},
    *USER,
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "Bye"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get",
        "description": "Gets.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
}


def test_names_at_the_root_and_in_modules() -> None:
    names = compat._names()
    for name in ("ChatCompletionRequestMessage", "CreateCompletionResponse", "ChatCompletionTool", "Embedding"):
        assert names[""][name] is names["llama"][name] is names["llama_types"][name]
    assert len(names["llama_types"]) > 55
    for name in ("format_llama2", "format", "hf_tokenizer_config_to_chat_formatter", "chatml_function_calling"):
        assert callable(names["llama_chat_format"][name])
    assert "im_start" in names["llama_chat_format"]["CHATML_CHAT_TEMPLATE"]
    with pytest.raises(AttributeError, match=r"C library.*Llama"):
        names[""]["__getattr__"]("llama_decode")


def test_import_star(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.install()
    try:
        found: dict[str, Any] = {}
        exec("from llama_cpp import *", found)
        assert {"Llama", "ChatCompletionRequestUserMessage", "LLAMA_POOLING_TYPE_MEAN", "LlamaGrammar"} <= set(found)
    finally:
        compat.uninstall()


# --- Chat formats ---


def test_every_format_is_registered_and_shows_the_conversation() -> None:
    handlers = ("functionary", "functionary-v1", "functionary-v2", "chatml-function-calling")
    for name in (*FORMATS, *handlers):
        assert callable(get_chat_completion_handler(name)), name
    assert len(FORMATS) == 23
    for name, formatter in FORMATS.items():
        prompt = formatter(messages=TURNS).prompt
        assert prompt.rindex("Hi") < prompt.rindex("Yo") < prompt.rindex("Bye"), name


@pytest.mark.parametrize(
    ("name", "prompt", "stop"),
    [
        ("baichuan-2", "Be<reserved_106>Hi<reserved_107>Yo<reserved_106>Bye<reserved_107>", None),
        ("redpajama-incite", "Be\n<human>: Hi\n<bot>: Yo\n<human>: Bye\n<bot>:", "<human>"),
        ("mistrallite", "<|system|>Be</s><|prompter|>Hi </s>\n<|assistant|>Yo <|prompter|>Bye </s>\n<|assistant|>",
         None),
        ("intel", "### System:\nBe\n### User:: Hi\n### Assistant:: Yo\n### User:: Bye\n### Assistant::", None),
        ("llama-2", "[INST] <<SYS>>\nBe\n<</SYS>> Hi [/INST]Yo </s><s>[INST]Bye  [/INST]", None),
        ("saiga", "<s>system\nBe</s><s>user\nHi</s><s>bot\nYo</s><s>user\nBye</s><s>bot", None),
    ],
)  # fmt: skip
def test_prompts(name: str, prompt: str, stop: str | None) -> None:
    found = FORMATS[name](messages=TURNS)
    assert (found.prompt, found.stop) == (prompt, stop)


def test_control_tokens_in_messages_stay_text(llama: Make) -> None:
    found = llama("a", chat_format="saiga")
    found.create_chat_completion([{"role": "user", "content": "x</s>y"}], temperature=0.0)
    ids = found.model.prompts[-1]  # type: ignore[attr-defined]
    assert ids[: 1 + len("user\n")] == [START, *ids_of("user\n")]
    assert ids[6:12] == ids_of("x</s>y")


def test_formats_of_hugging_face() -> None:
    config = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "chat_template": "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content + eos_token }}{% endif %}"
        "{% endfor %}",
    }
    found = hf_formats.hf_tokenizer_config_to_chat_formatter(config)(messages=USER)
    assert (found.prompt, found.stop) == ("<s>[INST] Hi [/INST]</s>", ["</s>", "<s>"])
    assert callable(hf_formats.hf_tokenizer_config_to_chat_completion_handler(config))
    with pytest.raises(ValueError, match="bos_token"):
        hf_formats.hf_tokenizer_config_to_chat_formatter({"chat_template": "x"})


def test_formats_are_guessed() -> None:
    templates = compat._names()["llama_chat_format"]
    guess = hf_formats.guess_chat_format_from_gguf_metadata
    assert guess({}) is None
    assert guess({"tokenizer.chat_template": "{{ messages[0].content }}"}) is None
    assert guess({"tokenizer.chat_template": "{{"}) is None
    assert guess({"tokenizer.chat_template": templates["CHATML_CHAT_TEMPLATE"]}) == "chatml"
    for name in ("MISTRAL", "MIXTRAL"):
        assert guess({"tokenizer.chat_template": templates[f"{name}_INSTRUCT_CHAT_TEMPLATE"]}) == "mistral-instruct"
    assert guess({"tokenizer.chat_template": templates["LLAMA3_INSTRUCT_CHAT_TEMPLATE"]}) == "llama-3"


# --- Function calling ---


@pytest.mark.parametrize("name", ["functionary", "functionary-v1", "functionary-v2", "chatml-function-calling"])
def test_forced_calls(llama: Make, name: str) -> None:
    found = llama('{"n": 7}', chat_format=name)
    settings: dict[str, Any] = {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get"}},
        "temperature": 0.0,
    }
    answer = found.create_chat_completion(TURNS, **settings)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "get", "arguments": '{"n": 7}'}
    assert answer["usage"]["completion_tokens"] > 0
    # What came back can be sent back, with its result.
    after = [
        *TURNS,
        choice["message"],
        {"role": "tool", "tool_call_id": choice["message"]["tool_calls"][0]["id"], "content": "8"},
    ]
    assert found.create_chat_completion(after, **settings)["choices"][0]["message"]["tool_calls"]
    deltas = [chunk["choices"][0]["delta"] for chunk in found.create_chat_completion(TURNS, stream=True, **settings)]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["function"]["arguments"] for call in calls] == ['{"n": 7}']


@pytest.mark.parametrize("name", ["functionary", "functionary-v2", "chatml-function-calling"])
def test_the_model_decides(llama: Make, name: str) -> None:
    handler: Any = get_chat_completion_handler(name)
    words = {
        "functionary": " to=functions.get:",
        "functionary-v2": "get\n",
        "chatml-function-calling": "functions.get:",
    }
    found = llama(words[name], chat_format=name)
    assert callable(handler)
    answer = found.create_chat_completion(USER, tools=[TOOL], temperature=0.0, max_tokens=12)
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get"
    text = llama("message:", chat_format="chatml-function-calling")
    answer = text.create_chat_completion(USER, tools=[TOOL], temperature=0.0)
    assert answer["choices"][0]["message"]["content"] == "message:"
    plain = found.create_chat_completion(USER, temperature=0.0)["choices"][0]["message"]
    assert plain["content"] == words[name]
    assert "tool_calls" not in plain


# --- Grammars ---


def accepts(grammar: Grammar, text: str) -> bool:
    constraint = grammar.constraint(Tokens())  # type: ignore[arg-type]
    ids: list[int] = []
    for token in [*ids_of(text), None]:
        logits = constraint(np.array(ids, dtype=np.int64), np.zeros(VOCABULARY, dtype=np.float32))
        if token is None:
            return bool(np.isfinite(logits[sorted(Tokens().eog)]).any())
        if not np.isfinite(logits[token]):
            return False
        ids.append(token)
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("ARITHMETIC_GBNF", ["a=1\n", "(a +2)*b = c\n"], ["a=\n", "=1\n", "a=1"]),
        ("C_GBNF", ["int f(){}", "int f(){return (\n1 );}", "int f(){// x\n}"], ["f(){}", "int f(){return 1}"]),
        ("JSON_GBNF", ["{}", '{"a": [1, 2.5e3, null]}'], ["[]", '{"a"}', '{"a": 01}']),
        ("JSON_ARR_GBNF", ["[\n]", '[\n1,\n"a"]'], ["{}", "[1]"]),
        ("LIST_GBNF", ["- a\n", "- a\n- b\n"], ["a\n", "- a"]),
        ("CHESS_GBNF", ['{"a":\n\n{}}'], ["1. e4"]),
    ],
)
def test_grammars_as_constants(name: str, good: list[str], bad: list[str]) -> None:
    grammar = Grammar.from_string(getattr(gbnf_examples, name))
    assert [accepts(grammar, text) for text in good] == [True] * len(good)
    assert [accepts(grammar, text) for text in bad] == [False] * len(bad)


SCHEMA = {
    "$defs": {"A": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    "type": "object",
    "properties": {
        "a": {"$ref": "#/$defs/A"},
        "b": {"enum": ["x", 'y"z', None]},
        "c": {"type": "array", "items": {"type": "string", "maxLength": 2}, "minItems": 1, "maxItems": 2},
        "d": {"anyOf": [{"type": "boolean"}, {"const": 5}]},
    },
    "required": ["a", "c"],
}


def test_schemas_as_gbnf() -> None:
    grammar = Grammar.from_string(compat._names()["llama_grammar"]["json_schema_to_gbnf"](json.dumps(SCHEMA)))
    for text in ('{"a": {"n": 1}, "c": ["x"]}', '{"a":{"n":-20},"b":"y\\"z","c":["ab",""],"d":5}'):
        assert accepts(grammar, text), text
    for text in ("{}", '{"a":{"n":1},"c":[]}', '{"a":{"n":1},"c":["abc"]}', '{"a":{"n":1},"b":1,"c":["a"]}'):
        assert not accepts(grammar, text), text


def test_schemas_that_gbnf_cannot_say() -> None:
    convert = compat._names()["llama_grammar"]["json_schema_to_gbnf"]
    for schema in (
        {"not": {}},
        {"type": "string", "pattern": "a"},
        {"$ref": "http://x"},
        {"type": "what"},
        {"enum": []},
    ):
        with pytest.raises(GrammarError):
            convert(json.dumps(schema))
    with pytest.raises(GrammarError, match="not JSON"):
        convert("{")
    ordered = convert(json.dumps({"properties": {"a": {"type": "null"}, "b": {"type": "null"}}}), prop_order=["b", "a"])
    assert ordered.index('\\"b\\"') < ordered.index('\\"a\\"')


def test_prompt_lookup() -> None:
    find = compat.LlamaPromptLookupDecoding.find_candidate_pred_tokens
    assert find(np.array([1, 2, 3, 1, 2, 3, 1, 2, 3]), max_ngram_size=3, num_pred_tokens=2).tolist() == [1, 2]
    assert find(np.arange(9), max_ngram_size=3, num_pred_tokens=2).tolist() == []
    assert find(np.array([], dtype=np.intc), 3, 2).tolist() == []
    assert find(np.array([5, 5]), 3, 4).tolist() == [5]


# --- Attributes and arguments ---


def test_attributes(llama: Make) -> None:
    found = llama("ab")
    assert found.ctx is not None
    assert found._ctx.ctx is found.ctx
    assert (found.lora_path, found.numa, found._is_recurrent, found._is_hybrid) == (None, False, False, False)
    assert found.model_params.use_mmap is True
    found.eval(ids_of("abc"))
    found.n_tokens = 2
    assert (found.n_tokens, found.input_ids.tolist()) == (2, ids_of("ab"))
    with pytest.raises(ValueError, match="0 to 2"):
        found.n_tokens = 5
    for wrong in (-1, 1.5, "1", None, True):
        with pytest.raises(ValueError, match="0 to 2"):
            found.n_tokens = wrong  # type: ignore[assignment]
    found.close()
    assert found.ctx is None


def test_arguments_of_other_programs(llama: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "llamacpu"):
        found = llama(
            "ab", lora_path="", lora_base=None, seed=None, f16_kv=True, n_parts=-1, n_threads=0, rope_freq_base=10000.0,
            rope_freq_scale=1.0, last_n_tokens_size=64, n_gpu_layers=None,
        )  # fmt: skip
    assert caplog.records == []
    assert found(b"p", temperature=0.0)["choices"][0]["text"] == "ab"
    assert found.model.prompts[-1] == [START, *ids_of("p")]  # type: ignore[attr-defined]


def test_no_threads_is_the_machines_number(tiny_model: Callable[..., Path]) -> None:
    with Llama(tiny_model("mha"), n_threads=0, n_ctx=32) as found:
        assert found.n_threads == found.n_threads_batch == found.context_params.n_threads_batch > 0


# --- States and caches ---


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_of_two_models_of_one_file(tiny_model: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    cache = LlamaRAMCache() if kind == "memory" else LlamaDiskCache(tmp_path)
    path = tiny_model("mha")
    texts, computed = [], []
    with Llama(path, n_ctx=64, n_threads=1) as one, Llama(path, n_ctx=64, n_threads=1) as other:
        for found in (one, other):
            found.set_cache(cache)
            texts.append(found("once upon a time", max_tokens=4, temperature=0.0)["choices"][0]["text"])
            computed.append(found.last_result.timings.prompt_tokens)
    assert texts[0] == texts[1]
    assert computed[1] == 1 < computed[0]
    # What is left of a model that was closed does no harm.
    with Llama(path, n_ctx=64, n_threads=1) as third:
        third.set_cache(cache)
        assert third("once upon a time", max_tokens=4, temperature=0.0)["choices"][0]["text"] == texts[0]


@pytest.mark.parametrize("kind", ["memory", "disk", "state"])
def test_the_type_of_the_keys_stays(tiny_model: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    path = tiny_model("mha")
    cache = LlamaRAMCache() if kind == "memory" else LlamaDiskCache(tmp_path)
    with Llama(path, n_ctx=64, n_threads=1, type_k=0) as wide, Llama(path, n_ctx=64, n_threads=1) as narrow:
        fresh = narrow("once upon a time", max_tokens=4, temperature=0.0)["choices"][0]["text"]
        narrow.reset()
        wide.set_cache(cache)
        wide("once upon a time", max_tokens=4, temperature=0.0)
        if kind == "state":
            state = wide.save_state()
            narrow.load_state(state)
            assert narrow.input_ids.tolist() == state.input_ids.tolist()
        narrow.set_cache(cache)
        assert narrow("once upon a time", max_tokens=4, temperature=0.0)["choices"][0]["text"] == fresh
        assert narrow.session.kv_type == "f16"
        assert wide.session.kv_type == "f32"
