"""Batches on a local cluster of Ray with two workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu

ray: Any = pytest.importorskip("ray")
pytest.importorskip("pyarrow")

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    context = ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
    yield context.address_info["address"]
    ray.shutdown()


def test_the_example_killed_in_the_middle_loses_and_doubles_no_row(cluster: str, tmp_path: Path) -> None:
    rows = [{"id": number, "prompt": f"The cat number {number}"} for number in range(96)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    options = ["--actors", "2", "--rows-per-part", "4", "--max-tokens", "24", "--temperature", "0"]
    command = [sys.executable, str(ROOT / "examples" / "ray_batch.py"), str(DEMO), str(source), str(out), *options]
    environment = os.environ | {"RAY_ADDRESS": cluster}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not list(out.glob("part-*")):
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}
    assert 0 < len(before) < 24
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for file in sorted(out.glob("part-*")) for line in file.read_text().splitlines()]
    assert [row["id"] for row in found] == list(range(96))
    assert all(row["error"] is None and row["completion_tokens"] > 0 for row in found)
    assert len(list(out.glob("part-*"))) == 24


def answering_actors() -> list[int]:
    """The processes that answer parts of files in the cluster of this test: children of a child of ours."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"PartAnswerer" in (folder / "cmdline").read_bytes() and parent(parent(folder)).name == str(os.getpid()):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def parent(folder: Path) -> Path:
    status = (folder / "status").read_text()
    return Path("/proc") / next(line.split()[1] for line in status.splitlines() if line.startswith("PPid"))


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the actors in /proc")
def test_an_actor_killed_in_the_middle_loses_and_doubles_no_row(cluster: str, tmp_path: Path) -> None:
    from llamacpu.ray import answer_files

    rows = [{"id": number, "prompt": f"The cat number {number}", "max_tokens": 8 + number % 3} for number in range(64)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    killed: list[int] = []
    # A random first token would now and then end an answer before it begins.
    options: dict[str, Any] = {"rows_per_part": 2, "row_settings": ["max_tokens"], "sampling": {"temperature": 0}}

    def kill(done: int, _total: int) -> None:
        if done == 3:
            killed.append(answering_actors()[0])
            os.kill(killed[0], signal.SIGKILL)
            with pytest.raises(ValueError, match="another run writes its answers"):
                answer_files(DEMO, source, tmp_path / "out", **options)

    summary = answer_files(DEMO, source, tmp_path / "out", actors=2, on_progress=kill, **options)
    assert killed
    assert summary == (64, 0, 32, 0)
    files = sorted((tmp_path / "out").glob("part-*"))
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [row["id"] for row in found] == list(range(64))
    assert all(row["error"] is None and 0 < row["completion_tokens"] <= row["max_tokens"] for row in found)


def test_a_dataset_and_parquet(cluster: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    from llamacpu.ray import Answerer, answer_files

    asked = [{"role": "user", "content": "What can you do?"}]
    table = pyarrow.table({"id": [1, 2, 3], "messages": [asked, None, asked], "prompt": [None, "The cat", None]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    greedy = {"temperature": 0}
    summary = answer_files(
        DEMO, tmp_path / "in.parquet", tmp_path / "out", rows_per_part=2, max_tokens=8, sampling=greedy
    )
    assert summary == (3, 0, 2, 0)
    again = answer_files(
        DEMO, tmp_path / "in.parquet", tmp_path / "out", rows_per_part=2, max_tokens=8, sampling=greedy
    )
    assert again == (0, 0, 0, 2)
    answers = [
        row
        for file in sorted((tmp_path / "out").glob("*.parquet"))
        for row in pyarrow.parquet.read_table(file).to_pylist()
    ]
    assert [row["id"] for row in answers] == [1, 2, 3]
    arguments = {"model": str(DEMO), "max_tokens": 8, "sampling": greedy}
    dataset = ray.data.from_items([{"prompt": "The cat"}, {"prompt": "The cat"}])
    answered = dataset.map_batches(Answerer, fn_constructor_kwargs=arguments, concurrency=1, num_cpus=1).take_all()
    assert [row["answer"] for row in answered] == [answers[1]["answer"]] * 2


def test_more_than_a_machine_has_is_refused_in_words(cluster: str, tmp_path: Path) -> None:
    from llamacpu.ray import answer_files

    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(ValueError, match="num_cpus is 64, and the largest machine"):
        answer_files(DEMO, tmp_path / "in.jsonl", tmp_path / "out", num_cpus=64)
    with pytest.raises(ValueError, match=r"wants .* GB of memory for an actor"):
        answer_files(DEMO, tmp_path / "in.jsonl", tmp_path / "out", kv_memory=1 << 50)
    assert not (tmp_path / "out").exists()
