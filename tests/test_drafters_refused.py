"""Drafters that do not fit, damaged ones, and what the command line says of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from drafter_files import PREDICTED, VOCABULARY, WIDTH, write_block, write_drafter, write_eagle, write_model
from further_families import write
from llamacpu import Llama, Model, ModelDraft, Sampling
from llamacpu.cli.group import command_line
from llamacpu.drafting import LearnedDraft, open_draft
from llamacpu.engine.drafter import EngineDrafter
from llamacpu.errors import ContextOverflow, GGUFError, LlamaCpuError, ModelError

OTHER_TOKENS = [f"x{index}" for index in range(VOCABULARY)]
WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "other width": (lambda path: write_eagle(path, width=32), "states of 32 numbers.*have 48"),
    "other tokens": (lambda path: write_eagle(path, tokens=OTHER_TOKENS), "token 0 is 'x0'"),
    "fewer tokens": (lambda path: write_eagle(path, tokens=OTHER_TOKENS[:40], drop=("output.weight",)), "40 tokens"),
    "missing layers": (lambda path: write_eagle(path, layers=[1, 2, 5]), "after layer 4.*has 4 layers"),
    "layer 0": (lambda path: write_eagle(path, layers=[0, 1, 2]), "numbered from 1"),
    "two states": (lambda path: write_eagle(path, layers=[1, 2]), "fc.weight.*shape"),
    "no states": (lambda path: write_block(path, keys={"target_layers": None}), "target_layers is None"),
    "no mask": (lambda path: write_block(path, keys={"tokenizer.ggml.mask_token_id": None}), "mask_token_id"),
    "mask outside": (lambda path: write_block(path, keys={"tokenizer.ggml.mask_token_id": 50}), "mask_token_id"),
    "block of one": (lambda path: write_block(path, keys={"block_size": 1}), "block_size"),
    "endless block": (lambda path: write_block(path, keys={"block_size": 100_000}), "block_size"),
    "no norm": (lambda path: write_block(path, drop=("enc.output_norm.weight",)), "enc.output_norm.weight.*missing"),
    "no matrix": (lambda path: write_eagle(path, drop=("fc.weight",)), "fc.weight.*missing"),
    "two layers": (lambda path: write_eagle(path, keys={"block_count": 2}), "block_count is 2"),
    "unknown part": (lambda path: write_block(path, more={"strange.weight": np.ones(3)}), "strange.weight"),
    "Markov head": (lambda path: write_block(path, more={"markov_w1.weight": np.ones((3, 3))}), "Markov head"),
    "map outside": (
        lambda path: write_drafter(
            path, "eagle3", _eagle_keys(), _eagle_tensors(), {"d2t": np.arange(30, 60, dtype=np.int64)}
        ),
        "outside the vocabulary",
    ),
    "map of another length": (
        lambda path: write_drafter(
            path, "eagle3", _eagle_keys(), _eagle_tensors(), {"d2t": np.arange(20, dtype=np.int64)}
        ),
        "output.weight.*shape",
    ),
}


def _eagle_keys() -> dict[str, Any]:
    return {
        "block_count": 1, "context_length": 128, "embedding_length": WIDTH, "feed_forward_length": 40,
        "attention.head_count": 6, "attention.layer_norm_rms_epsilon": 1e-5, "target_layers": [1, 2, 4],
        "target_hidden_size": WIDTH,
    }  # fmt: skip


def _eagle_tensors() -> dict[str, Any]:
    return {"output.weight": np.ones((30, WIDTH))}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "model.gguf", "glm4moe")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path, threads=2) as model:
        yield model


@pytest.mark.parametrize("case", sorted(WRONG))
def test_one_error_says_what_does_not_fit(case: str, model: Model, tmp_path: Path) -> None:
    make, words = WRONG[case]
    with pytest.raises(ModelError, match=f"(?s){words}"):
        model.open_draft(make(tmp_path / "drafter.gguf"))


def test_a_model_without_layers_for_it_predicts_nothing(model: Model) -> None:
    with pytest.raises(ModelError, match="no layers for multi-token prediction"):
        model.open_draft("self")


def test_a_drafter_is_no_model(tmp_path: Path) -> None:
    drafter = write_eagle(tmp_path / "drafter.gguf")
    with pytest.raises(ModelError, match=r"a drafter.*Model\.open_draft"):
        Model(drafter)


def test_a_drafter_of_another_model_is_refused_before_the_text(model: Model, tmp_path: Path) -> None:
    other = write(tmp_path / "other.gguf", "qwen35")
    draft = model.open_draft(write_block(tmp_path / "drafter.gguf"))
    with Model(other, threads=2) as second, pytest.raises(ModelError, match="opened for another model"):
        second.generate([1, 2], draft=draft)
    draft.close()
    with pytest.raises(TypeError, match="expected the Model"):
        LearnedDraft("model.gguf", "drafter.gguf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="least_chance is 2"):
        LearnedDraft(model, "drafter.gguf", least_chance=2)
    with pytest.raises(GGUFError, match="no such file"):
        LearnedDraft(model, "no such file.gguf")


def test_damaged_files_do_no_harm(model: Model, tmp_path: Path) -> None:
    """Every file with changed bytes in its header, or cut off, is refused or drafts something."""
    random = np.random.default_rng(4)
    sound = {make: make(tmp_path / "sound.gguf").read_bytes() for make in (write_block, write_eagle)}
    damaged = tmp_path / "damaged.gguf"
    refused = 0
    how: dict[str, Any] = {"max_tokens": 8, "ignore_end": True, "sampling": Sampling(temperature=1, seed=2)}
    plain = model.generate([1, 2, 3], draft=None, **how).read().tokens
    for case in range(120):
        data = bytearray(sound[(write_block, write_eagle)[case % 2]])
        if case % 10 == 0:
            del data[int(random.integers(0, len(data))) :]
        for _ in range(3):
            if data:
                data[int(random.integers(24, 4000)) % len(data)] = int(random.integers(0, 256))
        damaged.write_bytes(bytes(data))
        try:
            draft = open_draft(model, damaged)
        except (LlamaCpuError, MemoryError):
            refused += 1
            continue
        if isinstance(draft, LearnedDraft):
            draft.least_chance, draft.adaptive = 0.0, False
        assert model.generate([1, 2, 3], draft=draft, **how).read().tokens == plain
        draft.close()
    assert 40 < refused < 120


def test_numbers_that_are_not_finite_propose_nothing(path: Path, tmp_path: Path) -> None:
    """Neither those of the model's states nor those of the drafter."""
    large = {"fc.weight": np.full((WIDTH, 3 * WIDTH), 3e38)}
    how: dict[str, Any] = {"max_tokens": 8, "ignore_end": True, "sampling": Sampling(temperature=1, seed=2)}
    with Model(path, threads=2) as model:
        plain = model.generate([1, 2, 3], draft=None, **how).read().tokens
        for make in (write_block, write_eagle):
            for more in (large, {"output_norm.weight": np.full(WIDTH, np.inf)}):
                file = make(tmp_path / "drafter.gguf", more=more)
                draft = LearnedDraft(model, file, adaptive=False, least_chance=0)
                assert model.generate([1, 2, 3], draft=draft, **how).read().tokens == plain
                draft.close()


