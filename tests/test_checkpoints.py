"""Checkpoints in safetensors: what is read is what was written, and nothing but the range that was asked for."""

from __future__ import annotations

import json
import math
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
from checkpoint_files import NAMES, bfloat16, safetensors_bytes, with_header, write_sharded
from llamacpu import Checkpoint, CheckpointError

KINDS = sorted(NAMES)


def opened(folder: Path, data: bytes, name: str = "model.safetensors") -> Checkpoint:
    (folder / name).write_bytes(data)
    return Checkpoint.open(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    array = np.random.default_rng(1).integers(0, 2 if kind == "bool" else 100, (5, 3, 2)).astype(kind)
    tensor = opened(tmp_path, safetensors_bytes({"first": np.zeros(3, np.uint8), "a": array})).tensors["a"]
    assert (tensor.shape, tensor.dtype, tensor.size) == ((5, 3, 2), NAMES[kind], 30)
    assert tensor.read_raw().dtype == array.dtype
    np.testing.assert_array_equal(tensor.read_raw(), array)
    np.testing.assert_array_equal(tensor.raw_rows(1, 3), array[1:3])
    for read in (tensor.read(), np.concatenate(list(tensor.pieces(48)))):
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, array.astype(np.float32))
    assert [len(piece) for piece in tensor.pieces(48)] == [2, 2, 1]


def eight_bits(code: int, exponents: int, mantissas: int, *, infinite: bool) -> float:
    """An 8-bit float by its definition: sign, exponent, mantissa."""
    bias = 2 ** (exponents - 1) - 1
    sign, exponent, mantissa = code >> 7, code >> mantissas & (2**exponents - 1), code & (2**mantissas - 1)
    if infinite and exponent == 2**exponents - 1:
        return math.nan if mantissa else (-math.inf if sign else math.inf)
    if not infinite and code & 127 == 127:
        return math.nan
    value = (
        (mantissa / 2**mantissas) * 2.0 ** (1 - bias)
        if not exponent
        else (1 + mantissa / 2**mantissas) * 2.0 ** (exponent - bias)
    )
    return -value if sign else value


def test_short_floats_are_exact(tmp_path: Path) -> None:
    codes = np.arange(256, dtype=np.uint8)
    halves = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    tensors = opened(
        tmp_path,
        safetensors_bytes(
            {"4": ("F8_E4M3", codes), "5": ("F8_E5M2", codes), "8": ("F8_E8M0", codes), "b": ("BF16", halves)}
        ),
    ).tensors
    np.testing.assert_array_equal(tensors["4"].read(), [eight_bits(c, 4, 3, infinite=False) for c in range(256)])
    np.testing.assert_array_equal(tensors["5"].read(), [eight_bits(c, 5, 2, infinite=True) for c in range(256)])
    np.testing.assert_array_equal(tensors["8"].read(), [2.0 ** (c - 127) for c in range(255)] + [math.nan])
    np.testing.assert_array_equal(tensors["b"].read().view(np.uint32), halves.astype(np.uint32) << 16)
    np.testing.assert_array_equal(tensors["b"].raw_rows(3, 5), halves[3:5])


def test_tensors_without_rows_and_without_elements(tmp_path: Path) -> None:
    tensors = opened(
        tmp_path, safetensors_bytes({"empty": np.zeros((0, 4), np.float32), "one": np.array(2.5, np.float32)})
    ).tensors
    assert tensors["one"].read() == 2.5
    assert tensors["one"].read().shape == ()
    assert [piece.tolist() for piece in tensors["one"].pieces()] == [2.5]
    assert tensors["empty"].read().shape == (0, 4)
    for name, start, stop in (("one", 0, 1), ("empty", 0, 1), ("empty", -1, 0), ("empty", 1, 0)):
        with pytest.raises(ValueError, match=f"rows {start} to {stop} of {name}"):
            tensors[name].rows(start, stop)


def test_files_of_the_safetensors_package_are_read(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    generator = np.random.default_rng(2)
    arrays = {f"layer.{i}": generator.standard_normal((i + 1, 7)).astype(np.float16) for i in range(20)}
    package.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].read_raw(), array)


