"""Importance matrices against the inputs of the reference model, and their files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gguf import GGUFReader
from numpy.typing import NDArray

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.errors import GGUFError
from llamacpu.tools.imatrix import ImatrixMeasurement, combined
from llamacpu.tools.imatrix_file import Entry, ImportanceMatrix, read_importance_matrix
from llamacpu.tools.imatrix_writer import write_importance_matrix
from reference_functions import Array
from reference_model import ReferenceModel
from sample_text import sample_text

pytestmark = pytest.mark.instruction_set

TEXT = sample_text(40)
CONTEXT = 32


class Observed(ReferenceModel):
    """The reference model, which adds up the squares of the inputs of its matrices."""

    def __init__(self, path: Path) -> None:
        with llamacpu.Model(path) as model:
            super().__init__(path, dict(model.config))
        self.sums: dict[str, Array] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}

    def linear(self, x: Array, name: str) -> Array:
        self._add(f"{name}.weight", np.atleast_2d(x), 0, 1)
        return super().linear(x, name)

    def expert_part(self, x: Array, name: str, expert: int) -> Array:
        self._add(f"{name}.weight", x[None], expert, len(self.matrix(f"{name}.weight")))
        return super().expert_part(x, name, expert)

    def _add(self, name: str, x: Array, matrix: int, matrices: int) -> None:
        sums = self.sums.setdefault(name, np.zeros((matrices, x.shape[1])))
        sums[matrix] += (x**2).sum(axis=0)
        self.counts.setdefault(name, np.zeros(matrices, np.int64))[matrix] += len(x)


def same(one: ImportanceMatrix, other: ImportanceMatrix) -> bool:
    return one.entries.keys() == other.entries.keys() and all(
        np.array_equal(entry.sums, other.entries[name].sums)
        and np.array_equal(entry.counts, other.entries[name].counts)
        for name, entry in one.entries.items()
    )


@pytest.mark.parametrize(
    "variant", ["mha", "gqa", "bpe", "fused", "layers", "mixtral", "experts-fused", "experts-single"]
)
def test_sums_are_those_of_the_reference_model(tiny_model: Callable[..., Path], variant: str) -> None:
    path = tiny_model(variant)
    found = llamacpu.imatrix(path, TEXT, context=CONTEXT, chunks=3, output=True, kv_type="f32")
    reference = Observed(path)
    with llamacpu.Model(path) as model:
        ids, bos = model.tokenizer.encode(TEXT), model.tokenizer.bos if model.tokenizer.add_bos else None
    for chunk in range(3):
        own = ids[chunk * CONTEXT : (chunk + 1) * CONTEXT]
        reference.logits([own[0] if bos is None else bos, *own[1:]])
    names = {"output.weight"} if reference.weight("output.weight") is not None else {"token_embd.weight"}
    assert set(reference.sums) - {"output.weight"} | names == set(found.entries)
    for name, entry in found.entries.items():
        if name == "token_embd.weight":
            assert entry.counts.tolist() == [3 * CONTEXT]
            continue
        assert entry.counts.tolist() == reference.counts[name].tolist(), name
        np.testing.assert_allclose(entry.sums, reference.sums[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert (found.chunks, found.chunk_size, found.datasets) == (3, CONTEXT, ("text",))


@pytest.mark.instruction_set(one_in=None)
def test_threads_resuming_and_the_output_change_no_bit(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    path, state = tiny_model("mixtral"), tmp_path / "state"
    expected = llamacpu.imatrix(path, TEXT, context=CONTEXT, threads=1)

    def stop(done: int, _total: int) -> None:
        if done >= 3 * CONTEXT:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llamacpu.imatrix(path, TEXT, context=CONTEXT, threads=3, resume=state, on_progress=stop)
    assert same(llamacpu.imatrix(path, TEXT, context=CONTEXT, threads=2, resume=state), expected)
    with pytest.raises(ValueError, match="another context"):
        llamacpu.imatrix(path, TEXT, context=16, resume=state)
    with pytest.raises(ValueError, match="ask for more"):
        llamacpu.imatrix(path, TEXT, context=CONTEXT, chunks=1, resume=state)
    with_output = llamacpu.imatrix(path, TEXT, context=CONTEXT, output=True)
    inner = {name: entry for name, entry in with_output.entries.items() if name in expected.entries}
    assert same(ImportanceMatrix(Path(), inner, (), 0, 0), expected)
    assert len(with_output.entries) == len(expected.entries) + 1


@pytest.mark.instruction_set(one_in=None)
def test_the_perplexity_on_the_way_is_that_of_the_text(tiny_model: Callable[..., Path]) -> None:
    with llamacpu.Model(tiny_model("gqa")) as model:
        from llamacpu.tools.chunks import chunks_of

        measurement = ImatrixMeasurement(model, chunks_of(model, TEXT, CONTEXT), output=True)
        for _ in measurement:
            pass
        expected = llamacpu.perplexity(model, TEXT, context=CONTEXT)
    assert measurement.perplexity() == pytest.approx((expected.value, expected.error))


def matrix_of(columns: int, *counts: int) -> ImportanceMatrix:
    """An importance matrix with numbers that floats hold exactly."""
    sums = np.arange(columns * len(counts), dtype=np.float32).reshape(len(counts), columns) / 4
    entries = {"blk.0.ffn_up.weight": Entry(sums, np.array(counts, np.float64))}
    return ImportanceMatrix(Path("made"), entries, ("a.txt", "b.txt"), 3, 4)


def test_files_are_those_of_llama_cpp(tmp_path: Path) -> None:
    matrix = matrix_of(3, 8, 0)
    path = tmp_path / "imatrix.gguf"
    write_importance_matrix(path, matrix)
    reader = GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["a.txt", "b.txt"]
    assert reader.fields["imatrix.chunk_count"].types == [4]
    assert [reader.fields[f"imatrix.chunk_{name}"].contents() for name in ("count", "size")] == [3, 4]
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes == {"blk.0.ffn_up.weight.in_sum2": [3, 2], "blk.0.ffn_up.weight.counts": [1, 2]}
    found = read_importance_matrix(path)
    assert same(found, matrix)
    assert (found.datasets, found.chunks, found.chunk_size) == (("a.txt", "b.txt"), 3, 4)
    means = found.importance("blk.0.ffn_up.weight", 2, 3)
    assert means is not None
    np.testing.assert_array_equal(means, np.array([[0, 0.25, 0.5], [8, 8, 8]], np.float32) / 8)


def test_the_older_form(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    write_importance_matrix(path, matrix_of(2, 8, 0), "dat")
    name = b"blk.0.ffn_up.weight"
    entry = struct.pack("<i", len(name)) + name + struct.pack("<ii4f", 2, 4, 0, 2 * 0.25 / 8, 2, 2)
    assert path.read_bytes() == struct.pack("<i", 1) + entry + struct.pack("<ii", 3, 5) + b"b.txt"
    found = read_importance_matrix(path)
    assert (found.chunks, found.datasets) == (3, ("b.txt",))
    means = found.importance(name.decode(), 2, 2)
    assert means is not None
    np.testing.assert_array_equal(means, np.array([[0, 0.25 / 8], [1, 1]], np.float32))
    path.write_bytes(path.read_bytes()[: -len(b"b.txt") - 8])
    assert read_importance_matrix(path).chunks == 0, "what follows the entries may be missing"


def test_matrices_are_added_up(tmp_path: Path) -> None:
    both = combined([matrix_of(3, 8, 0), matrix_of(3, 4, 4)])
    entry = both.entries["blk.0.ffn_up.weight"]
    assert entry.counts.tolist() == [12, 4]
    assert entry.sums.tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]
    assert (both.chunks, both.chunk_size) == (3, 4)
    assert both.datasets == ("a.txt", "b.txt", "a.txt", "b.txt")
    path = tmp_path / "old.dat"
    write_importance_matrix(path, matrix_of(3, 8, 8), "dat")
    old = combined([read_importance_matrix(path), matrix_of(3, 8, 8)]).entries["blk.0.ffn_up.weight"]
    assert old.counts.tolist() == [16, 16]
    np.testing.assert_allclose(old.sums, [[0, 0.5, 1], [1.5, 2, 2.5]])
    with pytest.raises(ValueError, match="different models"):
        combined([matrix_of(3, 8, 8), matrix_of(4, 8, 8)])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    matrix = matrix_of(3, 8, 0)
    new, old = tmp_path / "imatrix.gguf", tmp_path / "imatrix.dat"
    write_importance_matrix(new, matrix)
    write_importance_matrix(old, matrix, "dat")
    data = old.read_bytes()
    for length in range(len(data) - 5):
        old.write_bytes(data[:length])
        if length < len(data) - 13:
            with pytest.raises(ValueError, match="no importance matrix"):
                read_importance_matrix(old)
    for place in range(len(data) - 4):
        for number in (-1, 2**31 - 1, 0x7FC00000):
            old.write_bytes(data[:place] + struct.pack("<i", number) + data[place + 4 :])
            try:
                read_importance_matrix(old)
            except ValueError:
                continue
    data = new.read_bytes()
    for length in range(0, len(data) - 32, 7):  # what follows is padding
        new.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r".+"):
            read_importance_matrix(new)
    for value in (float("nan"), -1.0, float("inf")):
        new.write_bytes(data[:-32] + struct.pack("<f", value) + data[-28:])
        with pytest.raises(ValueError, match=r"negative|infinite"):
            read_importance_matrix(new)


def test_other_gguf_files_are_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny_model("gqa")
    with pytest.raises(ValueError, match=r".+") as refused:
        llamacpu.imatrix(path, TEXT, context=CONTEXT, in_files=[path])
    assert not isinstance(refused.value, GGUFError)
    other = tmp_path / "other.gguf"
    llamacpu.imatrix(tiny_model("headdim"), TEXT, other, context=CONTEXT, chunks=1)
    with pytest.raises(ValueError, match="another model"):
        llamacpu.imatrix(path, TEXT, context=CONTEXT, chunks=1, in_files=[other])


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, ["imatrix", *map(str, arguments)])


def test_the_command_writes_both_forms(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    path, text = tiny_model("mixtral"), tmp_path / "text.txt"
    text.write_text(TEXT)
    new, old, both = tmp_path / "one.gguf", tmp_path / "two.dat", tmp_path / "both.gguf"
    expected = llamacpu.imatrix(path, text, context=CONTEXT, chunks=2)
    for file in (new, old):
        result = invoke(path, text, "-o", file, "-c", CONTEXT, "--chunks", 2)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert f"{len(expected.entries)} tensors, 2 chunks" in result.stderr
    found = read_importance_matrix(new)
    for name, entry in expected.entries.items():
        np.testing.assert_array_equal(found.entries[name].sums, entry.sums)
    assert read_importance_matrix(old).chunk_size == 0
    assert found.datasets == (str(text),)
    assert invoke("--in-file", new, "--in-file", new, "-o", both).exit_code == 0
    assert read_importance_matrix(both).chunks == 4
    assert invoke(path, text, text, "-o", both, "-c", CONTEXT, "--chunks", 2).exit_code == 0
    assert same(read_importance_matrix(both), combined([found, found]))
    for arguments, status, message in (
        ((path, "-o", both), 2, "no TEXT"),
        ((path, text, "-o", tmp_path / "no" / "x.gguf"), 2, "no such folder"),
        ((path, text, "-o", path, "-c", CONTEXT, "--chunks", 1), 1, str(path)),
        ((path, text, text, "--resume", "x"), 2, "one TEXT"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == status, result.output
        assert message in result.stderr
    assert path.read_bytes()[:4] == b"GGUF"
    assert llamacpu.GGUFFile(path).tensors


def test_ctrl_c_writes_what_has_been_measured(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text, file = tiny_model("gqa"), tmp_path / "text.txt", tmp_path / "imatrix.gguf"
    text.write_text(TEXT)
    measure = ImatrixMeasurement._measure

    def interrupted(self: ImatrixMeasurement, index: int) -> None:
        if index == 2:
            raise KeyboardInterrupt
        measure(self, index)

    monkeypatch.setattr(ImatrixMeasurement, "_measure", interrupted)
    result = invoke(path, text, "-o", file, "-c", CONTEXT)
    assert result.exit_code == 130
    assert read_importance_matrix(file).chunks == 2
