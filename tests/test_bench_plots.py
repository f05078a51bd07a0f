"""What the benchmarks write with --json, and the plots that are made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHES = Path(__file__).parent.parent / "benches"
pytestmark = pytest.mark.skipif(not BENCHES.is_dir(), reason="an installed package has no benchmarks")


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHES))
    import plots

    return plots


def row(part: str, own: float, *, threads: int = 2, tokens: int = 512, **more: Any) -> dict[str, Any]:
    speeds = {"llamacpu": own, "llama.cpp": 10.0}
    return {"file": "1b", "part": part, "threads": threads, "tokens": tokens, "tokens_per_second": speeds, **more}


@pytest.fixture
def files(plots: ModuleType, tmp_path: Path) -> list[Path]:
    scaling = [row("generate", own, threads=count) for count, own in ((4, 35.0), (1, 10.0), (2, 20.0))]
    long = [row("prompt", own, tokens=tokens, kv_type="f16") for tokens, own in ((4096, 90.0), (512, 100.0))]
    rows = {"compare": [row("prompt", 30.0, ratio=3.0), row("generate", 15.0, ratio=1.5)], "scaling": scaling}
    found = []
    for name, given in {**rows, "long": [*long, row("generate", 8.0, kv_type="f16")]}.items():
        found.append(tmp_path / f"{name}.json")
        plots.results.write(found[-1], name, {"rounds": 3}, given)
    return found


def test_numbers_are_arranged_for_the_axes(plots: ModuleType, files: list[Path]) -> None:
    documents = [plots.results.read(path) for path in files]
    assert documents[0]["settings"] == {"rounds": 3}
    assert plots.ratios(documents) == {"1b": {"prompt": 3.0, "generate": 1.5}}
    found = plots.lines(documents, "scaling", "generate", "threads")
    assert found["1b: llamacpu"] == [(1, 10.0), (2, 20.0), (4, 35.0)]
    assert set(found) == {"1b: llamacpu", "1b: llama.cpp"}
    assert plots.lines(documents, "long", "prompt", "tokens")["1b, f16: llamacpu"] == [(512, 100.0), (4096, 90.0)]
    # One length of the context is no line.
    assert plots.lines(documents, "long", "generate", "tokens") == {}


def test_results_of_two_machines_are_not_mixed(plots: ModuleType, files: list[Path]) -> None:
    first, second = (plots.results.read(path) for path in files[:2])
    second["machine"]["processor"] = "another one"
    with pytest.raises(ValueError, match="several machines"):
        plots.draw([first, second], files[0].parent)


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', '{"form": 2, "rows": []}'])
def test_other_files_are_refused(plots: ModuleType, tmp_path: Path, text: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(text)
    with pytest.raises(ValueError, match="holds no results"):
        plots.results.read(other)


def test_pictures_are_written(files: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    folder = files[0].parent
    command = [sys.executable, str(BENCHES / "plots.py"), *map(str, files), "--output", str(folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [Path(name).name for name in shown] == ["ratios.png", "threads-generate.png", "context-prompt.png"]
    for name in shown:
        assert Path(name).read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(plots: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    empty = tmp_path / "empty.json"
    plots.results.write(empty, "compare", {}, [])
    done = subprocess.run([sys.executable, str(BENCHES / "plots.py"), str(empty)], capture_output=True, text=True)
    assert (done.returncode, "nothing to draw" in done.stderr) == (1, True)


def test_counts_of_threads(plots: ModuleType) -> None:
    import compare

    assert [compare.thread_counts(most) for most in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_the_file_is_plain_json(files: list[Path]) -> None:
    document = json.loads(files[0].read_text())
    assert {"benchmark", "machine", "llamacpu", "date", "rows"} <= set(document)
