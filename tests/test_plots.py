"""Pictures of measurements: files of the right kind, with the words that they should have."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamacpu.tools import plots
from llamacpu.tools.comparison import Comparison
from llamacpu.tools.perplexity import Perplexity
from thorough import THOROUGH


def perplexity_of(chunks: int) -> Perplexity:
    random = np.random.default_rng(1)
    losses = random.gamma(1.2, 2.0, 15 * chunks)
    running = np.exp(np.cumsum(losses.reshape(chunks, 15).sum(axis=1)) / (15 * np.arange(1, chunks + 1)))
    ids = np.zeros(len(losses), np.int64)
    return Perplexity(running[-1], 0.1, ids, ids, -losses, losses, ids, running, chunks, 32, 32 * chunks)


def comparison_of(count: int) -> Comparison:
    random = np.random.default_rng(2)
    base = -random.gamma(1.2, 2.0, count)
    ids = np.zeros(count, np.int64)
    own = np.minimum(base + random.normal(0, 0.1, count), 0)
    return Comparison(ids, ids, own, base, np.exp(random.normal(-4, 1, count)), ids, ids, 1, 32)


DRAWINGS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "perplexity": (
        lambda path: plots.perplexity_plot(path, [("one.txt", perplexity_of(7)), ("two.txt", perplexity_of(60))]),
        ("Perplexity up to each chunk", "chunk of 32 tokens", "one.txt: ", "two.txt: ", "(nats)"),
    ),
    "one chunk": (lambda path: plots.perplexity_plot(path, [("a", perplexity_of(1))]), ("standard error",)),
    "comparison": (
        lambda path: plots.comparison_plot(path, comparison_of(900), "A beside B"),
        ("A beside B", "divergence (nats)", "median: ", "original model", "same first choice: 100.00 %"),
    ),
    "few tokens": (lambda path: plots.comparison_plot(path, comparison_of(3)), ("divergence (nats)",)),
    "sensitivity": (
        lambda path: plots.sensitivity_plot(
            path, {f"blk.{i}.ffn_{part}.weight": 2.0**i for i in range(30) for part in ("up", "down")},
            title="Sensitivity", unit="divergence (nats)",
        ),
        ("Sensitivity (the largest 40 of 60)", "blk.29.ffn_up.weight", "ffn_down", "divergence (nats)"),
    ),
    "loss": (
        lambda path: plots.loss_plot(path, range(1, 101), np.linspace(3, 1, 100), validation=[(50, 2.1), (100, 1.2)]),
        ("step", "loss (nats per token)", "validation", "training, mean of 4 steps"),
    ),
    "no loss yet": (lambda path: plots.loss_plot(path, [], []), ("step",)),
}  # fmt: skip


# Those that are drawn as points, too; with LLAMACPU_THOROUGH=1 all of them. Laying a picture out takes time twice.
AS_POINTS = set(DRAWINGS) if THOROUGH else {"perplexity", "one chunk", "loss"}


@pytest.mark.parametrize("name", DRAWINGS)
def test_pictures_are_drawn_in_both_formats(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw, words = DRAWINGS[name]
    for _ in range(2 if name == "loss" else 1):  # over a picture that is there
        if name in AS_POINTS:
            draw(tmp_path / "plot.png")
        draw(tmp_path / "plot.SVG")
    if name in AS_POINTS:
        data = (tmp_path / "plot.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width >= 1200
        assert height >= 400
    svg = (tmp_path / "plot.SVG").read_text("utf-8")
    assert svg.rstrip().endswith("</svg>")
    for word in words:
        assert word in svg, word
    assert not any(name == "matplotlib.pyplot" for name in sys.modules), "no window, no global state"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_the_same_data_gives_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        plots.loss_plot(tmp_path / name, range(10), np.arange(10.0))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    diary = tmp_path / "diary.png"
    diary.write_text("dear diary")
    with pytest.raises(FileExistsError):
        plots.loss_plot(diary, [1], [1.0])
    assert diary.read_text() == "dear diary"
    with pytest.raises(FileNotFoundError):
        plots.loss_plot(tmp_path / "no" / "plot.png", [1], [1.0])


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        plots.loss_plot(tmp_path / "plot.gif", [1], [1.0])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"llamacpu\[plots\]"):
        plots.loss_plot(tmp_path / "plot.png", [1], [1.0])
    assert list(tmp_path.iterdir()) == []