def test_rows_that_no_drafter_takes_are_refused(model: Model, tmp_path: Path) -> None:
    drafter = EngineDrafter(write_eagle(tmp_path / "drafter.gguf"), model)
    session = drafter.session(4, "f16")
    rows = np.zeros((2, 2 * WIDTH), dtype=np.float32)
    for wrong, purpose, wanted in (
        (rows[:0], "causal", 0),
        (rows[:, :50], "causal", 0),
        (rows, "keys", 0),
        (rows, "causal", 3),
        (rows, "sideways", 1),
        (np.full_like(rows, np.nan), "causal", 1),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 (each of them)
            drafter.step(session, np.ascontiguousarray(wrong), purpose, wanted)  # type: ignore[arg-type]
        assert session.position == 0
    drafter.step(session, rows, "causal", 1)
    with pytest.raises(ContextOverflow):
        drafter.step(session, np.zeros((3, 2 * WIDTH), dtype=np.float32), "causal", 1)
    assert session.position == 2
    with pytest.raises(ValueError, match="has no embedding"):
        drafter.embed([VOCABULARY])
    drafter.close()


def test_front_ends_take_drafters_and_small_models(path: Path, tmp_path: Path) -> None:
    block = write_block(tmp_path / "drafter.gguf")
    how: dict[str, Any] = {"max_tokens": 20, "temperature": 0.9, "seed": 4}
    texts = []
    for draft in (None, "auto", str(block), str(path)):
        with Llama(path, n_ctx=128, n_threads=2, draft_model=draft) as llm:
            texts.append(llm([1, 2, 3], **how)["choices"][0]["text"])
            kinds = {str(block): LearnedDraft, str(path): ModelDraft}
            assert draft not in kinds or isinstance(llm.draft_model, kinds[draft])
    assert len(set(texts)) == 1


def test_a_server_drafts_for_a_request_that_runs_alone(path: Path, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    block = write_block(tmp_path / "drafter.gguf")
    asked = {"prompt": [1, 2, 3], "n_predict": 30, "temperature": 1, "seed": 3, "ignore_eos": True}
    texts = []
    for more in ({}, {"draft_model": str(block)}):
        with llamacpu.serve(path, threads=1, **more) as url:
            texts.append(httpx.post(f"{url}/completion", json=asked, timeout=60).raise_for_status().json()["content"])
    assert texts[0] == texts[1]
    with (
        pytest.raises(ModelError, match="does not fit"),
        llamacpu.serve(path, threads=1, draft_model=str(write_eagle(tmp_path / "wrong.gguf", width=32))),
    ):
        pass


def run(*arguments: Any) -> str:
    """What a command prints."""
    result = CliRunner().invoke(command_line, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_line_takes_and_describes_them(path: Path, tmp_path: Path) -> None:
    block, eagle = write_block(tmp_path / "block.gguf"), write_eagle(tmp_path / "eagle.gguf", rows=30)
    common = (
        "run",
        path,
        "--raw",
        "--prompt",
        "t1t2",
        "--seed",
        3,
        "--max-tokens",
        20,
        "--temperature",
        1,
        "--threads",
        2,
    )
    plain = run(*common, "--no-draft")
    assert plain
    assert {run(*common, "--draft-model", file) for file in (block, eagle, path)} == {plain}
    wrong = CliRunner().invoke(command_line, [str(part) for part in (*common, "--draft-model", "self")])
    assert wrong.exit_code == 1
    facts = json.loads(run("info", block, "--json"))
    assert facts["runs"] is False
    assert facts["drafter"] | {"kind": "DFlash", "block": 6, "reads_layers": [0, 1, 3]} == facts["drafter"]
    text = run("info", eagle)
    assert "EAGLE-3" in text
    assert "does not run" not in text
    assert "token embeddings of the model" in text
    own = write_model(tmp_path / "own.gguf", "glm4moe")
    keys = [part for key, value in PREDICTED.items() for part in ("--override", f"glm4moe.{key}={value}")]
    assert "--draft-model self" in run("info", own, *keys)
    short = ("--prompt-tokens", 0, "--generate-tokens", 2, "--repeat", 1, "--threads", 2, "--json")
    price = json.loads(run("bench", path, *short, "--draft-tokens", 3, "--draft-model", block))
    assert price["draft"]["model_seconds"] > 0
    assert run("run", own, *common[2:], *keys, "--draft-model", "self") == run(
        "run", own, *common[2:], *keys, "--no-draft"
    )


def test_what_does_not_pay_turns_itself_off(model: Model, tmp_path: Path) -> None:
    """A drafter of random weights is nearly always wrong: few of the passes have a draft."""
    draft = model.open_draft(write_block(tmp_path / "drafter.gguf"))
    assert isinstance(draft, LearnedDraft)
    draft.least_chance = 0.0
    settings: dict[str, Any] = {"max_tokens": 100, "ignore_end": True, "sampling": Sampling(temperature=1, seed=2)}
    timings = model.generate([1, 2, 3], draft=draft, **settings).read().timings
    assert timings.drafted_tokens < 30
    draft.close()
