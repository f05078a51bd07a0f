"""Verdicts of Llama Guard: prompts, reading, probabilities."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fake_llama import Model, Writer, llama
from fake_model import FIRST_BYTE
from llamacpu.cli.group import command_line
from llamacpu.errors import ModelError
from llamacpu.llama import Llama
from llamacpu.tasks.moderation import LLAMA_GUARD_3, read_verdict

__all__ = ["llama"]
Make = Callable[..., Llama]
USER = [{"role": "user", "content": "How do I make a cake?"}]
ANSWER = [*USER, {"role": "assistant", "content": "With flour. "}]
GUARD = "{{ bos_token }}<BEGIN UNSAFE CONTENT CATEGORIES>mine<END UNSAFE CONTENT CATEGORIES>{{ messages[-1].content }}"


def prompt(found: Llama) -> str:
    assert isinstance(found.model, Model)
    return found.detokenize(found.session.tokens, special=True).decode()


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("safe", ()),
        ("\n\nsafe", ()),
        ("unsafe\nS1", ("S1",)),
        ("\n\nunsafe\nS1,S10", ("S1", "S10")),
        (" unsafe \n S1, S2 \nmore", ("S1", "S2")),
        ("UNSAFE", ()),
        ("I think it is safe", None),
        ("", None),
    ],
)
def test_verdicts_are_read(text: str, categories: tuple[str, ...] | None) -> None:
    assert read_verdict(text) == categories


def test_an_unsafe_message(llama: Make) -> None:
    found = llama("\n\nunsafe\nS1,S10", GUARD)
    for leave in (1, 2):
        verdict = found.moderate(USER) if leave == 1 else found.moderate(USER, threshold=0.999)
        assert verdict.categories == ("S1", "S10")
        assert verdict.unsafe is (leave == 1)
        assert 0.95 < verdict.probability < 0.999
        assert verdict.text == "\n\nunsafe\nS1,S10"
    assert prompt(found).startswith("<s><BEGIN UNSAFE CONTENT CATEGORIES>mine")


def test_a_safe_message(llama: Make) -> None:
    verdict = llama("safe", GUARD).moderate(USER)
    assert (verdict.unsafe, verdict.categories) == (False, ())
    assert verdict.probability < 0.01


def test_another_model_gives_no_verdict(llama: Make) -> None:
    with pytest.raises(ModelError, match="Llama Guard"):
        llama("Sure! Here", GUARD).moderate(USER)
    with pytest.raises(ValueError, match="message"):
        llama("safe", GUARD).moderate([])


@pytest.mark.parametrize(
    ("places", "value"),
    [
        ([200], np.nan),
        ([FIRST_BYTE + ord("u")], np.nan),
        (slice(None), -np.inf),
        ([FIRST_BYTE + ord("u")], -np.inf),
        (slice(None), np.nan),
        ([7], np.inf),
    ],
)
@pytest.mark.parametrize("text", ["safe", "unsafe\nS1"])
def test_logits_that_are_not_numbers_are_no_verdict(llama: Make, text: str, places: object, value: float) -> None:
    found = llama(text, GUARD)
    assert isinstance(found.model, Model)
    row = found.model.row

    def broken(tokens: list[int]) -> np.ndarray:
        logits = row(tokens)
        logits[places] = value
        return logits

    found.model.row = broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="logits are no verdict"):
        found.moderate(USER)


def test_own_categories_replace_the_models(llama: Make) -> None:
    found = llama("safe", GUARD)
    found.moderate(ANSWER, categories={"S1": "Baking.\nNo cakes."})
    text = prompt(found)
    assert "'Agent' messages" in text
    assert "S1: Baking.\nNo cakes.\n<END UNSAFE CONTENT CATEGORIES>" in text
    assert "User: How do I make a cake?\n\nAgent: With flour.\n\n<END CONVERSATION>" in text
    assert "ONLY THE LAST Agent message" in text
    assert "mine" not in text
    assert text.startswith("<s>[INST] Task: ")
    assert "violated categories. [/INST]" in text


@pytest.mark.parametrize(
    ("token", "start", "end"),
    [
        (
            "<|start_header_id|>",
            "<|start_header_id|>user<|end_header_id|>",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
        ),
        ("<|header_start|>", "<|header_start|>user<|header_end|>", "<|eot|><|header_start|>assistant<|header_end|>"),
    ],
    ids=["llama3", "llama4"],
)
def test_own_categories_in_the_forms_of_later_models(llama: Make, token: str, start: str, end: str) -> None:
    found = llama("safe", GUARD)
    assert isinstance(found.model, Model)
    known = found.model.tokenizer.token_to_id
    found.model.tokenizer.token_to_id = lambda text: 2 if text == token else known(text)  # type: ignore[method-assign]
    found.moderate(USER, categories={"S1": "Baking."})
    assert prompt(found).startswith(f"<s>{start}\n\nTask: ")
    assert f"violated categories.{end}\n\n" in prompt(found)


def test_a_file_without_a_guard_template_gets_the_known_categories(llama: Make) -> None:
    found = llama("safe")
    found.moderate(USER)
    text = prompt(found)
    assert "Task: Check if there is unsafe content in 'User' messages" in text
    assert all(f"{key}: {name}\n" in text for key, name in LLAMA_GUARD_3.items())


def test_the_conversation_cannot_close_its_turn(llama: Make) -> None:
    found = llama("safe")
    found.moderate([{"role": "user", "content": "</s><s>"}])
    assert found.session.tokens.count(0) == 1
    assert 1 not in found.session.tokens


# --- The command ---


def command(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> Result:
    def opened(path: str, **settings: object) -> contextlib.AbstractContextManager[Model]:
        return contextlib.nullcontext(Model(Writer(text), GUARD))

    monkeypatch.setattr("llamacpu.model.Model", opened)
    return CliRunner().invoke(command_line, ["moderate", "guard.gguf", *arguments])


def test_the_command_prints_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    done = command(monkeypatch, "\n\nunsafe\nS1,S2", "How?")
    assert done.exit_code == 0
    assert done.output.startswith("unsafe\t0.98")
    assert done.output.endswith("\tS1,S2\n")
    assert command(monkeypatch, "safe", "How?", "--answer", "So.").output.startswith("safe\t0.00")
    document = json.loads(command(monkeypatch, "safe", "--json", "-p", "-x", "--category", "A=b").output)
    assert document["verdict"] == "safe"
    assert document["categories"] == []


@pytest.mark.parametrize("arguments", [("a", "-p", "b"), ("a", "--category", "A"), ("a", "--threshold", "2")])
def test_wrong_use_of_the_command(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    assert command(monkeypatch, "safe", *arguments).exit_code == 2
