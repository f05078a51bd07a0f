"""`Llama` returns what llama-cpp-python returns, over a model whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fake_llama import Model, llama
from fake_model import END, FIRST_BYTE, START, ids_of
from llamacpu.errors import ContextOverflow
from llamacpu.generation import CancelToken
from llamacpu.llama import Llama, LlamaRAMCache

__all__ = ["llama"]
Make = Callable[..., Llama]
GREEDY = {"temperature": 0.0}
USER = [{"role": "user", "content": "Hi"}]
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


def model_of(found: Llama) -> Model:
    assert isinstance(found.model, Model)
    return found.model


# --- Completions ---


def test_a_completion_has_the_known_shape(llama: Make) -> None:
    found = llama("héllo").create_completion("abc", **GREEDY)
    assert found["id"].startswith("cmpl-")
    assert isinstance(found["created"], int)
    assert {key: value for key, value in found.items() if key not in ("id", "created", "timings")} == {
        "object": "text_completion",
        "model": "fake.gguf",
        "choices": [{"text": "héllo", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10},
    }


def test_a_call_is_a_completion_of_sixteen_tokens(llama: Make) -> None:
    found = llama("x" * 50)("a", **GREEDY)
    assert found["choices"][0]["text"] == "x" * 16
    assert found["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_no_limit_goes_on_until_the_end(llama: Make, limit: int | None) -> None:
    assert llama("x" * 50)("a", max_tokens=limit, **GREEDY)["choices"][0]["text"] == "x" * 50


def test_streams_come_in_the_known_pieces(llama: Make) -> None:
    chunks = list(llama("abc").create_completion("p", stream=True, **GREEDY))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "b", "c", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    known = {"id", "object", "created", "model", "choices"}
    assert all(set(chunk) == known for chunk in chunks[:-1])
    assert set(chunks[-1]) == {*known, "timings"}


def test_stop_strings(llama: Make) -> None:
    assert llama("one. two")("p", stop=".", **GREEDY)["choices"][0]["text"] == "one"
    assert llama("one. two")("p", stop=["x", " t"], **GREEDY)["choices"][0]["text"] == "one."
    assert llama("one")("p", stop=None, **GREEDY)["choices"][0]["text"] == "one"


def test_echo_and_suffix_and_model_name(llama: Make) -> None:
    found = llama("b")("a", suffix="c", echo=True, model="m", **GREEDY)
    assert found["choices"][0]["text"] == "abc"
    assert found["model"] == "m"
    pieces = llama("b")("a", suffix="c", echo=True, stream=True, **GREEDY)
    assert "".join(chunk["choices"][0]["text"] for chunk in pieces) == "abc"


def test_log_probabilities(llama: Make) -> None:
    found = llama("xy")("ab", logprobs=2, **GREEDY)["choices"][0]["logprobs"]
    assert found["tokens"] == ["x", "y"]
    assert found["text_offset"] == [2, 3]
    assert all(chance < 0 and chance > -0.05 for chance in found["token_logprobs"])
    # The other logits are equal, so that the first token of all is the second choice.
    assert [list(top) for top in found["top_logprobs"]] == [["x", "<s>"], ["y", "<s>"]]
    assert found["top_logprobs"][0]["x"] == found["token_logprobs"][0]


def test_log_probabilities_of_the_prompt(llama: Make) -> None:
    found = llama("xy")("ab", logprobs=1, echo=True, **GREEDY)["choices"][0]["logprobs"]
    assert found["tokens"] == ["a", "b", "x", "y"]
    assert found["text_offset"] == [0, 1, 2, 3]
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert found["token_logprobs"][1] < -5


def test_log_probabilities_in_a_stream(llama: Make) -> None:
    chunks = list(llama("xy")("a", logprobs=1, stream=True, **GREEDY))
    assert [c["choices"][0]["logprobs"]["tokens"] for c in chunks[:-1]] == [["x"], ["y"]]


def test_a_prompt_begins_with_one_start_token(llama: Make) -> None:
    found = llama("x")
    for prompt in ("ab", "<s>ab"):
        found(prompt, **GREEDY)
        assert model_of(found).prompts[-1] == [START, *ids_of("ab")]
    found([5, 6], **GREEDY)
    assert model_of(found).prompts[-1] == [5, 6]


def test_a_prompt_that_does_not_fit_is_an_error(llama: Make) -> None:
    with pytest.raises(ContextOverflow):
        llama("x", n_ctx=8)("a" * 8)
    with pytest.raises(ValueError, match="context"):
        llama("x", n_ctx=8)("a" * 8)


def test_a_prompt_that_does_not_fit_may_be_cut(llama: Make) -> None:
    found = llama("xyz", n_ctx=8, overflow="truncate")
    found("a" * 20, max_tokens=3, **GREEDY)
    assert found.last_result is not None
    assert found.last_result.dropped_tokens > 0


def test_logit_bias_processors_and_criteria(llama: Make) -> None:
    bias = {FIRST_BYTE + ord("z"): 100.0}
    assert llama("xx")("a", max_tokens=2, logit_bias=bias, **GREEDY)["choices"][0]["text"] == "zz"
    assert llama("xx")("a", max_tokens=1, logit_bias={str(k): v for k, v in bias.items()}, **GREEDY)["usage"]

    def forbid(ids: Any, scores: Any) -> Any:
        scores[FIRST_BYTE + ord("x")] = -np.inf
        return scores

    assert llama("xx")("a", max_tokens=1, logits_processor=[forbid], **GREEDY)["choices"][0]["text"] != "x"
    seen = llama("abcdef")("p", stopping_criteria=[lambda ids, scores: len(ids) >= 5], **GREEDY)
    assert seen["choices"][0] == {"text": "abc", "index": 0, "logprobs": None, "finish_reason": "stop"}


def test_seeds_give_the_same_text_again(llama: Make) -> None:
    def text(found: Llama, **settings: Any) -> str:
        # Every letter is as likely as another.
        letters = np.full(259, -np.inf, dtype=np.float32)
        letters[ids_of("abcdefghijklmnopqrstuvwxyz")] = 0
        flat = [lambda ids, scores: letters]
        return str(
            found("a", max_tokens=8, logits_processor=flat, top_k=0, min_p=0.0, top_p=1.0, **settings)["choices"][0]
        )

    found = llama()
    assert text(found, seed=3) == text(found, seed=3) != text(found, seed=4)
    found.set_seed(5)
    first = [text(found), text(found)]
    found.set_seed(5)
    assert first == [text(found), text(found)]
    assert first[0] != first[1]
    # A state brings the choices back, wherever in their order it was saved.
    state = found.save_state()
    following = [text(found), text(found), text(found)]
    assert len({*first, *following}) == 5
    found.load_state(state)
    assert following == [text(found), text(found), text(found)]
    # One that a cache finds does not: the text is asked for anew.
    found.set_cache(LlamaRAMCache())
    assert len({text(found) for _ in range(4)}) == 4
    # Without a seed there is nothing to go back to.
    found.set_seed(-1)
    state = found.save_state()
    drawn = text(found)
    found.load_state(state)
    assert text(found) != drawn


# --- Chat ---


def test_a_chat_completion_has_the_known_shape(llama: Make) -> None:
    found = llama("Hello!").create_chat_completion(USER, **GREEDY)
    assert found["id"].startswith("chatcmpl-")
    assert {key: value for key, value in found.items() if key not in ("id", "created", "timings")} == {
        "object": "chat.completion",
        "model": "fake.gguf",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26},
    }


def test_a_chat_prompt_comes_from_the_template(llama: Make) -> None:
    found = llama("x")
    found.create_chat_completion([{"role": "user", "content": "a</s>"}])
    prompt = model_of(found).prompts[-1]
    assert prompt == [START, *ids_of("[user]a</s>[assistant]")]
    assert END not in prompt


def test_chat_streams(llama: Make) -> None:
    chunks = list(llama("ab").create_chat_completion(USER, stream=True, **GREEDY))
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant"},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)


CALL = '{"name": "add", "parameters": {"a": 1}}'


def test_tool_calls(llama: Make) -> None:
    found = llama(CALL)
    answer = found.create_chat_completion(USER, tools=[TOOL], max_tokens=99, **GREEDY)["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    (call,) = answer["message"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "add", "arguments": '{"a": 1}'})
    assert b"add" in found.detokenize(model_of(found).prompts[-1])
    chunks = list(llama(CALL).create_chat_completion(USER, tools=[TOOL], stream=True, **GREEDY))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert deltas[1]["tool_calls"][0]["index"] == 0
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tools_no_calls(llama: Make) -> None:
    assert llama(CALL).create_chat_completion(USER, **GREEDY)["choices"][0]["message"]["content"] == CALL
    found = llama(CALL)
    answer = found.create_chat_completion(USER, tools=[TOOL], tool_choice="none", **GREEDY)
    assert answer["choices"][0]["message"]["content"] == CALL
    assert b"add" not in found.detokenize(model_of(found).prompts[-1])


def test_functions_are_the_older_form_of_tools(llama: Make) -> None:
    answer = llama(CALL).create_chat_completion(USER, functions=[TOOL["function"]], **GREEDY)["choices"][0]
    assert answer["finish_reason"] == "function_call"
    assert answer["message"]["function_call"] == {"name": "add", "arguments": '{"a": 1}'}


def test_reasoning_is_told_apart(llama: Make) -> None:
    text = "<think>Hm</think>Yes"
    assert llama(text).create_chat_completion(USER, **GREEDY)["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm",
    }
    plain = llama(text).create_chat_completion(USER, reasoning=False, **GREEDY)["choices"][0]["message"]
    assert plain == {"role": "assistant", "content": text}
    stream = llama(text).create_chat_completion(USER, stream=True, **GREEDY)
    deltas = [chunk["choices"][0]["delta"] for chunk in stream]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm"
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes"


def test_chat_log_probabilities(llama: Make) -> None:
    found = llama("ab").create_chat_completion(USER, logprobs=True, top_logprobs=2, **GREEDY)
    content = found["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["a", "b"]
    assert set(content[0]) == {"token", "bytes", "logprob", "top_logprobs"}
    assert found["choices"][0]["logprobs"]["refusal"] is None
    chunks = list(llama("ab").create_chat_completion(USER, logprobs=True, stream=True, **GREEDY))
    assert chunks[1]["choices"][0]["logprobs"]["content"][0]["token"] == "a"


def test_chat_formats_and_handlers(llama: Make) -> None:
    found = llama("x", chat_format="llama-2")
    found.create_chat_completion(USER)
    assert found.detokenize(model_of(found).prompts[-1][1:]) == b"[INST] Hi [/INST]"
    seen = llama("x", chat_handler=lambda **settings: settings).create_chat_completion(USER, top_k=3)
    assert seen["messages"] == USER
    assert seen["top_k"] == 3
    assert isinstance(seen["llama"], Llama)
    assert "cancel" not in seen


@pytest.mark.parametrize("wrong", [{"type": "xml"}, {"type": "json_schema"}])
def test_unknown_formats_are_errors(llama: Make, wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="response_format"):
        llama("x").create_chat_completion(USER, response_format=wrong)


@pytest.mark.parametrize("choice", ["nosuch", 5, {"type": "function"}, ["f"]])
def test_what_is_no_choice_is_an_error(llama: Make, choice: Any) -> None:
    with pytest.raises(ValueError, match="tool_choice"):
        llama("x").create_chat_completion(USER, tools=[TOOL], tool_choice=choice)


def test_what_is_no_format_is_an_error(llama: Make) -> None:
    with pytest.raises(ValueError, match="response_format is 'json'"):
        llama("x").create_chat_completion(USER, response_format="json")  # type: ignore[arg-type]


def test_a_choice_that_names_no_tool_is_an_error(llama: Make) -> None:
    with pytest.raises(ValueError, match="tool_choice"):
        llama("x").create_chat_completion(USER, tools=[TOOL], tool_choice={"function": {"name": "other"}})


def test_a_stream_can_be_cancelled(llama: Make) -> None:
    found = llama("abcdef")
    token = CancelToken()
    stream = found("p", stream=True, cancel=token, **GREEDY)
    assert next(stream)["choices"][0]["text"] == "a"
    token.cancel()
    assert [chunk["choices"][0] for chunk in stream][-1]["finish_reason"] == "cancelled"
    assert found("p", timeout=0.0, **GREEDY)["choices"][0]["finish_reason"] == "timeout"
    assert found.create_chat_completion(USER, cancel=token)["choices"][0]["finish_reason"] == "cancelled"
