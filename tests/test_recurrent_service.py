"""Recurrent models in generation with drafts, in an engine with its prefix cache, and where memory is told or short."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
from further_families import CONTEXT, VOCABULARY, write
from llamacpu import Engine, Model, Sampling
from llamacpu.cli.group import command_line
from llamacpu.drafting import FunctionDraft
from llamacpu.families.memory import state_bytes
from llamacpu.generation import generate
from llamacpu.scheduler.pages import PageCounter, PageList

pytestmark = pytest.mark.instruction_set

HERE = Path(__file__).parent
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recurrent") / "model.gguf", "qwen35")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path, threads=2) as opened:
        yield opened


def alone(model: Model, prompt: list[int], tokens: int, **settings: Any) -> tuple[int, ...]:
    settings = {"sampling": GREEDY, "draft": None, "ignore_end": True, "max_tokens": tokens} | settings
    return generate(model, prompt, **settings).read().tokens


@pytest.mark.parametrize("seed", range(3))
def test_drafts_change_nothing(model: Model, seed: int) -> None:
    dice = random.Random(seed)
    prompt = [dice.randrange(VOCABULARY) for _ in range(dice.randrange(1, 40))]
    sampling = Sampling(temperature=0.9 * seed, seed=seed)
    wanted = alone(model, prompt, 80, sampling=sampling)

    def propose(ids: Any) -> list[int]:
        """Mostly what will be chosen, and sometimes not."""
        done = len(ids) - len(prompt)
        return [token if dice.random() < 0.8 else 3 for token in wanted[done : done + dice.randrange(12)]]

    assert alone(model, prompt, 80, sampling=sampling, draft=FunctionDraft(propose, adaptive=False)) == wanted


@pytest.mark.instruction_set(one_in=None)
def test_an_engine_gives_every_request_its_own_text(model: Model) -> None:
    """Prompts that share prefixes, which sessions of earlier requests hold only at some positions."""
    dice = random.Random(4)
    system = [dice.randrange(VOCABULARY) for _ in range(60)]
    prompts = [[*system[: dice.randrange(1, 60)], dice.randrange(VOCABULARY)] for _ in range(8)]
    chosen = [alone(model, prompt, 40) for prompt in prompts]
    with Engine(model, max_running=3) as engine:
        for _ in range(3):
            requests = []
            for prompt, wanted in zip(prompts, chosen, strict=True):
                # the next turn of a conversation, too
                longer = dice.random() < 0.5
                given = [*prompt, *wanted[:20]] if longer else prompt
                settings: dict[str, Any] = {"sampling": GREEDY, "ignore_end": True, "max_tokens": 20}
                requests.append((engine.submit(given, **settings), wanted[20:40] if longer else wanted[:20]))
            for request, wanted in requests:
                assert request.read(60).result.tokens == wanted
        assert engine.statistics.prefix_hits > 0
        assert engine.statistics.kv_bytes >= state_bytes(model.config, CONTEXT)


@pytest.mark.instruction_set(one_in=None)
def test_states_count_as_pages() -> None:
    counter = PageCounter(100, 350)
    first = PageList(counter)
    assert first.missing(0, 1) == 5
    first.grow(0, 1)
    assert counter.pages == len(list(first)) == 5
    second = first.fork()
    assert counter.pages == 5
    # its own states as soon as it goes on, and a copy of the last page
    assert second.missing(1, 1) == 5
    second.grow(1, 1)
    assert counter.pages == 10
    first.truncate(0)
    assert counter.pages == 5
    del second
    assert counter.pages == 0


@pytest.mark.instruction_set(one_in=None)
def test_info_tells_the_memory_of_states(path: Path, model: Model) -> None:
    said = CliRunner().invoke(command_line, ["info", str(path), "--json", "--context", "100"]).stdout
    facts = json.loads(said)["memory"]
    assert facts["state_bytes"] == state_bytes(model.config, 100) > 0
    assert facts["total_bytes"] == facts["weight_bytes"] + facts["kv_bytes"] + facts["state_bytes"]
    assert "states of recurrent layers" in CliRunner().invoke(command_line, ["info", str(path)]).stdout


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(sys.platform != "linux", reason="the sweep limits the address space and reads /proc")
def test_short_memory(path: Path, tmp_path: Path) -> None:
    package = str(Path(llamacpu.__file__).parent.parent)
    child = subprocess.run(
        [sys.executable, HERE / "short_memory_child.py"],
        input=json.dumps(["rewinding", str(path), str(tmp_path)]) + "\n",
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, str(HERE)]), "MALLOC_ARENA_MAX": "1"},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    result = json.loads(child.stdout)
    assert result["wrong"] == [], result
    assert result["outcomes"].keys() <= {"done", "MemoryError"}, result
    assert result["outcomes"].get("done"), result
