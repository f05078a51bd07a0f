"""`llamacpu train` as it is called: what it prints where, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llamacpu.cli.group import command_line
from llamacpu.cli.training_bar import ReadingBar, TrainingBar, duration
from llamacpu.tools.train import TrainingProgress
from numpy_trainer import NumpyTrainer
from training_child import native

QUICK = ["--rank", "2", "--length", "32", "--steps", "6"]


@pytest.fixture(autouse=True)
def numpy_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.tools.train.run._native", native())


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("bpe")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 8)
    return Path("data.jsonl")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, ["train", *map(str, arguments)])


def test_the_files_are_printed_and_the_plan_goes_to_stderr(model: Path, data: Path) -> None:
    result = invoke(model, data, "-o", "lora.gguf", *QUICK)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["lora.gguf", "lora-peft", "lora-loss.csv"]
    told = result.stderr.splitlines()
    assert [line.split(":")[0] for line in told] == ["data", "training", "memory", "done"]
    assert "6 steps" in told[1]
    assert all(Path(name).exists() for name in result.stdout.splitlines())


def test_a_document(model: Path, data: Path) -> None:
    result = invoke(
        model, data, "-o", "lora.gguf", *QUICK, "--json", "--no-peft", "--log", "a.jsonl", "--validation", 2
    )
    document = json.loads(result.stdout)
    assert (document["adapter"], document["peft"], document["log"]) == ("lora.gguf", None, "a.jsonl")
    assert document["steps"] == document["plan"]["steps"] == 6
    points = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert points == document["points"]
    assert document["validation_loss"] == min(point["validation_loss"] for point in points if point["validation_loss"])


def test_ctrl_c_says_how_to_go_on(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(NumpyTrainer):
        def step(self, *arguments: object) -> tuple[float, int]:
            if self.steps == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(*arguments)

    arguments = [str(model), str(data), "-o", "lora.gguf", *QUICK]
    monkeypatch.setattr("sys.argv", ["llamacpu", "train", *arguments])
    with monkeypatch.context() as patch:
        patch.setattr("llamacpu.tools.train.run._native", native(Interrupted))
        result = invoke(*arguments)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[3].startswith("Stopped. To go on: llamacpu train ")
    assert result.stderr.splitlines()[3].endswith("--steps 6 --resume")
    assert not Path("lora.gguf").exists()
    again = invoke(*arguments)
    assert again.exit_code == 1
    assert "has not ended; resume it (--resume" in again.stderr
    resumed = invoke(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "2 of them done" in resumed.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--rank", "0"], 2, "--rank is 0; expected 1 to 4096"),
        (["--dropout", "0.1"], 2, "--dropout is 0.1; only 0 is supported"),
        (["--epochs", "1", "--steps", "1"], 2, "epochs and steps are both given"),
        (["--validation", "none.jsonl"], 2, "'none.jsonl'; expected a share such as 5%"),
        (["--validation", "150%"], 2, "--validation is 1.5"),
        (["--peft", "a", "--no-peft"], 2, "--peft and --no-peft"),
        (["--matrices", "attn_x"], 1, "no matrix of the model is called 'attn_x'"),
        (["--length", "100000"], 1, "the length is 100000 tokens, and the model was trained for"),
        (["--from", "missing.gguf"], 1, "no such file"),
        (["--resume"], 1, "there is no checkpoint"),
    ],
)
def test_what_is_not_possible_is_one_line(
    model: Path, data: Path, arguments: list[str], status: int, told: str
) -> None:
    result = invoke(model, data, "-o", "lora.gguf", *arguments)
    assert result.exit_code == status, result.output
    assert told in result.stderr
    assert "Traceback" not in result.output
    assert sorted(path.name for path in Path().iterdir()) == ["data.jsonl"]


def test_an_error_in_the_data_names_its_line(model: Path, data: Path) -> None:
    data.write_text('{"text": "a"}\n{"text": "\\ud800"}\n')
    result = invoke(model, data, "-o", "lora.gguf")
    assert result.exit_code == 1
    assert "Error: data.jsonl, line 2: " in result.stderr
    assert invoke(model, "none.jsonl", "-o", "lora.gguf").exit_code == 2
    assert invoke(model, "-o", "lora.gguf").exit_code == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_loss_speed_and_time_left() -> None:
    stream = Terminal()
    bar = TrainingBar(stream)
    bar._PATIENCE = 0.0
    bar.update(TrainingProgress(5, 10, 1, 2, 1.25, 2.5, 100.0, 245.0))
    line = stream.getvalue()
    assert "5/10 loss 1.2500 validation 2.5000 100 tokens/s 4:05 left" in line
    assert "[####" in line
    bar.clear()
    assert stream.getvalue().endswith("\r\x1b[K")
    assert [duration(seconds) for seconds in (0, 59.6, 3599, 7900)] == ["0:00", "1:00", "59:59", "2 h 11 min"]


def test_the_bar_of_the_data_counts_records() -> None:
    stream = Terminal()
    bar = ReadingBar(stream)
    bar._PATIENCE = 0.0
    bar.count(12345)
    assert "Reading the data: 12,345 records" in stream.getvalue()


def test_the_loss_curve_is_drawn(model: Path, data: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plots] is not installed")
    result = invoke(model, data, "-o", "lora.gguf", *QUICK, "--validation", 2, "--plot", "loss.svg")
    assert result.exit_code == 0, result.output
    assert "<svg" in Path("loss.svg").read_text()


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_start(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ends in .png or .svg" in invoke(model, data, "-o", "lora.gguf", "--plot", "loss.txt").stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke(model, data, "-o", "lora.gguf", "--plot", "loss.png")
    assert result.exit_code == 1
    assert "plots need matplotlib" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["data.jsonl"]
