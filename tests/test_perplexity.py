"""Perplexity against its definition, on tiny models: chunks, arrays, states, files and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.errors import Cancelled, ModelError
from llamacpu.tools import chunks, measuring, progress_file
from llamacpu.tools.perplexity import Perplexity, PerplexityMeasurement
from sample_text import sample_text

TEXT = sample_text(60)
CONTEXT = 32


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> llamacpu.Model:
    return llamacpu.Model(tiny_model("gqa"), threads=2)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def same(one: Perplexity, other: Perplexity) -> bool:
    """Whether all arrays and figures have the same bits."""
    names = ("tokens", "positions", "log_probabilities", "entropies", "top_tokens", "running")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return equal and (one.value, one.error, one.chunks) == (other.value, other.error, other.chunks)


def by_definition(model: llamacpu.Model, text: str, context: int, count: int) -> tuple[list[float], list[int]]:
    """Losses and positions, from one session a chunk."""
    ids = model.tokenizer.encode(text)
    losses, positions = [], []
    for chunk in range(count):
        own = ids[chunk * context : (chunk + 1) * context]
        seen = [model.tokenizer.bos, *own[1:]] if model.tokenizer.add_bos else own
        rows = log_softmax(model.session(context).forward(seen, logits="all"))
        for place in range(context // 2, context - 1):
            losses.append(-rows[place, own[place + 1]])
            positions.append(chunk * context + place + 1)
    return losses, positions


@pytest.mark.instruction_set
@pytest.mark.parametrize("variant", ["gqa", "bpe"])
def test_the_second_half_of_every_chunk_counts(tiny_model: Callable[..., Path], variant: str) -> None:
    with llamacpu.Model(tiny_model(variant)) as model:
        found = llamacpu.perplexity(model, TEXT, context=CONTEXT)
        ids = model.tokenizer.encode(TEXT)
        losses, positions = by_definition(model, TEXT, CONTEXT, len(ids) // CONTEXT)
        assert found.chunks == len(ids) // CONTEXT > 9
        assert found.positions.tolist() == positions
        assert found.tokens.tolist() == [ids[position] for position in positions]
        np.testing.assert_allclose(-found.log_probabilities, losses, rtol=1e-6, atol=1e-6)
        value = np.exp(np.mean(losses))
        error = np.std(losses) / np.sqrt(len(losses) - 1) * value
        assert found.value == pytest.approx(value, rel=1e-6)
        assert found.error == pytest.approx(error, rel=1e-5)
        assert found.running[-1] == pytest.approx(value, rel=1e-6)
        assert found.running[0] == pytest.approx(np.exp(np.mean(losses[: CONTEXT // 2 - 1])), rel=1e-6)
        assert 0 <= found.accuracy <= 1
        assert found.text_tokens == len(ids)


def test_odd_contexts_and_entropies(model: llamacpu.Model) -> None:
    found = llamacpu.perplexity(model, TEXT, context=33, chunks=2)
    losses, _ = by_definition(model, TEXT, 33, 2)
    np.testing.assert_allclose(-found.log_probabilities, losses, rtol=1e-6, atol=1e-6)
    ids = model.tokenizer.encode(TEXT)[:33]
    rows = log_softmax(model.session(33).forward(ids, logits="all"))[16:32]
    np.testing.assert_allclose(found.entropies[:16], -(np.exp(rows) * rows).sum(axis=1), rtol=1e-5)
    assert found.top_tokens[:16].tolist() == rows.argmax(axis=1).tolist()


def test_strides_let_every_token_have_more_past(model: llamacpu.Model) -> None:
    ids = model.tokenizer.encode(TEXT)[:100]
    found = llamacpu.perplexity(model, ids, context=40, stride=10)
    assert found.chunks == 6
    assert found.positions.tolist() == list(range(30, 90))
    for chunk in range(6):
        rows = log_softmax(model.session(40).forward(ids[10 * chunk :][:40], logits="all"))
        expected = [rows[place, ids[10 * chunk + place + 1]] for place in range(29, 39)]
        np.testing.assert_allclose(found.log_probabilities[10 * chunk :][:10], expected, rtol=1e-6, atol=1e-6)


def test_batches_threads_and_pieces_change_no_bit(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model("gqa")
    expected = llamacpu.perplexity(path, TEXT, context=CONTEXT, threads=1)
    for batch, threads in ((1, 2), (64, 3), (1 << 20, 2)):
        found = llamacpu.perplexity(path, TEXT, context=CONTEXT, batch_tokens=batch, threads=threads)
        assert same(found, expected)
    monkeypatch.setattr(chunks, "_LOGIT_BYTES", 10_000)
    assert same(llamacpu.perplexity(path, TEXT, context=CONTEXT), expected)


def test_texts_are_files_texts_or_tokens(model: llamacpu.Model, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT + "\n", encoding="utf-8", newline="\n")
    expected = llamacpu.perplexity(model, TEXT, context=CONTEXT, chunks=2)
    assert same(llamacpu.perplexity(model, file, context=CONTEXT, chunks=2), expected), "the last line break is cut off"
    ids = model.tokenizer.encode(TEXT)
    assert same(llamacpu.perplexity(model, ids, context=CONTEXT, chunks=2), expected)
    assert same(llamacpu.perplexity(model, np.array(ids), context=CONTEXT, chunks=2), expected)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "empty"),
        ("short", {}, "at least 64"),
        (TEXT, {"context": 3}, "expected 4"),
        (TEXT, {"stride": 32}, "less than the context"),
        (TEXT, {"stride": 0}, "less than the context"),
        (TEXT, {"chunks": 0}, "at least 1"),
        (TEXT, {"batch_tokens": 0}, "at least 1"),
        ([1, 2, 10**6] * 40, {}, "outside the vocabulary"),
        ([1, -2] * 40, {}, "outside the vocabulary"),
    ],
)
def test_senseless_arguments_are_refused(
    model: llamacpu.Model, text: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        llamacpu.perplexity(model, text, **{"context": CONTEXT, **settings})


def test_other_types_and_files_are_refused(model: llamacpu.Model, tmp_path: Path) -> None:
    for text in (b"bytes", 5, None, ["words"]):
        with pytest.raises(TypeError):
            llamacpu.perplexity(model, text)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a Model"):
        llamacpu.perplexity(5, TEXT)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole number"):
        llamacpu.perplexity(model, TEXT, context="many")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        llamacpu.perplexity(model, tmp_path / "missing.txt")
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(ValueError, match=r"give Path\("):
        llamacpu.perplexity(model, str(tmp_path / "text.txt"), context=256)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    with pytest.raises(ValueError, match="not UTF-8"):
        llamacpu.perplexity(model, tmp_path / "latin.txt")
    with pytest.raises(ValueError, match="open model"):
        llamacpu.perplexity(model, TEXT, threads=2)


def test_damaged_weights_are_named(model: llamacpu.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    step = model.step

    def damaged(items: Any, logits: Any = "last", cancel: Any = None) -> Any:
        return [None if rows is None else rows * np.nan for rows in step(items, logits, cancel)]  # type: ignore[attr-defined]

    monkeypatch.setattr(model, "step", damaged)
    with pytest.raises(ModelError, match="chunk 0"):
        llamacpu.perplexity(model, TEXT, context=CONTEXT)


class StoppedError(Exception):
    pass


def test_an_interrupted_measurement_continues(
    model: llamacpu.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = llamacpu.perplexity(model, TEXT, context=CONTEXT)
    state = tmp_path / "state"

    def stop(done: int, _total: int) -> None:
        if done >= 5 * CONTEXT:
            raise StoppedError

    with pytest.raises(StoppedError):
        llamacpu.perplexity(model, TEXT, context=CONTEXT, batch_tokens=2 * CONTEXT, resume=state, on_progress=stop)
    seen: list[int] = []
    found = llamacpu.perplexity(
        model, TEXT, context=CONTEXT, resume=state, on_progress=lambda done, _total: seen.append(done)
    )
    assert same(found, expected)
    assert min(seen) > 4 * CONTEXT, "the chunks before the interruption are not measured again"
    monkeypatch.setattr(model, "step", None)
    assert same(llamacpu.perplexity(model, TEXT, context=CONTEXT, resume=state), expected), "a complete one is read"
    first = llamacpu.perplexity(model, TEXT, context=CONTEXT, chunks=2, resume=state)
    assert (first.chunks, len(first.log_probabilities)) == (2, 30)


def test_a_cancelled_measurement_is_saved(model: llamacpu.Model, tmp_path: Path) -> None:
    cancel = llamacpu.CancelToken()
    state = tmp_path / "state"

    def progress(done: int, _total: int) -> None:
        if done >= 2 * CONTEXT:
            cancel.cancel()

    with pytest.raises(Cancelled):
        llamacpu.perplexity(
            model, TEXT, context=CONTEXT, batch_tokens=1, resume=state, cancel=cancel, on_progress=progress
        )
    assert llamacpu.perplexity(model, TEXT, context=CONTEXT, chunks=2, resume=state).chunks == 2


def test_states_of_other_measurements_are_refused(model: llamacpu.Model, tmp_path: Path) -> None:
    state = tmp_path / "state"
    llamacpu.perplexity(model, TEXT, context=CONTEXT, chunks=2, resume=state)
    for text, settings, what in (
        (TEXT + " more", {}, "text"),
        (TEXT, {"context": 16}, "context"),
        (TEXT, {"kv_type": "f32"}, "kv_type"),
        (TEXT, {"stride": 8}, "stride"),
    ):
        with pytest.raises(ValueError, match=f"another {what}"):
            llamacpu.perplexity(model, text, resume=state, **{"context": CONTEXT, **settings})  # type: ignore[arg-type]
    other = tmp_path / "other"
    other.write_bytes(b"my diary")
    with pytest.raises(ValueError, match="not a measurement"):
        llamacpu.perplexity(model, TEXT, context=CONTEXT, resume=other)
    assert other.read_bytes() == b"my diary"


def test_damaged_states_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    progress_file.save(state, "test", {"text": "a"}, {"x": np.arange(5.0), "y": np.arange(5)})
    found = progress_file.load(state, "test", {"text": "a"})
    assert found is not None
    assert found["x"].tolist() == [0, 1, 2, 3, 4]
    data = state.read_bytes()
    for length in range(len(data)):
        state.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"damaged|not a measurement"):
            progress_file.load(state, "test", {"text": "a"})
    for place in range(0, len(data) - 80, 3):
        for value in (0, ord("9")):
            state.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            try:
                progress_file.load(state, "test", {"text": "a"})
            except ValueError:
                continue
    state.write_bytes(data)
    with pytest.raises(ValueError, match="another measurement"):
        progress_file.load(state, "other", {})


def test_states_are_saved_every_ten_seconds(
    model: llamacpu.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    saved: list[float] = []
    # Not the clock of the whole process, by which a server in another thread measures its waiting.
    monkeypatch.setattr(measuring, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(measuring.progress_file, "save", lambda *_arguments: saved.append(clock[0]))

    def tick(_done: int, _total: int) -> None:
        clock[0] += 2

    llamacpu.perplexity(
        model, TEXT, context=CONTEXT, batch_tokens=1, chunks=9, resume=tmp_path / "state", on_progress=tick
    )
    assert len(saved) >= 3
    assert max(np.diff([0.0, *saved])) <= 14


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, ["perplexity", *map(str, arguments)])


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_command_prints_a_line_or_json(
    tiny_model: Callable[..., Path], model: llamacpu.Model, text_file: Path
) -> None:
    path = tiny_model("gqa")
    expected = llamacpu.perplexity(model, TEXT, context=CONTEXT)
    result = invoke(path, text_file, "-c", CONTEXT)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"perplexity {expected.value:.4f} ± {expected.error:.5f} (")
    assert result.stderr == ""
    document = json.loads(invoke(path, text_file, "-c", CONTEXT, "--json").stdout)
    assert document["perplexity"] == expected.value
    assert document["running"] == expected.running.tolist()
    both = json.loads(invoke(path, text_file, text_file, "-c", CONTEXT, "--chunks", 2, "--json").stdout)
    assert [entry["chunks"] for entry in both] == [2, 2]
    lines = invoke(path, text_file, "-c", CONTEXT, "--each-chunk", "--chunks", 3).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines[:3]] == ["1", "2", "3"]
    assert len(lines) == 4


def test_ctrl_c_prints_what_has_been_measured(
    tiny_model: Callable[..., Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = tiny_model("gqa"), tmp_path / "state"
    expected = llamacpu.perplexity(path, TEXT, context=CONTEXT, chunks=2)
    measured = PerplexityMeasurement.measured
    calls = [0]

    def interrupted(self: PerplexityMeasurement, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return measured(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PerplexityMeasurement, "measured", interrupted)
        result = invoke(path, text_file, "-c", CONTEXT, "-b", 1, "--resume", state)
    assert result.exit_code == 130
    assert f"perplexity {expected.value:.4f}" in result.stdout
    assert "2 of" in result.stderr
    result = invoke(path, text_file, "-c", CONTEXT, "--resume", state)
    assert f"{llamacpu.perplexity(path, TEXT, context=CONTEXT).value:.4f}" in result.stdout


def test_mistakes_on_the_command_line_are_one_line(
    tiny_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    path = tiny_model("gqa")
    short = tmp_path / "short.txt"
    short.write_text("hello")
    for arguments, status, message in (
        ((path, tmp_path / "none.txt"), 1, "none.txt"),
        ((path, short), 1, "needs at least|need at least"),
        ((path,), 2, "TEXT"),
        ((path, text_file, "--plot", "x.gif"), 2, ".png"),
        ((path, text_file, "--plot", tmp_path / "no" / "x.png"), 2, "no such folder"),
        ((path, text_file, "-c", 32, "--stride", 40), 1, "less than the context"),
        ((path, text_file, text_file, "--resume", tmp_path / "state"), 2, "one TEXT"),
        ((text_file, text_file), 1, "GGUF"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == status, (arguments, result.output)
        assert any(part in result.stderr for part in message.split("|")), result.stderr
        assert len(result.stderr.strip().splitlines()) <= 4
        assert result.stdout == ""


# What llama-perplexity (llama.cpp of llama-cpp-python 0.3.36) prints for sample_text(400), with
# `-fa off -ctk f32 -ctv f32 -c CONTEXT -b 4 * CONTEXT`: file, context -> perplexity and error.
PRINTED = {
    ("stories/stories260K.gguf", 512): (7.9202, 0.28655),
    ("stories/stories260K.gguf", 128): (8.0442, 0.29216),
    ("stories/stories260K.gguf", 65): (8.0927, 0.28622),
}


@pytest.mark.parametrize(("name", "context"), PRINTED)
def test_figures_are_those_of_llama_perplexity(golden: Path, name: str, context: int) -> None:
    expected, error = PRINTED[name, context]
    found = llamacpu.perplexity(golden / name, sample_text(400), context=context, kv_type="f32")
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.error == pytest.approx(error, rel=1e-3)
