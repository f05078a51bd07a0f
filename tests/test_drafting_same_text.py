"""Drafts change nothing: every call, every number and the state that is left are those of the generation without."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llamacpu
from fake_model import END, START, FakeModel, ids_of
from llamacpu.constraints.grammar import Grammar
from llamacpu.drafting import Draft, FunctionDraft, ModelDraft, NGramDraft
from llamacpu.generation import CancelToken, generate
from llamacpu.generation.result import Timings
from llamacpu.model import Model, Session
from llamacpu.sampling import Sampler, Sampling
from thorough import examples

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
LETTERS = ids_of("abc")
SAMPLINGS = {
    "greedy": Sampling(temperature=0, seed=1),
    "default": Sampling(seed=2, temperature=0.7),
    "hot": Sampling(seed=3, temperature=3, top_k=0, top_p=1, min_p=0),
    "penalties": Sampling(seed=4, repeat_penalty=1.3, presence_penalty=0.2, frequency_penalty=0.1),
    "DRY, XTC": Sampling(seed=5, dry_multiplier=0.8, dry_allowed_length=1, xtc_probability=0.5, xtc_threshold=0.1),
    "mirostat 1": Sampling(seed=6, mirostat=1),
    "mirostat 2": Sampling(seed=7, mirostat=2, mirostat_tau=1.0),
    "adaptive-p": Sampling(seed=8, adaptive_target=0.4),
    "bias": Sampling(seed=9, logit_bias={LETTERS[0]: 2.0}),
}


class Chatterer(FakeModel):
    """Its next token depends on the last two, by numbers drawn from a seed: its texts repeat themselves a lot."""

    def __init__(self, seed: int, context: int) -> None:
        super().__init__(lambda tokens: int(self.row(tokens).argmax()), context)
        self.seed = seed

    def row(self, tokens: list[int]) -> np.ndarray:
        numbers = np.random.default_rng((self.seed, *tokens[-2:]))
        row = np.full(self.vocab_size, -30, dtype=np.float32)
        row[LETTERS] = numbers.normal(0, 2, len(LETTERS))
        row[END] = -2
        return row


class Unchecked(ModelDraft):
    """Takes models without a file behind them."""

    def check(self, session: Session) -> None:
        """Whatever the vocabulary."""


def guesses(seed: int) -> FunctionDraft:
    """A function that proposes any number of tokens, right ones among them."""
    choice = random.Random(seed)
    model = Chatterer(seed % 3, 1000)

    def propose(ids: Any) -> list[int]:
        text, proposed = [int(token) for token in ids], []
        for _ in range(choice.randrange(16)):
            proposed.append(model.next_token(text) if choice.random() < 0.9 else choice.choice([*LETTERS, END]))
            text.append(proposed[-1])
        return proposed

    return FunctionDraft(propose, adaptive=choice.random() < 0.3)


DRAFTS: dict[str, Callable[[int], Draft]] = {
    "n-gram": lambda seed: NGramDraft(),
    "n-gram, always": lambda seed: NGramDraft(min_match=1 + seed % 3, max_tokens=1 + seed % 15, adaptive=False),
    "function": guesses,
    "model": lambda seed: Unchecked(Chatterer(seed % 3, 1000), adaptive=seed % 2 == 0),
}


def trace(
    model: Any, session: Any, prompt: list[int], sampling: Sampling, wanted: dict[str, Any], draft: Draft | None
) -> list[Any]:
    """Everything that a caller can see of a generation, in the order in which it sees it."""
    seen: list[Any] = []

    def process(history: Any, logits: Any) -> Any:
        seen.append(("process", history.tolist(), logits.tobytes()))
        logits[LETTERS[1]] += len(history) % 3
        return logits

    def criterion(history: Any, logits: Any) -> bool:
        seen.append(("criterion", history.tolist(), logits.tobytes()))
        return len(history) == wanted["criterion_at"]

    sampler = Sampler(sampling, model.vocab_size, lambda token: "x")
    token = CancelToken()
    generation = generate(
        session,
        prompt,
        sampling=sampler,
        draft=draft,
        max_tokens=wanted["max_tokens"],
        stop=wanted["stop"],
        overflow=wanted["overflow"],
        keep=wanted["keep"],
        ignore_end=wanted["ignore_end"],
        log_probabilities=wanted["log_probabilities"],
        logits_processors=[process] if wanted["processor"] else [],
        stopping_criteria=[criterion] if wanted["criterion_at"] else [],
        on_token=lambda taken: seen.append(replace(taken, seconds=0.0)),
        cancel=token,
    )
    for place, piece in enumerate(generation):
        seen.append(("piece", piece))
        if place == wanted["close_after"]:
            generation.close()
        if place == wanted["cancel_after"]:
            token.cancel()
    seen.append(replace(generation.result, timings=Timings()))
    seen.append(("session", list(session.tokens)))
    # The random stream and what mirostat remembers are where they would be.
    seen.append(("next", [sampler.sample(Chatterer(0, 9).row([place, 0])) for place in range(4)]))
    return seen


WANTED = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(0, 40),
        "stop": st.lists(st.text("abc", min_size=1, max_size=5), max_size=2),
        "overflow": st.sampled_from(["error", "shift", "truncate"]),
        "keep": st.integers(0, 6),
        "ignore_end": st.booleans(),
        "log_probabilities": st.none() | st.integers(0, 3),
        "processor": st.booleans(),
        "criterion_at": st.none() | st.integers(1, 40),
        "close_after": st.none() | st.integers(0, 20),
        "cancel_after": st.none() | st.integers(0, 20),
    }
)


@pytest.mark.parametrize("draft", DRAFTS)
@settings(max_examples=examples(150), deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(list(SAMPLINGS)),
    st.text("abc", max_size=12),
    st.integers(12, 60),
    WANTED,
)
def test_a_generation_with_drafts_is_that_without(
    draft: str, seed: int, sampling: str, prompt: str, context: int, wanted: dict[str, Any]
) -> None:
    model = Chatterer(seed % 5, context)
    ids = [START, *ids_of(prompt)][:context]
    plain = trace(model, model.session(), ids, SAMPLINGS[sampling], wanted, None)
    assert trace(model, model.session(), ids, SAMPLINGS[sampling], wanted, DRAFTS[draft](seed)) == plain


def test_the_traces_above_are_of_drafts_that_are_confirmed() -> None:
    for name, draft in DRAFTS.items():
        counts = []
        for seed in (3, 6, 9):
            model = Chatterer(seed % 3, 1000)
            sampling = Sampling(temperature=0.5, seed=seed)
            result = generate(model, "abcabc", sampling=sampling, draft=draft(seed), max_tokens=60).read()  # type: ignore[arg-type]
            assert result.timings.accepted_tokens <= result.timings.drafted_tokens, name
            counts.append(result.timings.accepted_tokens)
        assert max(counts) > 0 or name == "n-gram", name


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("sampling", ["greedy", "default", "penalties", "mirostat 2"])
def test_a_real_model_writes_the_same_with_drafts(tiny_model: Callable[..., Path], sampling: str, kv_type: Any) -> None:
    wanted = {
        "max_tokens": 90, "stop": [], "overflow": "shift", "keep": 3, "ignore_end": True, "log_probabilities": 2,
        "processor": False, "criterion_at": None, "close_after": None, "cancel_after": None,
    }  # fmt: skip
    with Model(tiny_model("gqa", "Q4_K"), threads=2) as model, Model(tiny_model("gqa"), threads=1) as small:
        prompt = model.tokenizer.encode("one two three one two three one two")
        drafts = [None, NGramDraft(), NGramDraft(1, 15, adaptive=False), ModelDraft(small, 4, adaptive=False)]
        first, *others = (
            trace(model, model.session(64, kv_type), prompt, SAMPLINGS[sampling], wanted, draft) for draft in drafts
        )
        assert all(other == first for other in others)


def test_a_model_drafts_for_itself(tiny_model: Callable[..., Path]) -> None:
    with Model(tiny_model("gqa"), threads=2) as model, Model(tiny_model("gqa"), threads=1) as same:
        greedy = Sampling(temperature=0)
        plain = generate(model, "Hello", sampling=greedy, max_tokens=40, draft=None, ignore_end=True).read()
        draft = ModelDraft(same, 5, adaptive=False)
        for _ in range(2):
            found = generate(model, "Hello", sampling=greedy, max_tokens=40, draft=draft, ignore_end=True).read()
            assert found.text == plain.text
            # It is never wrong, and stops only where it is not sure enough itself.
            assert found.timings.accepted_tokens == found.timings.drafted_tokens
        assert generate(model, "Hello", sampling=greedy, max_tokens=9, draft=same).read().timings.draft_seconds > 0


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_grammar_is_kept_with_drafts_as_without(temperature: float) -> None:
    item = {"type": "object", "properties": {"name": {"enum": ["ant", "bee"]}, "legs": {"enum": [4, 6]}}}
    item["required"] = ["name", "legs"]
    grammar = Grammar.json_schema({"type": "array", "items": item, "minItems": 4, "maxItems": 4})
    with Model(DEMO, threads=2) as model:
        texts, drafted = [], []
        for draft in (None, NGramDraft(), NGramDraft(1, adaptive=False), ModelDraft(model, 6, adaptive=False)):
            result = generate(
                model,
                "Some animals:",
                sampling=Sampling(temperature=temperature, seed=4),
                logits_processors=[grammar.constraint(model.tokenizer, model.vocab_size)],
                max_tokens=300,
                draft=draft,
            ).read()
            texts.append((result.text, result.ended_by, result.tokens))
            drafted.append(result.timings.accepted_tokens)
        assert all(text == texts[0] for text in texts)
        assert texts[0][1] == "end_of_text"
        assert len(json.loads(texts[0][0])) == 4
        assert drafted[2] > 0
