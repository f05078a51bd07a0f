"""Reading sound GGUF files: compared with what was written, and with the reader of the gguf package."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raw_gguf as raw
from llamacpu.errors import GGUFError, ModelError
from llamacpu.gguf.file import GGUFFile, StringArray
from llamacpu.gguf.types import REMOVED_TYPES, TENSOR_TYPES
from raw_gguf import array, gguf_bytes, info, pair, scalar
from thorough import examples
from tiny_models import VARIANTS

RANGES = {
    raw.U8: (0, 2**8 - 1),
    raw.I8: (-(2**7), 2**7 - 1),
    raw.U16: (0, 2**16 - 1),
    raw.I16: (-(2**15), 2**15 - 1),
    raw.U32: (0, 2**32 - 1),
    raw.I32: (-(2**31), 2**31 - 1),
    raw.U64: (0, 2**64 - 1),
    raw.I64: (-(2**63), 2**63 - 1),
}


def values_of(kind: int) -> st.SearchStrategy[Any]:
    if kind == raw.STRING:
        return st.text(max_size=20)
    if kind == raw.BOOL:
        return st.booleans()
    if kind in (raw.F32, raw.F64):
        return st.floats(width=32 if kind == raw.F32 else 64, allow_nan=False)
    return st.integers(*RANGES[kind])


SCALAR_KINDS = [kind for kind in range(13) if kind != raw.ARRAY]
scalars = st.sampled_from(SCALAR_KINDS).flatmap(lambda kind: st.tuples(st.just(kind), values_of(kind)))
arrays = st.sampled_from(SCALAR_KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(values_of(kind), max_size=8))
)
keys = st.text(st.characters(codec="ascii", categories=["Ll", "Nd", "Po"]), min_size=1, max_size=30).filter(
    lambda key: key not in ("general.alignment", "split.no", "split.count")
)


def write(folder: Path, data: bytes, name: str = "file.gguf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, StringArray) else value.tolist() if isinstance(value, np.ndarray) else value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150), deadline=None)
@given(st.dictionaries(keys, scalars | arrays, max_size=12), st.sampled_from([2, 3]))
def test_metadata_is_what_was_written(tmp_path: Path, content: dict[str, tuple[int, Any]], version: int) -> None:
    pairs = [
        pair(key, array(kind, value) if isinstance(value, list) else scalar(kind, value))
        for key, (kind, value) in content.items()
    ]
    with GGUFFile(write(tmp_path, gguf_bytes(pairs, version=version))) as file:
        assert file.version == version
        assert list(file.metadata) == list(content)
        assert {key: plain(value) for key, value in file.metadata.items()} == {
            key: value for key, (_, value) in content.items()
        }
        assert all(type(plain(file.metadata[key])) is type(value) for key, (_, value) in content.items())


def test_numeric_arrays_keep_their_type(tmp_path: Path) -> None:
    pairs = [pair(str(kind), array(kind, [0, 1])) for kind in raw.LAYOUTS]
    with GGUFFile(write(tmp_path, gguf_bytes(pairs))) as file:
        for kind, layout in raw.LAYOUTS.items():
            expected = np.dtype(bool) if kind == raw.BOOL else np.dtype("<" + layout.replace("l", "i"))
            value = file.metadata[str(kind)]
            assert isinstance(value, np.ndarray)
            assert value.dtype == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_reader_of_the_gguf_package(tiny_model: Callable[..., Path], variant: str) -> None:
    path = tiny_model(variant)
    theirs = gguf.GGUFReader(path)
    with GGUFFile(path) as ours:
        assert {key: plain(value) for key, value in ours.metadata.items()} == {
            key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")
        }
        assert [tensor[:6] for tensor in ours.tensors] == [
            (
                tensor.name,
                int(tensor.tensor_type),
                tensor.tensor_type.name,
                tuple(int(size) for size in tensor.shape),
                tensor.data_offset,
                tensor.n_bytes,
            )
            for tensor in theirs.tensors
        ]


@pytest.mark.parametrize(
    "weight_type", ["F16", "BF16", "Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]
)
def test_sizes_of_quantized_tensors(tiny_model: Callable[..., Path], weight_type: str) -> None:
    path = tiny_model("gqa", weight_type)
    with GGUFFile(path) as file:
        found = {(tensor.name, tensor.type_name, tensor.offset, tensor.nbytes) for tensor in file.tensors}
    reader = gguf.GGUFReader(path)
    assert found == {(t.name, t.tensor_type.name, t.data_offset, t.n_bytes) for t in reader.tensors}


def test_type_table_agrees_with_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    # An activation type that no file holds; the package still has its size from before its sums became float16.
    theirs.pop(9)
    assert {number: tuple(TENSOR_TYPES[number]) for number in theirs} == theirs
    assert not TENSOR_TYPES.keys() & REMOVED_TYPES.keys()


@pytest.mark.parametrize("alignment", [1, 8, 32, 64, 4096])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    pairs = [pair("general.alignment", scalar(raw.U32, alignment))]
    infos = [info("a", [3], 0, 0), info("b", [2, 2], 24, -(-12 // alignment) * alignment)]
    data = gguf_bytes(pairs, infos, bytes(2 * max(alignment, 16)), alignment=alignment)
    with GGUFFile(write(tmp_path, data)) as file:
        first, second = file.tensors
        assert file.alignment == alignment
        assert first.offset % alignment == second.offset % alignment == 0
        assert (first.nbytes, second.nbytes) == (12, 4)
        assert second.offset - first.offset == -(-12 // alignment) * alignment


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    data = gguf_bytes([], [info("scalar", [], 0, 0), info("empty", [0, 5], 0, 32)], bytes(36))
    with GGUFFile(write(tmp_path, data)) as file:
        assert [(tensor.shape, tensor.nbytes) for tensor in file.tensors] == [((), 4), ((0, 5), 0)]


def test_string_arrays_are_read_on_demand(tmp_path: Path) -> None:
    words = ["", "a", "Ġthe", "你好", "x" * 300]
    odd = b"\xff\xfe"
    data = gguf_bytes([pair("words", array(raw.STRING, [*words, odd])), pair("after", scalar(raw.U8, 7))])
    with GGUFFile(write(tmp_path, data)) as file:
        found = file.metadata.strings("words")
        assert len(found) == found.count == 6
        assert found.raw(5) == odd
        assert found[5] == "\ufffd\ufffd"
        assert found[:5] == words
        assert found[-2] == words[-1]
        assert list(found)[:5] == words
        assert "你好" in found
        assert "StringArray of 6" in repr(found)
        assert struct.unpack_from("<Q", data, found.offset) == (0,)
        assert data[found.end :].startswith(raw.text("after"))
        assert file.metadata["after"] == 7
        for index in (6, -7):
            with pytest.raises(IndexError):
                found[index]
    with pytest.raises(GGUFError, match="closed"):
        found[0]
    assert file.metadata["after"] == 7
    file.close()


def test_kept_headers_do_not_need_their_file(tmp_path: Path) -> None:
    words = [f"word {index}" * (index % 9) for index in range(5000)]
    path = write(tmp_path, gguf_bytes([pair("words", array(raw.STRING, words))]))
    file = GGUFFile(path)
    assert list(file.metadata.strings("words")) == words
    file.keep()
    path.write_bytes(b"")
    found = file.metadata.strings("words")
    assert (list(found), found[17:20], found[::-2]) == (words, words[17:20], words[::-2])
    assert found.data() == b"".join(map(raw.text, words))
    file.close()
    with pytest.raises(GGUFError, match="closed"):
        found[0]


class TestGetters:
    """The getters accept every type that holds the value and name the key when it does not."""

    @pytest.fixture
    def metadata(self, tmp_path: Path) -> Any:
        pairs = [
            pair("u8", scalar(raw.U8, 7)),
            pair("i64", scalar(raw.I64, 7)),
            pair("negative", scalar(raw.I32, -1)),
            pair("large", scalar(raw.U64, 2**63)),
            pair("f32", scalar(raw.F32, 0.5)),
            pair("f64", scalar(raw.F64, 0.5)),
            pair("nan", scalar(raw.F32, math.nan)),
            pair("infinite", scalar(raw.F64, math.inf)),
            pair("yes", scalar(raw.BOOL, 1)),
            pair("zero", scalar(raw.U32, 0)),
            pair("text", scalar(raw.STRING, "abc")),
            pair("strings", array(raw.STRING, ["a", "b"])),
            pair("three", array(raw.I32, [1, 2, 3])),
            pair("wide", array(raw.U64, [1, 2, 3])),
            pair("floats", array(raw.F32, [1, 2, 3])),
            pair("flags", array(raw.BOOL, [1, 0, 1])),
        ]
        with GGUFFile(write(tmp_path, gguf_bytes(pairs))) as file:
            yield file.metadata

    def test_accepted(self, metadata: Any) -> None:
        assert metadata.integer("u8") == metadata.integer("i64") == 7
        assert metadata.integer("missing", 3) == 3
        assert metadata.number("f32") == metadata.number("f64") == 0.5
        assert metadata.number("u8") == 7.0
        assert metadata.number("missing", 1.5) == 1.5
        assert metadata.flag("yes") is True
        assert metadata.flag("zero") is False
        assert metadata.text("text") == "abc"
        assert list(metadata.strings("strings")) == ["a", "b"]
        assert metadata.integers("u8", 3) == [7, 7, 7]
        assert metadata.integers("three", 3) == metadata.integers("wide", 3) == [1, 2, 3]
        assert metadata.integers("missing", 2, [4, 5]) == [4, 5]

    @pytest.mark.parametrize(
        ("getter", "key"),
        [
            *(("integer", key) for key in ("negative", "large", "f32", "nan", "yes", "text", "three", "strings")),
            *(("number", key) for key in ("nan", "infinite", "yes", "text", "three", "strings")),
            *(("text", key) for key in ("u8", "f32", "yes", "three", "strings")),
            *(("flag", key) for key in ("u8", "f32", "text", "three", "negative")),
            *(("strings", key) for key in ("text", "three", "u8")),
        ],
    )
    def test_refused(self, metadata: Any, getter: str, key: str) -> None:
        with pytest.raises(ModelError, match=f"'{key}' is .*expected"):
            getattr(metadata, getter)(key)

    @pytest.mark.parametrize("key", ["negative", "f32", "yes", "text", "floats", "flags", "strings"])
    def test_refused_as_integers(self, metadata: Any, key: str) -> None:
        with pytest.raises(ModelError, match=f"'{key}' is .*expected"):
            metadata.integers(key, 3)

    def test_ranges(self, metadata: Any) -> None:
        with pytest.raises(ModelError, match="from 8 to 9"):
            metadata.integer("u8", minimum=8, maximum=9)
        with pytest.raises(ModelError, match=r"at least 0\.6"):
            metadata.number("f32", minimum=0.6)
        with pytest.raises(ModelError, match=r"greater than 0\.5"):
            metadata.number("f32", above=0.5)
        with pytest.raises(ModelError, match="or 4 of them"):
            metadata.integers("three", 4)
        with pytest.raises(ModelError, match="'missing' is missing"):
            metadata.integer("missing")