def test_a_range_of_rows_takes_the_memory_of_these_rows(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    rows, width = 1 << 20, 4096
    header = {"a": {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, rows * width * 2]}}
    with path.open("wb") as file:  # 8 GiB, of which the disk stores a few bytes
        file.write(with_header(header, b""))
        start = file.tell()
        file.truncate(start + rows * width * 2)
        file.seek(start + (rows - 1) * width * 2)
        file.write(bfloat16(np.full(width, 1.5, np.float32)).tobytes())
    tracemalloc.start()
    last = Checkpoint.open(tmp_path).tensors["a"].rows(rows - 2, rows)
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()
    assert (last == [[0.0], [1.5]]).all()


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    arrays = [
        {"b": np.arange(4, dtype=np.float32)},
        {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "c": np.ones(1, np.int8)},
    ]
    write_sharded(tmp_path, arrays)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "time_step_limit": [0.0, Infinity]}')
    (tmp_path / "consolidated.safetensors").write_bytes(b"the same model under other names")
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.config["model_type"] == "llama"
    assert list(checkpoint.tensors) == ["b", "a", "c"]
    np.testing.assert_array_equal(checkpoint.tensors["a"].read(), arrays[1]["a"])
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "consolidated.safetensors").unlink()
    assert list(Checkpoint.open(tmp_path).tensors) == ["b", "a", "c"], "the numbers in their names suffice"
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"'model-00002-of-00002.safetensors' is missing"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "", ".", "..", "a/b", "a\\b", "a\0", 7, None])
def test_an_index_names_files_of_its_own_folder_alone(tmp_path: Path, file: Any) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"a": np.ones(1, np.float32)}))
    write_sharded(folder, [{"a": np.ones(1, np.float32)}], weight_map={"a": file})
    with pytest.raises(CheckpointError):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"a": "model-00001-of-00001.safetensors", "b": "model-00001-of-00001.safetensors"},
            "'b', which the index promises",
        ),
        ({"a": "other.safetensors"}, "1 of 1 files of the checkpoint are missing, the first is 'other.safetensors'"),
        ({}, "expected a table `weight_map`"),
        ([], "expected a table `weight_map`"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, table: Any, message: str) -> None:
    write_sharded(tmp_path, [{"a": np.ones(1, np.float32)}], weight_map=table)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Checkpoint.open(tmp_path)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


