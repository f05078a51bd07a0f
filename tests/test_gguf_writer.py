"""Writing GGUF files: byte for byte as the gguf package does, read back, and never over a file of another kind."""

from __future__ import annotations

import errno
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.types import TENSOR_TYPES, VALUE_TYPES
from llamacpu.gguf.writer import NewTensor, Typed, copied_tensor, tensor_nbytes, typed_metadata, write_gguf

RANGES = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind in RANGES:
        low = 0 if kind.startswith("u") else -(2 ** (RANGES[kind] - 1))
        return st.integers(low, low + 2 ** RANGES[kind] - 1)
    if kind.startswith("float"):
        return st.floats(width=32 if kind == "float32" else 64, allow_nan=False)
    return st.booleans() if kind == "bool" else st.text(min_size=1, max_size=20)


KINDS = [kind for kind in VALUE_TYPES if kind != "array"]
typed = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(Typed, values_of(kind) | st.lists(values_of(kind), min_size=1, max_size=6), st.just(kind))
)
keys = st.text(st.characters(codec="ascii", categories=["Ll", "Po"]), min_size=1, max_size=20).map("x.".__add__)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
BYTE_TYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "I32": np.int32, "F64": np.float64}


def tensor(name: str, array: Any, format: str = "F32") -> NewTensor:
    return NewTensor(name, array.shape, format, lambda: [array])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@given(
    st.dictionaries(keys, typed, max_size=5),
    st.lists(st.tuples(shapes, st.sampled_from(sorted(BYTE_TYPES))), max_size=4),
    st.sampled_from([32, 64, 8]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_those_of_the_gguf_package(
    tmp_path: Path, metadata: dict[str, Typed], tensors: list[tuple[tuple[int, ...], str]], alignment: int
) -> None:
    theirs = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    for key, value in metadata.items():
        kind = gguf.GGUFValueType[value.type.upper()]
        if isinstance(value.value, list):
            theirs.add_key_value(key, value.value, gguf.GGUFValueType.ARRAY, kind)
        else:
            theirs.add_key_value(key, value.value, kind)
    if alignment != 32:
        theirs.add_custom_alignment(alignment)
    ours = []
    for number, (shape, format) in enumerate(tensors):
        array = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(BYTE_TYPES[format])
        theirs.add_tensor(f"t{number}", array)
        ours.append(tensor(f"t{number}", array, format))
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    size = write_gguf(tmp_path / "ours.gguf", {"general.architecture": "llama", **metadata}, ours, alignment=alignment)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
    assert size == (tmp_path / "ours.gguf").stat().st_size


@given(st.dictionaries(keys, typed, max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_read_from_a_file_are_written_with_their_types(tmp_path: Path, metadata: dict[str, Typed]) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_gguf(one, metadata, [tensor("a", array), tensor("b", array[:, :2])])
    with GGUFFile(one) as file:
        assert {key: file.metadata.value_type(key) for key in file.metadata} == {
            key: value.type for key, value in metadata.items()
        }
        write_gguf(two, typed_metadata(file.metadata), [copied_tensor(file, each) for each in file.tensors])
    assert one.read_bytes() == two.read_bytes()


def test_plain_values_have_the_usual_types(tmp_path: Path) -> None:
    plain = {"a": True, "b": 7, "c": -7, "d": 2**40, "e": 0.5, "f": "text", "g": [1, -2], "h": [0.5, 1],
             "i": ["x", "y"], "j": [True, False], "k": np.arange(3, dtype=np.uint16), "l": 1e39}  # fmt: skip
    write_gguf(tmp_path / "a.gguf", plain, [])
    with GGUFFile(tmp_path / "a.gguf", {"b": 8, "m": 1.5}) as file:
        kinds = [file.metadata.value_type(key) for key in plain if key != "b"]
        assert kinds == ["bool", "int32", "uint64", "float32", "string", "int32", "float32", "string", "bool", "uint16",
                         "float32"]  # fmt: skip
        assert file.metadata.value_type("b") is None
        assert typed_metadata(file.metadata)["b"] == Typed(8, "uint32")
        with pytest.raises(KeyError):
            file.metadata.value_type("none")


def test_a_quantized_tensor_in_pieces(tmp_path: Path) -> None:
    blocks = np.arange(3 * 2 * 34, dtype=np.uint8).reshape(3, 68)
    told: list[tuple[int, int]] = []
    write_gguf(
        tmp_path / "a.gguf",
        {},
        [
            NewTensor("a", (3, 64), "Q8_0", lambda: (row for row in blocks)),
            NewTensor("s", (), "F32", lambda: [b"abcd"]),
        ],
        on_progress=lambda done, total: told.append((done, total)),
    )
    with GGUFFile(tmp_path / "a.gguf") as file:
        first, second = file.tensors
        assert (first.shape, first.type_name, second.shape) == ((64, 3), "Q8_0", ())
        assert file.tensor_bytes(first, 0, first.nbytes) == blocks.tobytes()
        assert file.tensor_bytes(second, 0, 4) == b"abcd"
    assert told == [(68, 208), (136, 208), (204, 208), (208, 208)]


@pytest.mark.parametrize("entry", TENSOR_TYPES.values(), ids=lambda entry: entry.name)
def test_sizes_follow_from_the_blocks(entry: Any) -> None:
    assert tensor_nbytes((3, 2 * entry.block_elements), entry.name) == 6 * entry.block_bytes
    if entry.block_elements > 1:
        with pytest.raises(ValueError, match=f"multiple of {entry.block_elements}"):
            tensor_nbytes((3, 2 * entry.block_elements + 1), entry.name)


ONE = np.ones((2, 4), np.float32)
IMPOSSIBLE: dict[str, tuple[dict[str, Any], list[NewTensor], dict[str, Any], str]] = {
    "twice": ({}, [tensor("a", ONE), tensor("a", ONE)], {}, "'a' is given twice"),
    "no name": ({}, [tensor("", ONE)], {}, "no or over 63 bytes"),
    "long name": ({}, [tensor("a" * 64, ONE)], {}, "no or over 63 bytes"),
    "five sizes": ({}, [tensor("a", ONE.reshape(1, 1, 1, 2, 4))], {}, "up to 4 sizes"),
    "format": ({}, [tensor("a", ONE, "Q9_0")], {}, "'Q9_0' is unknown"),
    "blocks": ({}, [tensor("a", ONE, "Q8_0")], {}, "multiple of 32"),
    "too much": ({}, [NewTensor("a", (2, 2), "F32", lambda: [ONE, ONE])], {}, "more than 16 bytes; expected 16"),
    "too little": ({}, [NewTensor("a", (2, 8), "F32", lambda: [ONE])], {}, "32 bytes; expected 64"),
    "alignment": ({}, [], {"alignment": 24}, "power of two"),
    "key": ({"": 1}, [], {}, "not a string of 1 to"),
    "range": ({"a": Typed(300, "uint8")}, [], {}, "'a' cannot be written as uint8"),
    "kind": ({"a": {"b": 1}}, [], {}, "'a' is a dict; expected bool"),
    "mixed": ({"a": [1, "b"]}, [], {}, "several types"),
    "empty": ({"a": []}, [], {}, "empty list"),
    "type": ({"a": Typed(1, "int128")}, [], {}, "'int128'; expected one of"),
    "huge": ({"a": 2**70}, [], {}, "cannot be written as uint64"),
    "not bool": ({"a": Typed(2, "bool")}, [], {}, "neither true nor false"),
    "not text": ({"a": Typed([1], "string")}, [], {}, "expected str"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_no_file_can_hold_is_refused_and_leaves_the_older_file(tmp_path: Path, case: str) -> None:
    metadata, tensors, options, message = IMPOSSIBLE[case]
    path = tmp_path / "a.gguf"
    write_gguf(path, {"older": 1}, [])
    older = path.read_bytes()
    with pytest.raises((ValueError, TypeError), match=message):
        write_gguf(path, metadata, tensors, **options)
    assert path.read_bytes() == older
    assert names(tmp_path) == ["a.gguf"]


def test_an_input_and_a_file_of_another_kind_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, {"older": 1}, [])
    older = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with pytest.raises(FileExistsError, match="read from while"):
            write_gguf(name, {}, [], inputs=[tmp_path / "none", path])
    assert path.read_bytes() == older
    path.write_bytes(b"a thesis")
    with pytest.raises(FileExistsError, match="something other than a GGUF file"):
        write_gguf(path, {}, [])
    assert path.read_bytes() == b"a thesis"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, OSError(errno.ENOSPC, "full")])
def test_a_stop_in_the_middle_leaves_nothing_behind(tmp_path: Path, stop: Any) -> None:
    def data() -> Iterator[Any]:
        yield ONE[:1]
        raise stop

    with pytest.raises(stop if isinstance(stop, type) else OSError):
        write_gguf(tmp_path / "a.gguf", {}, [NewTensor("a", (2, 4), "F32", data)])
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"needs \d+ bytes and the disk has 100"):
        write_gguf(tmp_path / "a.gguf", {}, [NewTensor("a", (2, 4), "F32", lambda: pytest.fail("data was asked for"))])
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX systems")
def test_a_new_file_has_the_permissions_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_gguf(tmp_path / "a.gguf", {}, [])
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "a.gguf")]
    assert modes[0] == modes[1]
