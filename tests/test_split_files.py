"""Split models: several files that are one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import llamacpu
import raw_gguf as raw
from llamacpu.errors import GGUFError
from llamacpu.gguf.file import GGUFFile
from raw_gguf import gguf_bytes, info, pair, scalar
from tiny_models import VARIANTS, write_model


def shard(number: int, count: int, names: list[str], total: int | None = None, kind: int = raw.U16) -> bytes:
    """File `number` (from 0) with one tensor of 8 floats per name; only the first has the model's metadata."""
    pairs = [pair("split.no", scalar(kind, number)), pair("split.count", scalar(kind, count))]
    if total is not None:
        pairs.append(pair("split.tensors.count", scalar(raw.I32, total)))
    if number == 0:
        pairs.append(pair("general.name", scalar(raw.STRING, "a model in pieces")))
    infos = [info(name, [8], 0, 32 * index) for index, name in enumerate(names)]
    return gguf_bytes(pairs, infos, bytes(32 * len(names)))


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"model-{number + 1:05}-of-00003.gguf" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(shard(number, 3, [f"t{number}a", f"t{number}b"], 6))
    return paths


def test_tensors_of_all_files(three: list[Path]) -> None:
    with GGUFFile(three[0]) as file:
        assert file.paths == three
        assert file.metadata["general.name"] == "a model in pieces"
        assert [(tensor.name, tensor.file) for tensor in file.tensors] == [
            (f"t{number}{letter}", number) for number in range(3) for letter in "ab"
        ]
        assert file.nbytes == sum(path.stat().st_size for path in three)
        for tensor in file.tensors:
            assert tensor.offset + tensor.nbytes <= three[tensor.file].stat().st_size


@pytest.mark.parametrize("kind", [raw.U8, raw.I32, raw.U64])
def test_any_integer_type_counts(tmp_path: Path, kind: int) -> None:
    for number in range(2):
        path = tmp_path / f"model-{number + 1:05}-of-00002.gguf"
        path.write_bytes(shard(number, 2, [f"t{number}"], 2, kind))
    with GGUFFile(tmp_path / "model-00001-of-00002.gguf") as file:
        assert len(file.tensors) == 2


def test_one_file_of_one_needs_no_special_name(tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    path.write_bytes(shard(0, 1, ["a"], 1))
    with GGUFFile(path) as file:
        assert file.paths == [path]


def test_opening_a_later_file_names_the_first(three: list[Path]) -> None:
    with pytest.raises(GGUFError, match=r"file 2 of 3; open the first one, model-00001-of-00003\.gguf"):
        GGUFFile(three[1])


def test_missing_file_is_named(three: list[Path]) -> None:
    three[2].unlink()
    with pytest.raises(GGUFError, match=r"model-00003-of-00003\.gguf: no such file"):
        GGUFFile(three[0])


def test_renamed_file(three: list[Path]) -> None:
    renamed = three[0].with_name("mine.gguf")
    three[0].rename(renamed)
    with pytest.raises(GGUFError, match="original names"):
        GGUFFile(renamed)


def test_files_in_the_wrong_order(three: list[Path]) -> None:
    shutil.copy(three[1], three[2])
    with pytest.raises(GGUFError, match="do not belong together"):
        GGUFFile(three[0])


def test_tensor_in_two_files(three: list[Path]) -> None:
    three[2].write_bytes(shard(2, 3, ["t0a", "t2b"], 6))
    with pytest.raises(GGUFError, match="'t0a' occurs in two"):
        GGUFFile(three[0])


def test_wrong_total(three: list[Path]) -> None:
    three[2].write_bytes(shard(2, 3, ["t2a"], 6))
    with pytest.raises(GGUFError, match="hold 5 tensors, expected 6"):
        GGUFFile(three[0])


@pytest.mark.parametrize(("number", "count"), [(3, 3), (0, 60000), (5, 0)])
def test_impossible_numbers(tmp_path: Path, number: int, count: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(shard(number, count, []))
    with pytest.raises(GGUFError, match="expected a number below the count"):
        GGUFFile(path)


def test_split_model_gives_the_same_bits(tmp_path: Path) -> None:
    shape = VARIANTS["mixtral"]
    whole = write_model(tmp_path / "whole.gguf", shape)
    first = write_model(tmp_path / "split.gguf", shape, tensors_per_file=9)
    assert len(list(tmp_path.glob("split-*"))) == 3
    tokens = [1, 5, 17, 300]
    with llamacpu.Model(whole) as one, llamacpu.Model(first) as many:
        expected = one.session().forward(tokens, logits="all")
        assert many.session().forward(tokens, logits="all").tobytes() == expected.tobytes()