WRONG_HEADERS: list[tuple[Any, str]] = [
    ({"a": entry(offsets=[0, 12])}, "12 bytes; F32 (2,) takes 8"),
    ({"a": entry(offsets=[8, 0])}, "lie outside"),
    ({"a": entry(offsets=[9, 17])}, "lie outside the 16 bytes"),
    ({"a": entry(offsets=[-8, 0])}, "lie outside"),
    ({"a": entry(offsets=[0, 8.0])}, "lie outside"),
    ({"a": entry(offsets=[0])}, "lie outside"),
    ({"a": entry(offsets={"0": 8})}, "lie outside"),
    ({"a": entry(offsets=[False, 8])}, "lie outside"),
    ({"a": entry()}, "8 bytes follow the last tensor"),
    ({"a": entry(), "b": entry(offsets=[4, 12])}, "overlaps another"),
    ({"a": entry(), "b": entry()}, "overlaps another"),
    ({"a": entry(offsets=[8, 16])}, "follows a gap"),
    ({"a": entry("F12")}, "the type 'F12' is not supported"),
    ({"a": entry(["F32"])}, "is not supported"),
    ({"a": entry(shape=[-2])}, "not a possible shape"),
    ({"a": entry(shape=[2.0])}, "not a possible shape"),
    ({"a": entry(shape=2)}, "not a possible shape"),
    ({"a": entry(shape=[1] * 16 + [2])}, "not a possible shape"),
    ({"a": entry(shape=[0, 1 << 62], offsets=[0, 0])}, "not a possible shape"),
    ({"a": entry(shape=[1 << 40, 1 << 40])}, "not a possible shape"),
    ({"a": [1]}, "expected an object of dtype, shape and data_offsets"),
    ({"a": {"dtype": "F32", "shape": [2]}}, "expected an object of dtype"),
    ({"__metadata__": 3}, "__metadata__"),
    ({"__metadata__": {"a": 1}}, "__metadata__"),
    (b'{"a": 1, "a": 2}', "the name 'a' occurs twice"),
    (b'{"a": {"dtype": "F32", "dtype": "F32"}}', "the name 'dtype' occurs twice"),
    (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    (b'{"a": ' + b'{"a":' * 200_000, "nested too deeply"),
    (b"{", "not valid JSON"),
    (b'{"a": 1' + b"0" * 10_000 + b"}", "header"),
    (b'{"\xff": 1}', "not UTF-8"),
    (b"[]", "not a safetensors file"),
    (b"", "not a safetensors file"),
]


@pytest.mark.parametrize(("header", "message"), WRONG_HEADERS, ids=range(len(WRONG_HEADERS)))
def test_a_wrong_header_is_refused(tmp_path: Path, header: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        opened(tmp_path, with_header(header, bytes(16)))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = safetensors_bytes({"a": np.arange(3, dtype=np.float32), "b": ("BF16", np.zeros((2, 2), np.uint16))})
    for length in range(len(data)):
        with pytest.raises(CheckpointError):
            opened(tmp_path, data[:length])
    with pytest.raises(CheckpointError, match="1 bytes follow the last tensor"):
        opened(tmp_path, data + b"\0")


def test_headers_of_impossible_length_are_refused(tmp_path: Path) -> None:
    for length in (100_000_001, 1 << 40, (1 << 64) - 1):
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            opened(tmp_path, length.to_bytes(8, "little") + b"{}" + bytes(100))
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        opened(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


SMALL = safetensors_bytes(
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": ("F8_E4M3", np.zeros(4, np.uint8))}, {"x": "y"}
)


@given(st.data())
def test_mutations_of_a_file_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from("rid"))
        new = data.draw(st.one_of(st.sampled_from(list(b'{}[]",:0919-e.\\')), st.integers(0, 255)))
        if kind == "r":
            changed[place] = new
        elif kind == "i":
            changed.insert(place, new)
        elif len(changed) > 1:
            del changed[place]
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(changed)
    try:
        for tensor in Checkpoint.open(path).tensors.values():
            assert tensor.read().nbytes <= 4 * len(changed)
    except CheckpointError:
        pass


@pytest.mark.parametrize("change", ["shorter", "written", "replaced", "gone"])
def test_a_file_that_changes_later_is_noticed(tmp_path: Path, change: str) -> None:
    data = safetensors_bytes({"a": np.arange(8, dtype=np.float32)})
    tensor = opened(tmp_path, data).tensors["a"]
    path = tmp_path / "model.safetensors"
    if change == "shorter":
        os.truncate(path, len(data) - 4)
    elif change == "written":
        path.write_bytes(data)
        os.utime(path, ns=(1, 1))
    elif change == "replaced":
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").replace(path)
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        tensor.read()


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        Checkpoint.open(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no tensors here"):
        Checkpoint.open(tmp_path)
    with pytest.raises(TypeError, match="path"):
        Checkpoint.open(7)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError):
        Checkpoint.open("a\0b")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="this is a folder"):
        Checkpoint.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        Checkpoint.open(tmp_path)


def test_other_files_of_the_folder(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, safetensors_bytes({}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "broken.json").write_text("[1]")
    assert checkpoint.file("tokenizer.json") == tmp_path / "tokenizer.json"
    assert checkpoint.file("nothing") is None
    assert checkpoint.file("../" + tmp_path.name) is None
    assert checkpoint.json("tokenizer.json") == {}
    assert checkpoint.json("nothing") is None
    with pytest.raises(llamacpu.CheckpointError, match="expected a JSON object, found list"):
        checkpoint.json("broken.json")
    (tmp_path / "config.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        Checkpoint.open(tmp_path)
