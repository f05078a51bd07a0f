"""Chat formats and tokenizers of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_llama import Model, llama
from fake_model import END, START, ids_of
from llamacpu.llama import Llama, formats
from llamacpu.llama.tokenizer import BaseLlamaTokenizer, LlamaHFTokenizer, LlamaTokenizer

__all__ = ["llama"]
Make = Callable[..., Llama]
GREEDY = {"temperature": 0.0}
USER = [{"role": "user", "content": "Hi"}]


def prompts_of(found: Llama) -> list[list[int]]:
    assert isinstance(found.model, Model)
    return found.model.prompts


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> formats.LlamaChatCompletionHandlerRegistry:
    monkeypatch.setattr(formats.LlamaChatCompletionHandlerRegistry, "_chat_handlers", {})
    return formats.LlamaChatCompletionHandlerRegistry()


# --- Formats ---


def test_a_registered_formatter_makes_the_prompt(llama: Make) -> None:
    @formats.register_chat_format("shouting")
    def shouting(messages: Any, tools: Any = None, **settings: Any) -> formats.ChatFormatterResponse:
        assert settings["tool_choice"] is None
        return formats.ChatFormatterResponse("".join(m["content"].upper() for m in messages) + "</s>", stop="!")

    found = llama("ab!cd", chat_format="shouting")
    answer = found.create_chat_completion(USER, **GREEDY)
    assert prompts_of(found)[-1] == [START, *ids_of("HI"), END]
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "ab"}
    chunks = list(found.create_chat_completion(USER, stream=True, stop=["b"], **GREEDY))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "a"


def test_a_jinja_formatter(llama: Make) -> None:
    formatter = formats.Jinja2ChatFormatter(
        "{{ bos_token }}{% for m in messages %}({{ m.content }}){% endfor %}{% if add_generation_prompt %}>{% endif %}",
        eos_token="</s>", bos_token="<s>", stop_token_ids=ids_of("c"),
    )  # fmt: skip
    response = formatter(messages=USER, functions=None, function_call=None, tool_choice=None)
    assert (response.prompt, response.stop, response.added_special) == ("<s>(Hi)>", ["</s>"], True)
    found = llama("abcd", chat_handler=formatter.to_chat_handler())
    answer = found.create_chat_completion(USER, **GREEDY)["choices"][0]
    assert prompts_of(found)[-1] == [START, *ids_of("(Hi)>")]
    assert answer["message"]["content"] == "abc"
    # A handler can also be called with any Llama.
    other = llama("x")
    handler = formats.chat_formatter_to_chat_completion_handler(formatter)
    assert handler(llama=other, messages=USER, **GREEDY)["choices"][0]["message"]["content"] == "x"
    assert prompts_of(other)[-1] == [START, *ids_of("(Hi)>")]


def test_a_registered_handler_answers(llama: Make, registry: formats.LlamaChatCompletionHandlerRegistry) -> None:
    @formats.register_chat_completion_handler("parrot")
    def parrot(llama: Llama, messages: Any, **settings: Any) -> Any:
        assert settings["temperature"] == 0.5
        return messages[-1]["content"]

    assert formats.get_chat_completion_handler("parrot") is parrot
    assert llama("x", chat_format="parrot").create_chat_completion(USER, temperature=0.5) == "Hi"
    with pytest.raises(ValueError, match="registered already"):
        formats.register_chat_completion_handler("parrot")(parrot)
    registry.register_chat_completion_handler("parrot", print, overwrite=True)
    assert formats.get_chat_completion_handler("parrot") is print
    registry.unregister_chat_handler("parrot")
    with pytest.raises(formats.LlamaChatCompletionHandlerNotFoundException, match="parrot"):
        formats.get_chat_completion_handler("parrot")
    with pytest.raises(ValueError, match="parrot"):
        registry.unregister_chat_handler("parrot")


def test_a_template_of_the_file_has_its_name_there(llama: Make) -> None:
    found = llama("x", chat_format="chat_template.default")
    found.create_chat_completion(USER)
    assert prompts_of(found)[-1] == [START, *ids_of("[user]Hi[assistant]")]


def test_a_call_may_bring_its_formatter(llama: Make) -> None:
    found = llama("x")
    found.create_chat_completion(
        USER, formatter=lambda messages, **settings: formats.ChatFormatterResponse("<s>q", added_special=True)
    )
    assert prompts_of(found)[-1] == [START, *ids_of("q")]


# --- Criteria, tokenizers ---


def test_a_stopping_criterion_may_be_a_function(llama: Make) -> None:
    def third(tokens: Any, logits: Any) -> bool:
        return len(tokens) >= 4

    assert llama("abcdef")("p", stopping_criteria=third, **GREEDY)["choices"][0]["text"] == "ab"
    assert len(list(llama("abcdef").generate([START, *ids_of("p")], temp=0.0, stopping_criteria=third))) == 1


class Swapped(BaseLlamaTokenizer):
    """Upper-case letters."""

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        text = text if isinstance(text, bytes) else text.encode()
        return [START] * add_bos + ids_of(text.upper())

    def detokenize(self, tokens: Any, prev_tokens: Any = None, special: bool = False) -> bytes:
        return b"?" * len(list(tokens))


def test_a_tokenizer_of_ones_own_tokenizes_prompts(llama: Make) -> None:
    found = llama("x", tokenizer=Swapped())
    assert found.tokenize(b"ab") == [START, *ids_of("AB")]
    assert found.detokenize([5, 6]) == b"??"
    found("ab", **GREEDY)
    assert prompts_of(found)[-1] == [START, *ids_of("AB")]


class HuggingFace:
    """The part of a tokenizer of transformers that is used."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [0] * add_special_tokens + [ord(letter) for letter in text]

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(i) if i else "" if skip_special_tokens else "^" for i in ids)


def test_a_tokenizer_of_transformers() -> None:
    found = LlamaHFTokenizer(HuggingFace())
    assert found.tokenize(b"ab") == [0, 97, 98]
    assert found.tokenize("ab", special=False) == [97, 98]
    assert found.detokenize([0, 97]) == b"a"
    assert found.detokenize([97, 233], prev_tokens=[120], special=True) == "aé".encode()


def test_the_tokenizer_of_a_file(tiny_model: Callable[..., Path]) -> None:
    found = LlamaTokenizer.from_ggml_file(tiny_model("mha"))
    assert found.decode(found.encode("once upon a time")) == "once upon a time"
    assert found.detokenize(found.tokenize(b"once")) == b"once"


# --- Logits ---


def test_logits_are_kept_in_one_array(llama: Make) -> None:
    found = llama("x", logits_all=True)
    assert found.eval([]).shape == (0,)
    found.eval([3, 4])
    first = found.scores[0].copy()
    for token in range(40):
        found.eval([token])
    assert found.scores.shape == (42, 259)
    assert (found._scores[0] == first).all()
    assert list(found._input_ids[:3]) == [3, 4, 0]
    assert (found.eval([]) == found.scores[-1]).all()
    assert found.n_tokens == 42
    with pytest.raises(Exception, match="there are no logits of token 42"):
        found.sample(idx=42)
