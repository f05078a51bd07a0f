"""Pictures of every kind through an engine: encoded once, in batches with others and without, cancelled half way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference_cross_attention as crossing
from config_models import open_config_model, write_config_model
from family_shapes import BASE
from llamacpu import Cancelled, CancelToken, Model, Sampling
from llamacpu.answers import Question
from llamacpu.engine.pictures import MixedTokens
from llamacpu.families.config import Config
from llamacpu.generation import generate
from llamacpu.multimodal.rows import DelayedEmbeddings, DelayedStates
from llamacpu.scheduler import Engine

pytestmark = pytest.mark.instruction_set(one_in=None)
KINDS = ["between tokens", "seen in both directions", "rows and columns", "by cross-attention"]
ROWS, GRID = 12, (3, 4)
GREEDY = Sampling(temperature=0)


class Source:
    """A picture whose rows are random numbers; `encoded` counts how often they were made."""

    def __init__(self, name: str, width: int) -> None:
        self.digest = hashlib.blake2b(name.encode(), digest_size=32).digest()
        self.width = width
        self.encoded = 0
        self.found: Any = None
        self.began, self.held = threading.Event(), threading.Event()
        self.holds = False

    def rows(self, cancel: CancelToken | None = None, on_progress: Any = None) -> Any:
        if self.found is not None:
            return self.found
        self.encoded += 1
        self.began.set()
        while self.holds and not self.held.wait(0.01):
            if cancel is not None and cancel.cancelled:
                raise Cancelled("the picture was cancelled")
        random = np.random.default_rng(int.from_bytes(self.digest[:4], "little"))
        self.found = random.standard_normal((ROWS, self.width)).astype(np.float32)
        return self.found


class Shown:
    """A model that is shown pictures in one way."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        if kind == "by cross-attention":
            path, _ = crossing.write_model(folder / "model.gguf")
            self.model = Model(path, threads=2)
            self.width = crossing.CONFIG["width"]
            return
        more: dict[str, Any] = {}
        if kind == "rows and columns":  # as in Qwen3-VL, with parts of rows for the first layers
            more = {
                "rope_sections": [3, 3, 2], "rope_sections_alternate": True, "rope_style": "neox", "picture_layers": 2,
            }  # fmt: skip
        config = Config(**BASE | more)
        path = write_config_model(folder / "model.gguf", config)
        self.model = open_config_model(path, config)
        self.width = config.embedding_length * (1 + config.picture_layers)

    def source(self, name: str) -> Source:
        return Source(name, self.width)

    def picture(self, source: Source) -> Any:
        if self.kind == "by cross-attention":
            return DelayedStates(source, crossing.PICTURE)
        together = self.kind == "seen in both directions"
        return DelayedEmbeddings(source, 0, ROWS, together, GRID if self.kind == "rows and columns" else None)

    def prompt(self, *parts: Any) -> MixedTokens:
        """Numbers stand for as many tokens."""
        random = np.random.default_rng(len(parts))
        shown = [
            self.picture(part) if isinstance(part, Source) else random.integers(0, 60, part).tolist() for part in parts
        ]
        return MixedTokens(shown)

    def alone(self, prompt: Any) -> list[int]:
        """What the model says without an engine."""
        found = generate(self.model.session(), prompt, sampling=GREEDY, max_tokens=5, ignore_end=True).read()
        return list(found.tokens)


@pytest.fixture(scope="module", params=KINDS)
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    found = Shown(request.param, tmp_path_factory.mktemp("model"))
    yield found
    found.model.close()


def question(prompt: Any, tokens: int = 5) -> Question:
    return Question(prompt=prompt, sampling=GREEDY, max_tokens=tokens, ignore_end=True)


def said(request: Any) -> list[int]:
    return list(request.read().result.tokens)


def test_a_second_question_computes_nothing_of_the_picture(shown: Shown) -> None:
    def prompts(*sources: Source) -> list[Any]:
        first, second, other = (shown.prompt(8, source, 20) for source in sources)
        return [first, MixedTokens([second, [3, 4, 5]]), MixedTokens([other, [3, 4, 5]])]

    expected = [shown.alone(prompt) for prompt in prompts(*map(shown.source, ("one", "one", "two")))]
    sources = [shown.source(name) for name in ("one", "one", "two")]
    first, second, other = prompts(*sources)
    with Engine(shown.model, context=256, max_running=2) as engine:
        found = [said(engine.submit(question(first)))]
        assert sources[0].encoded == 1
        answer = engine.submit(question(second))
        found.append(said(answer))
        assert sources[1].encoded == 0
        assert answer.read().result.cached_tokens >= len(first) - 1
        another = engine.submit(question(other))
        found.append(said(another))
        # The text before the pictures is the same; nothing of one picture serves another.
        assert another.read().result.cached_tokens <= 8
    assert found == expected


def test_questions_with_and_without_pictures_share_steps(shown: Shown) -> None:
    sources = [shown.source(name) for name in ("a", "b", "c")]
    prompts: list[Any] = [
        shown.prompt(5, sources[0], 9),
        shown.prompt(30),
        shown.prompt(3, sources[1], 4, sources[2], 5),
        shown.prompt(sources[0], 12),
        shown.prompt(17),
    ]
    expected = [shown.alone(prompt) for prompt in prompts]
    with Engine(shown.model, context=256, max_running=5) as engine:
        requests = [engine.submit(question(prompt), client=str(at)) for at, prompt in enumerate(prompts)]
        assert [said(request) for request in requests] == expected


def test_a_request_is_cancelled_in_the_middle_of_its_picture(shown: Shown) -> None:
    held, other = shown.source("held"), shown.source("other")
    prompt = shown.prompt(6, held, 7)
    expected = [shown.alone(shown.prompt(6, shown.source(name), 7)) for name in ("held", "other")]
    held.holds = True
    with Engine(shown.model, context=256, max_running=2) as engine:
        request = engine.submit(question(prompt))
        assert held.began.wait(60)
        request.cancel()
        assert request.read().finish_reason == "cancelled"
        assert said(engine.submit(question(shown.prompt(6, other, 7)))) == expected[1]
        held.holds = False
        assert said(engine.submit(question(prompt))) == expected[0]


@pytest.mark.parametrize("cut", [3, 8, 9, 14, 20, 25])
def test_sessions_fork_and_rewind_around_a_picture(shown: Shown, cut: int) -> None:
    given = shown.prompt(8, shown.source("one"), 20)
    session = shown.model.session(kv_type="f32")
    expected = session.forward(given, logits="all")
    inside = shown.kind == "seen in both directions" and 8 < cut < 8 + ROWS
    fork = session.fork()
    start = 8 if inside else cut
    for each in (fork, session):
        if inside:
            # Rows that see each other are computed in one step.
            with pytest.raises(ValueError, match="inside a picture whose rows see each other; truncate it to 8"):
                each.truncate(cut)
        each.truncate(start)
        assert np.array_equal(each.forward(given[start:], logits="all"), expected[start:])


def test_another_picture_in_the_place_of_one(shown: Shown) -> None:
    one, two = (shown.prompt(8, shown.source(name), 20) for name in ("one", "two"))
    answers: Callable[[Any], Any] = lambda prompt: shown.model.session(kv_type="f32").forward(prompt, logits="all")  # noqa: E731
    expected = answers(two)
    assert not np.array_equal(answers(one), expected)
    session = shown.model.session(kv_type="f32")
    session.forward(one, logits="none")
    session.truncate(8)
    assert np.array_equal(session.forward(two[8:], logits="all"), expected[8:])
