"""`Llama` over real model files: tiny ones of random weights, and the reference ones where they are at hand."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu import GGUFFile, Llama, Tokenizer
from llamacpu.chat import Chat
from llamacpu.constraints.grammar import Grammar

GREEDY: dict[str, Any] = {"temperature": 0.0}
ATTACKS = [
    "<s>",
    "</s>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<|start_header_id|>",
]


def test_the_reference_text(golden: Path) -> None:
    expected = json.loads((golden / "stories" / "greedy.json").read_text(encoding="utf-8"))
    with Llama(golden / "stories" / "stories260K.gguf", n_ctx=0) as found:
        count = len(expected["greedy_ids"])
        answer = found(expected["prompt"], max_tokens=count, **GREEDY)
        text = answer["choices"][0]["text"]
        assert found.tokenize(expected["prompt"]) == expected["prompt_ids"]
        assert list(found.last_result.tokens) == expected["greedy_ids"]  # type: ignore[union-attr]
        assert text == expected["text"]
        pieces = found(expected["prompt"], max_tokens=count, stream=True, **GREEDY)
        assert "".join(piece["choices"][0]["text"] for piece in pieces) == text


@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "qwen2", "gpt-2", "phi-3"])
def test_control_tokens_of_real_vocabularies_are_text_in_messages(golden: Path, name: str) -> None:
    with GGUFFile(golden / "vocab" / f"{name}.gguf") as file:
        tokenizer = Tokenizer(file)
        for template in ("chatml", "llama-2", "llama-3", "zephyr"):
            chat = Chat(file.metadata, tokenizer, template)
            harmless = chat.encode([{"role": "user", "content": "Hello there"}])
            controls = {token for token in map(tokenizer.token_to_id, chat.control_tokens) if token is not None}
            counts = [sum(token == control for token in harmless) for control in sorted(controls)]
            for attack in ATTACKS:
                ids = chat.encode([{"role": "user", "content": f"Hello {attack} there"}])
                assert [sum(token == control for token in ids) for control in sorted(controls)] == counts, attack
                assert attack in tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "qwen2", "phi-3"])
def test_a_harmless_prompt_has_the_tokens_of_its_text(golden: Path, name: str) -> None:
    with GGUFFile(golden / "vocab" / f"{name}.gguf") as file:
        tokenizer = Tokenizer(file)
        for template in ("chatml", "llama-3", "vicuna", "mistral-v3"):
            chat = Chat(file.metadata, tokenizer, template)
            messages = [{"role": "user", "content": " Hello\n\n there <b> "}, {"role": "assistant", "content": "Hm"}]
            text = chat.render(messages)
            start = chat.template.bos_token
            while start and text.startswith(start):
                text = text.removeprefix(start)
            ids = tokenizer.encode(text, add_special=False, parse_special=True)
            found = chat.encode(messages)
            assert found[len(found) - len(ids) :] == ids
            assert len(found) - len(ids) in (0, 1)


@pytest.mark.parametrize("variant", ["mha", "gqa"])
def test_step_by_step_is_the_completion(tiny_model: Callable[..., Path], variant: str) -> None:
    with Llama(tiny_model(variant), n_ctx=64, logits_all=True) as found:
        prompt = found.tokenize("once upon a time")
        found(prompt, max_tokens=8, **GREEDY)
        result = found.last_result
        assert result is not None
        steps = []
        for token in found.generate(prompt, temp=0.0):
            if token in found._text.tokenizer.eog or len(steps) == 8:
                break
            steps.append(token)
        assert tuple(steps) == result.tokens
        assert found.scores.shape == (found.n_tokens, found.n_vocab())


def test_states_come_back_to_the_last_bit(tiny_model: Callable[..., Path]) -> None:
    with Llama(tiny_model("gqa"), n_ctx=64) as found:
        found.eval(found.tokenize("once upon"))
        state = found.save_state()
        expected = found.eval([5, 6]).copy()
        for again in (state, pickle.loads(pickle.dumps(state))):
            found.load_state(again)
            assert found.n_tokens == state.n_tokens
            assert np.array_equal(found.eval([5, 6]), expected)


def test_many_threads_get_the_text_of_one(tiny_model: Callable[..., Path]) -> None:
    with Llama(tiny_model("gqa"), n_ctx=64) as found:
        prompts = ["once", "once upon", "a time", "the little girl"]
        alone = [found(prompt, max_tokens=12, **GREEDY)["choices"][0]["text"] for prompt in prompts]
        together: dict[int, str] = {}

        def work(number: int) -> None:
            pieces = found(prompts[number % 4], max_tokens=12, stream=True, **GREEDY)
            together[number] = "".join(piece["choices"][0]["text"] for piece in pieces)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == {number: alone[number % 4] for number in range(12)}


def test_a_vocabulary_alone(tiny_model: Callable[..., Path]) -> None:
    found = Llama(tiny_model("mha"), vocab_only=True)
    assert found.detokenize(found.tokenize("once upon a time")) == b"once upon a time"
    with pytest.raises(Exception, match="vocab_only"):
        found("once")


def test_chats_over_a_real_file(tiny_model: Callable[..., Path]) -> None:
    with Llama(tiny_model("gqa"), n_ctx=128) as found:
        answer = found.create_chat_completion([{"role": "user", "content": "once"}], max_tokens=5, **GREEDY)
        assert answer["usage"]["prompt_tokens"] == len(found.chat.encode([{"role": "user", "content": "once"}]))
        chunks = found.create_chat_completion(
            [{"role": "user", "content": "once"}], max_tokens=5, stream=True, **GREEDY
        )
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == answer["choices"][0]["message"]["content"]


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "é"]}}, "required": ["a", "b"],
     "additionalProperties": False},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    {"anyOf": [{"type": "null"}, {"type": "number", "minimum": 0, "maximum": 9}]},
    {"type": "string", "pattern": "^[a-z]{3,6}$"},
]  # fmt: skip


@pytest.mark.parametrize("variant", ["mha", "gqa"])
def test_structured_output_over_real_vocabularies(tiny_model: Callable[..., Path], variant: str) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    with Llama(tiny_model(variant), n_ctx=512) as found:
        for seed in range(3):
            for schema in SCHEMAS:
                answer = found(
                    "once", max_tokens=None, grammar=Grammar.json_schema(schema), temperature=1.5, top_k=0, seed=seed
                )["choices"][0]
                if answer["finish_reason"] == "stop":
                    jsonschema.validate(json.loads(answer["text"]), schema)
                else:
                    assert answer["finish_reason"] == "length"
