"""A model file that is shortened, written to or replaced in use: an error or no effect, never a dead process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from tiny_encoders import ENCODERS, write_encoder
from tiny_models import Shape

HERE = Path(__file__).parent
TOKENS = list(range(2, 40))
signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses to shorten mapped files")


def run(case: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    package = str(Path(llamacpu.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, HERE / "file_in_use_child.py", case, path, folder],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, str(HERE)])},
    )


def result(case: str, path: Path, folder: Path) -> Any:
    child = run(case, path, folder)
    assert child.returncode == 0, f"ended with {child.returncode}:\n{child.stderr[-3000:]}"
    found = json.loads(child.stdout)
    assert found
    return found


@pytest.fixture(params=["F32", "Q4_0", "split"])
def model(request: pytest.FixtureRequest, tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """Weights that are used as they are in the file, weights that are packed, and a model in two files."""
    if request.param != "split":
        return tiny_model("bpe", request.param)
    return split(tiny_model("bpe", "Q8_0"), tmp_path)


def split(path: Path, folder: Path) -> Path:
    """The same model in two files, of which the second has the tensors."""
    import gguf

    reader = gguf.GGUFReader(path)
    names = [folder / f"model-{number}-of-00002.gguf" for number in ("00001", "00002")]
    for number, name in enumerate(names):
        writer = gguf.GGUFWriter(name, "llama")
        if number == 0:
            for key, field in reader.fields.items():
                if key.startswith("GGUF.") or key == "general.architecture":
                    continue
                sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        for tensor in reader.tensors if number == 1 else ():
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return names[0]


def expected(path: Path) -> list[float]:
    with llamacpu.Model(path) as model:
        return [float(value) for value in model.session().forward(TOKENS)]


@signals
@pytest.mark.parametrize("case", ["shortened_before_the_first_step", "shortened_to_nothing_after_a_step"])
def test_a_shortened_file_is_an_error_of_every_step(case: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for found in result(case, model, tmp_path / "own"):
        assert found.startswith("ModelError")
        assert "became shorter while it was used" in found


@signals
def test_a_shortened_file_is_an_error_of_classifying(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "encoder.gguf", ENCODERS["deberta"])
    (tmp_path / "own").mkdir()
    for found in result("shortened_before_texts_are_classified", path, tmp_path / "own"):
        assert found.startswith("ModelError")
        assert "became shorter while it was used" in found


@signals
def test_a_shortened_file_is_an_error_of_computing_a_past_again(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    window = Shape(context=4096, extra={"attention.sliding_window": 40})
    for found in result("shortened_before_a_past_is_computed_again", tiny_model(window), tmp_path):
        assert found.startswith("ModelError")
        assert "became shorter while it was used" in found


@signals
def test_a_shortened_file_that_two_models_have(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    found = result("shortened_while_another_model_has_it", tiny_model("bpe", "Q4_0"), tmp_path)
    assert [text.partition(":")[0] for text in found] == ["ModelError", "GGUFError", "ModelError"]


@signals
def test_a_file_that_is_shortened_while_a_step_runs(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    found = result("shortened_while_a_step_runs", tiny_model("bpe", "Q4_0"), tmp_path)
    assert len(found) == 6
    assert all(outcome == "ran" or outcome.startswith("ModelError") for outcome in found)


def test_a_file_that_is_written_to_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (found,) = result("written_to_in_place", model, tmp_path / "own")
    assert found.startswith("ModelError")
    assert "was written to while it was used" in found


@signals
@pytest.mark.parametrize(
    "case",
    ["another_file_renamed_over_it", "another_model_renamed_over_it_while_it_is_opened", "copied_and_gone"],
)
def test_what_has_no_effect(case: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    for number, kind in enumerate(("F32", "Q4_0")):
        path = tiny_model("bpe", kind)
        (tmp_path / str(number)).mkdir()
        assert result(case, path, tmp_path / str(number)) == expected(path)
    if case == "copied_and_gone":
        path = tiny_model("gqa", "Q4_0")  # its embedding is its output, and is looked up after it was packed
        (tmp_path / "tied").mkdir()
        assert result(case, path, tmp_path / "tied") == expected(path)


def test_reading_a_shortened_file_is_an_error(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    for found in result("headers_of_a_shortened_file", tiny_model("bpe"), tmp_path):
        assert found.startswith("GGUFError")
        assert "became shorter" in found


@signals
@pytest.mark.parametrize("case", ["lost_pages_of_others", "lost_pages_of_others_with_a_traceback"])
def test_other_bus_errors_are_not_ours(case: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    child = run(case, tiny_model("bpe"), tmp_path)
    assert (child.returncode, child.stdout) == (-signal.SIGBUS, "null")
    assert child.stderr.count("Fatal Python error: Bus error") == (case == "lost_pages_of_others_with_a_traceback")


@signals
def test_faulthandler_may_come_and_go(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    found = result("shortened_after_faulthandler_came", tiny_model("bpe", "Q4_0"), tmp_path)
    assert all(outcome.startswith("ModelError") for outcome in found)


@signals
def test_a_handler_of_the_program_keeps_its_signal(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    assert result("a_signal_that_somebody_sent", tiny_model("bpe"), tmp_path) == [signal.SIGBUS] * 2


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_K"])
def test_a_copy_says_the_same_to_the_last_bit(kind: str, tiny_model: Callable[..., Path]) -> None:
    rows = []
    for load in ("map", "copy"):
        with llamacpu.Model(tiny_model("gqa", kind), load=load) as model:
            assert model.mapped == (load == "map")
            rows += [model.session().forward(TOKENS) for _ in range(2)]
    assert all(np.array_equal(row, rows[0]) for row in rows)


def test_another_way_to_load_is_refused(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match='load is \'mmap\'; expected "map" or "copy"'):
        llamacpu.Model(tiny_model(), load="mmap")  # type: ignore[arg-type]
