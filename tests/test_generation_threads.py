"""Many threads on one model: every stream is that of its single-threaded run, whatever the others do."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacpu.generation import CancelToken, generate
from llamacpu.model import Model
from llamacpu.sampling import Sampling

THREADS = 8
ROUNDS = 6
PROMPTS = ["Once upon a time", "Hello", "One two three four five six seven", "a" * 60]


def text_of(model: Model, prompt: str, seed: int) -> str:
    sampling = Sampling(temperature=1.2, seed=seed)
    return generate(model, prompt, max_tokens=24, sampling=sampling, ignore_end=True).read().text


@pytest.fixture(scope="module")
def path(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("gqa")


def test_streams_do_not_disturb_each_other(path: Path) -> None:
    with Model(path, threads=2) as model:
        expected = {(prompt, seed): text_of(model, prompt, seed) for prompt in PROMPTS for seed in range(3)}
        wrong: list[object] = []

        def work(number: int) -> None:
            choice = random.Random(number)
            try:
                for _ in range(ROUNDS):
                    prompt, seed = choice.choice(list(expected))
                    sampling = Sampling(temperature=1.2, seed=seed)
                    token = CancelToken()
                    session = model.session()
                    generation = generate(
                        session, prompt, max_tokens=24, sampling=sampling, ignore_end=True, cancel=token
                    )
                    stops_after = choice.choice([None, None, 2, 7])
                    said = ""
                    for place, piece in enumerate(generation):
                        said += piece
                        if place == stops_after:
                            choice.choice([token.cancel, generation.close])()
                    whole = expected[prompt, seed]
                    fork = session.fork()
                    fork.truncate(fork.position // 2)
                    if not (said == whole if stops_after is None else whole.startswith(said.rstrip("\ufffd"))):
                        wrong.append((prompt, seed, said, whole))
                    again = generate(fork, prompt, max_tokens=24, sampling=sampling, ignore_end=True).read()
                    if again.text != whole:
                        wrong.append((prompt, seed, again.text, whole))
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=100)
            assert not thread.is_alive()
        assert wrong == []


def test_closing_the_model_ends_what_runs_on_it(path: Path) -> None:
    from llamacpu.errors import LlamaCpuError

    model = Model(path, threads=2)
    generation = generate(model, "Hello", ignore_end=True, overflow="shift", sampling=Sampling(seed=1))
    next(generation)
    model.close()
    with pytest.raises(LlamaCpuError, match="has been closed"):
        generation.read()
    assert generation.result.ended_by == "cancelled"
