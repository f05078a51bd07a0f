"""PyTorch's files are read without unpickling: what is no table of tensors is refused by name, and nothing runs."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamacpu import Checkpoint, CheckpointError
from llamacpu.checkpoints import pickles
from llamacpu.checkpoints.pytorch import MAGIC
from pickled_files import STORAGES, archive, named, pickled, saved, several, storage, table, tensor, text, whole

DRAWN = np.random.default_rng(7)


def opened(folder: Path, data: bytes, name: str = "pytorch_model.bin") -> Checkpoint:
    (folder / name).write_bytes(data)
    return Checkpoint.open(folder)


def refused(folder: Path, data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        opened(folder, data)


@pytest.mark.parametrize("kind", STORAGES)
def test_every_type_of_storage(tmp_path: Path, kind: str) -> None:
    array = DRAWN.integers(0, 2, (3, 4)).astype(kind)
    read = opened(tmp_path, saved({"first": np.zeros(3, np.int8), "a": array})).tensors["a"]
    assert read.shape == (3, 4)
    np.testing.assert_array_equal(read.read_raw(), array)
    np.testing.assert_array_equal(read.raw_rows(1, 3), array[1:3])


def views() -> dict[str, NDArray[Any]]:
    flat = np.arange(210, dtype=np.float32)
    block = flat.reshape(5, 6, 7)
    return {
        "whole": block, "transposed": block.transpose(2, 0, 1), "part": block[1:3, 2:5, 3:4],
        "steps": block[::2, ::3, ::2],
        "tail": flat[100:], "column": block[:, 3, 5], "one": flat[209:].reshape(()), "none": block[2:2],
    }  # fmt: skip


@pytest.mark.parametrize("name", views())
def test_views_are_read_with_their_strides(tmp_path: Path, name: str) -> None:
    array = views()[name]
    read = opened(tmp_path, saved({name: array})).tensors[name]
    np.testing.assert_array_equal(read.read(), array)
    for start in range(len(array) if array.ndim else 0):
        np.testing.assert_array_equal(read.rows(start, start + 1), array[start : start + 1])
        np.testing.assert_array_equal(read.rows(start, len(array)), array[start:])


def test_tables_within_a_table_and_other_values(tmp_path: Path) -> None:
    inner = table({"a": tensor(storage("Float", "0", 2), 0, (2,), (1,)), "step": whole(7)})
    outer = b"}(" + text("epoch") + whole(3) + text("state_dict") + inner + b"u"
    data = archive(pickled(outer), {"0": np.float32([1, 2]).tobytes()})
    assert {name: each.read().tolist() for name, each in opened(tmp_path, data).tensors.items()} == {"a": [1.0, 2.0]}


def test_shards_and_shared_storages(tmp_path: Path) -> None:
    shared = storage("Float", "0", 6) + b"q\x05"
    items = {"a": tensor(shared, 0, (3,), (1,)), "b": tensor(b"h\x05", 3, (3,), (1,))}
    data = archive(pickled(table(items)), {"0": np.arange(6, dtype=np.float32).tobytes()})
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(data)
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_bytes(saved({"c": np.float16([9])}))
    (tmp_path / "training_args.bin").write_bytes(b"something else")
    read = {name: each.read().tolist() for name, each in Checkpoint.open(tmp_path).tensors.items()}
    assert read == {"a": [0.0, 1.0, 2.0], "b": [3.0, 4.0, 5.0], "c": [9.0]}


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_asks_for_is_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    for value in (Evil(mark), {"a": Evil(mark)}, [{"state_dict": Evil(mark)}]):
        refused(tmp_path, archive(pickle.dumps(value, protocol), {}), "not called|not run")
    assert not mark.exists()


GLOBALS = [
    ("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"),
    ("torch._utils", "__builtins__"), ("torch", "_utils._rebuild_tensor_v2"), ("collections", "OrderedDict.__init__"),
    ("torch.storage", "_load_from_bytes"),
    ("numpy.core.multiarray", "_reconstruct"), ("collections", "Counter"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), GLOBALS)
@pytest.mark.parametrize("form", ["c", "stack"])
def test_every_other_name_is_refused_and_named(tmp_path: Path, module: str, name: str, form: str) -> None:
    asked = named(module, name) if form == "c" else text(module) + text(name) + b"\x93"
    refused(tmp_path, archive(pickled(asked + b")R"), {}), f"asks for {module}.{name}, which no table of tensors needs")


FLOATS = storage("Float", "0", 4)
WRONG = [
    (tensor(FLOATS, 0, (5,), (1,)), "reaches beyond its 4 elements"),
    (tensor(FLOATS, 1, (4,), (1,)), "reaches beyond"),
    (tensor(FLOATS, 0, (2, 2), (3, 1)), "reaches beyond"),
    (tensor(FLOATS, 0, (1 << 40,), (0,)), "reaches beyond"),
    (tensor(FLOATS, 0, (1 << 59, 1 << 59), (0, 0)), "not numbers from 0"),
    (tensor(FLOATS, 0, (1 << 61,), (0,)), "not numbers from 0"),
    (tensor(FLOATS, 0, (4,), (-1,)), "not numbers from 0"),
    (tensor(FLOATS, -1, (4,), (1,)), "not numbers from 0"),
    (tensor(FLOATS, 0, (4,), (1, 1)), "not numbers from 0"),
    (tensor(FLOATS, 0, (1,) * 17, (1,) * 17), "not numbers from 0"),
    (tensor(storage("Float", "0", 5), 0, (4,), (1,)), "its storage has 16 bytes, not those of 5 elements"),
    (tensor(storage("Double", "0", 4), 0, (4,), (1,)), "its storage has 16 bytes"),
    (tensor(storage("Float", "1", 4), 0, (4,), (1,)), "'archive/data/1' is missing"),
    (tensor(storage("Float", "../data.pkl", 4), 0, (4,), (1,)), "is missing"),
    (tensor(storage("QInt8", "0", 4), 0, (4,), (1,)), "asks for torch.QInt8Storage"),
    (tensor(whole(3), 0, (4,), (1,)), "a tensor without a storage"),
    (several(text("storage"), whole(1)) + b"Q", "an external object that is not a storage"),
    (several(text("other"), b"NNNN") + b"Q", "an external object"),
    (named("torch._utils", "_rebuild_tensor_v2") + b")R", "with 0 arguments; it was not called"),
    (named("torch", "float32") + b")R", "a call of torch.float32"),
    (whole(1) + b")R", "a call of what is not a function"),
    (named("collections", "OrderedDict") + several(b"]") + b"R", "with 1 arguments"),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_tensors_are_refused(tmp_path: Path, value: bytes, message: str) -> None:
    refused(tmp_path, archive(pickled(table({"a": value})), {"0": bytes(16)}), message)


BOMBS = [
    (b"X\xff\xff\xff\xff", "a value of 4294967295 bytes"),
    (b"\x8d" + b"\xff" * 8, "bytes, but only"),
    (b"(" * 100_000 + b"t" * 100_000 + b".", "expected a table of tensors, found tuple"),
    (b"]" + b"]a" * 1000 + b".", "found list"),
    (b")" + b"q\x00h\x00\x86" * 5000 + b"}(h\x00K\x01u.", "a key of the kind tuple"),
    (b")q\x00" + b"h\x00h\x00\x86q\x00" * 5000 + b".", "found tuple"),
    (b"]q\x00h\x00a.", "found list"),
    (b"}q\x00" + text("state_dict") + b"h\x00s.", "no tensors in it"),
    (b"N0" * 3_000_000, "instruction '0'"),
    (b"r\xff\xff\xff\xff.", "damaged"),
    (b"j\xff\xff\xff\xff.", "item 4294967295 of the memo was never stored"),
    (b"c" + b"a" * 5000 + b"\n", "a name without an end"),
    (b"c\xff\n\n.", "not UTF-8"),
    (b"N(\x85.", "below a mark"),
    (b"N(a.", "below a mark"),
    (b"t.", "damaged"),
    (b".", "damaged"),
    (b"", "damaged"),
    (b"\x80\x06N.", "pickle protocol 6"),
    (b"Nb.", "damaged"),
    (b"NNb.", "attributes for an object of the kind NoneType"),
    (b"NNa.", "not a list"),
    (b"NNNs.", "not a table"),
    (b"}(Nu.", "not a table"),
    (b"I1\n.", "instruction 'I'"),
    (b"}.", "no tensors in it"),
]


@pytest.mark.parametrize(("program", "message"), BOMBS, ids=range(len(BOMBS)))
def test_pickle_bombs_are_refused(tmp_path: Path, program: bytes, message: str) -> None:
    refused(tmp_path, archive(program, {}), message)


def test_the_number_of_instructions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 20_000)
    data = archive(b"}" * 5_000_000, {})
    tracemalloc.start()
    refused(tmp_path, data, "more than 20000 instructions")
    assert tracemalloc.get_traced_memory()[1] < (2 << 20) + 2 * len(data)
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_bombs_are_refused(tmp_path: Path, method: int) -> None:
    value = table({"a": tensor(storage("Float", "0", 1 << 18), 0, (1 << 18,), (1,))})
    refused(tmp_path, archive(pickled(value), {"0": bytes(1 << 20)}, method), "is compressed or encrypted")


def test_wrong_archives_are_refused(tmp_path: Path) -> None:
    good = saved({"a": np.arange(4, dtype=np.float32)})
    for length in range(0, len(good), 5):
        with pytest.raises(CheckpointError):
            opened(tmp_path, good[:length])
    refused(tmp_path, archive(pickled(b"}"), {}, byteorder=b"big"), "not little-endian")
    refused(tmp_path, pickle.dumps({}), "not a file of PyTorch")
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as file:
        file.writestr("word/document.xml", b"")
    with pytest.raises(CheckpointError, match="0 pickles in the archive"):
        Checkpoint.open(tmp_path)
    twice = archive(pickled(b"}"), {}, verzion=b"").replace(b"archive/verzion", b"archive/version")
    refused(tmp_path, twice, "the same name")


SMALL = saved({"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.ones(2, np.float16)})
INSIDE = pickled(table({"a": tensor(FLOATS, 0, (2, 2), (1, 2)), "b": tensor(FLOATS, 1, (3,), (1,))}))


@given(st.data())
def test_mutations_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole_file = data.draw(st.booleans())
    changed = bytearray(SMALL if whole_file else INSIDE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        new = data.draw(
            st.one_of(st.sampled_from(list(b"(t)}]aesuqrhjNXcQRbK.\x85\x86\x87\x8a\x8c\x93\x94")), st.integers(0, 255))
        )
        kind = data.draw(st.sampled_from("rid"))
        changed[place : place + (kind != "i")] = b"" if kind == "d" else bytes([new])
    path = tmp_path_factory.getbasetemp() / "mutated.bin"
    path.write_bytes(bytes(changed) if whole_file else archive(bytes(changed), {"0": bytes(16)}))
    try:
        for each in Checkpoint.open(path).tensors.values():
            assert each.read().nbytes <= 4 * len(changed)
    except CheckpointError:
        pass


def test_a_file_that_changes_later_is_noticed(tmp_path: Path) -> None:
    read = opened(tmp_path, SMALL).tensors["a"]
    os.utime(tmp_path / "pytorch_model.bin", ns=(1, 1))
    with pytest.raises(CheckpointError, match="changed or replaced"):
        read.rows(0, 1)


def old_file(
    table: bytes, keys: list[str], storages: list[tuple[int, bytes]], machine: bytes = b"\x88", version: int = 1001
) -> bytes:
    """A file as torch.save wrote it before version 1.6."""
    first = pickled(whole(0x1950A86A20F9469CFC6C)) + pickled(whole(version))
    second = pickled(b"}(" + text("little_endian") + machine + b"u") + pickled(table)
    third = pickled(b"](" + b"".join(map(text, keys)) + b"e")
    return first + second + third + b"".join(count.to_bytes(8, "little") + data for count, data in storages)


def test_files_of_old_versions(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32), np.ones(3, np.float16)
    items = {
        "b": tensor(storage("Half", "7", 3), 1, (2,), (1,)),
        "a": tensor(storage("Float", "3", 6), 0, (3, 2), (1, 3)),
    }
    stored = [(6, a.tobytes()), (3, b.tobytes())]
    good = old_file(table(items), ["3", "7"], stored)
    assert good.startswith(MAGIC)
    read = opened(tmp_path, good).tensors
    np.testing.assert_array_equal(read["a"].read(), a.reshape(2, 3).T)
    np.testing.assert_array_equal(read["b"].read(), b[1:])
    for length in range(len(MAGIC), len(good), 3):
        with pytest.raises(CheckpointError):
            opened(tmp_path, good[:length])
    for bad, message in (
        (old_file(table(items), ["3", "7"], stored, machine=b"\x89"), "little-endian"),
        (old_file(table(items), ["3", "7"], stored, version=1000), "form 1001"),
        (old_file(table(items), ["3"], stored[:1]), "the storage '7' is missing"),
        (old_file(table(items), ["3", "7", "8"], stored), "the storage '8' belongs to no tensor"),
        (old_file(table(items), ["3", "7"], [(1 << 61, b""), stored[1]]), "were asked for|storages end"),
        (old_file(table(items), ["3", "7"], [stored[0], (2, b.tobytes())]), "its storage has 4 bytes"),
        (old_file(b"}q\x00" + text("state_dict") + b"h\x00s", [], []), "no tensors in it"),
        (old_file(named("os", "system") + b")R", [], []), "asks for os.system"),
    ):
        refused(tmp_path, bad, message)


def test_files_of_pytorch_itself(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Embedding(3, 4))
    state = model.state_dict()
    state["transposed"] = torch.arange(35.0).reshape(5, 7).t()
    state["bf16"] = torch.randn(4, 6).bfloat16()[1:3, ::2]
    state["half"] = torch.nn.Parameter(torch.randn(3).half())
    state["bytes"] = torch.tensor([[0, 200], [3, 4]], dtype=torch.uint16)
    state["eight"] = torch.randn(16).to(torch.float8_e4m3fn)
    for protocol in (2, 4, 5):
        torch.save(state, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
        read = Checkpoint.open(tmp_path).tensors
        assert list(read) == list(state)
        for name, each in state.items():
            np.testing.assert_array_equal(read[name].read(), each.detach().float().numpy())
    del state["bytes"], state["eight"]
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    read = Checkpoint.open(tmp_path).tensors
    assert list(read) == list(state)
    for name, each in state.items():
        np.testing.assert_array_equal(read[name].read(), each.detach().float().numpy())
    torch.save(model, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="was not called"):
        Checkpoint.open(tmp_path)
