"""Quantization of files: which tensor gets which type, what is written, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu import kernels
from llamacpu.cli.quantize import command
from llamacpu.errors import GGUFError, ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.writer import NewTensor, Typed, typed_metadata, write_gguf
from llamacpu.tools.imatrix_file import read_importance_matrix
from llamacpu.tools.quantize.presets import PRESETS, preset_named
from quantizable_files import (
    SHAPES,
    Shape,
    importance_of,
    metadata_of,
    tensors_of,
    write_importance,
    write_shape,
)

TYPES: dict[str, list[list[str]]] = json.loads(Path(__file__).with_name("quantized_types.json").read_text())
"""Digests of the types that llama-quantize chooses for SHAPES, without and with an importance matrix."""
SMALL = Shape(layers=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("quantizable")
    found = []
    for number, shape in enumerate(SHAPES):
        model, matrix = folder / f"{number}.gguf", folder / f"{number}.imatrix"
        write_shape(model, shape)
        write_importance(matrix, importance_of(shape))
        found.append((model, matrix))
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    write_shape(path, SMALL)
    return path


def weights(path: Path, name: str) -> Any:
    with GGUFFile(path) as file:
        tensor = next(tensor for tensor in file.tensors if tensor.name == name)
        return tensor.type_name, file.tensor_bytes(tensor, 0, tensor.nbytes)


@pytest.mark.parametrize("preset", TYPES)
def test_types_are_those_of_llama_quantize(files: list[tuple[Path, Path]], preset: str) -> None:
    for with_importance, expected in enumerate(TYPES[preset]):
        for (model, matrix), digest in zip(files, expected, strict=False):
            imatrix = matrix if with_importance else None
            done = llamacpu.quantize(model, None, preset, imatrix=imatrix, dry_run=True)
            lines = "\n".join(f"{change.name} {change.after}" for change in done.changes)
            # Empty where llama-quantize has no type for the rows.
            assert digest in ("", hashlib.sha256(lines.encode()).hexdigest()[:12]), (model.name, imatrix)


def test_every_preset_is_compared() -> None:
    assert set(TYPES) == set(PRESETS) - {"NVFP4"}  # llama-quantize does not write it


@pytest.mark.parametrize("preset", ["Q4_K_M", "Q2_K", "IQ4_XS", "Q8_0", "F16", "COPY"])
def test_a_file_holds_what_the_kernels_write(small: Path, tmp_path: Path, preset: str) -> None:
    target = tmp_path / "new.gguf"
    done = llamacpu.quantize(small, target, preset, threads=3)
    with GGUFFile(small) as before, GGUFFile(target) as after:
        old = {tensor.name: tensor for tensor in before.tensors}
        assert [change.name for change in done.changes] == [tensor.name for tensor in after.tensors]
        assert done.nbytes == sum(tensor.nbytes for tensor in after.tensors)
        for change, tensor in zip(done.changes, after.tensors, strict=True):
            assert (tensor.type_name, tensor.nbytes, tensor.shape[::-1]) == (change.after, change.nbytes, change.shape)
            source = old[tensor.name]
            values = np.frombuffer(before.tensor_bytes(source, 0, source.nbytes), "<f4").reshape(change.shape)
            expected = kernels.quantize(values, change.after).tobytes()
            assert after.tensor_bytes(tensor, 0, tensor.nbytes) == expected, tensor.name


def test_importance_is_used_matrix_by_matrix(tmp_path: Path) -> None:
    shape = Shape(layers=1, experts=3, width=256, feed_forward=256)
    model, matrix, target = tmp_path / "m.gguf", tmp_path / "m.imatrix", tmp_path / "new.gguf"
    importance = importance_of(shape)
    write_shape(model, shape)
    write_importance(matrix, importance)
    done = llamacpu.quantize(model, target, "IQ2_XS", imatrix=matrix)
    read = read_importance_matrix(matrix).entries
    for change in done.changes:
        if change.with_importance:
            rows = np.frombuffer(weights(model, change.name)[1], "<f4").reshape(change.shape)
            stacked = rows.reshape(len(importance[change.name]), -1, change.shape[-1])
            blocks = [
                kernels.quantize(part, change.after, row)
                for part, row in zip(stacked, read[change.name].importance, strict=True)
            ]
            assert weights(target, change.name) == (change.after, b"".join(block.tobytes() for block in blocks))
    assert sum(change.with_importance for change in done.changes) == 7
    with GGUFFile(target) as file:
        found = {key: value for key, value in file.metadata.items() if key.startswith("quantize.")}
    assert found == {
        "quantize.imatrix.file": str(matrix)[:127],
        "quantize.imatrix.dataset": "a text.txt",
        "quantize.imatrix.entries_count": len(importance),
        "quantize.imatrix.chunks_count": 7,
    }


def test_metadata_keeps_its_types_and_gains_the_file_type(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.gguf"
    llamacpu.quantize(small, target, "Q5_K_S", overrides={"general.name": "another", "llama.context_length": 64})
    with GGUFFile(small) as before, GGUFFile(target) as after:
        old, new = typed_metadata(before.metadata), typed_metadata(after.metadata)
    changed = {"general.name", "llama.context_length", "general.file_type", "general.quantization_version"}
    assert {key: value for key, value in new.items() if key not in changed} == {
        key: value for key, value in old.items() if key not in changed
    }
    assert new["general.file_type"] == (16, "uint32")
    assert new["general.quantization_version"] == (2, "uint32")
    assert new["general.name"].value == "another"


def after(source: Path, preset: str = "Q4_K_M", **options: Any) -> dict[str, str]:
    done = llamacpu.quantize(source, None, preset, dry_run=True, **options)
    return {change.name: change.after for change in done.changes}


def test_types_can_be_chosen_by_pattern(small: Path) -> None:
    plain = after(small)
    chosen = after(small, tensor_types=[(r"blk\.1\.ffn_(up|gate)", "q8_0"), ("FFN_UP", "Q3_K"), ("norm", "Q4_0")])
    different = {name: kind for name, kind in chosen.items() if kind != plain[name]}
    assert different == {
        "blk.1.ffn_up.weight": "Q8_0", "blk.1.ffn_gate.weight": "Q8_0", "blk.0.ffn_up.weight": "Q3_K",
    }  # fmt: skip
    assert after(small, output_type="q4_0")["output.weight"] == "Q4_0"
    assert after(small, leave_output=True)["output.weight"] == "F32"
    assert after(small, embedding_type="F16")["token_embd.weight"] == "F16"
    assert set(after(small, pure=True).values()) == {"F32", "Q4_K"}
    tied = after(small, "IQ1_S", pure=True)
    assert tied["output.weight"] == "IQ1_S"


def test_what_is_quantized_already_is_refused_unless_allowed(small: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "q8.gguf", tmp_path / "q4.gguf"
    llamacpu.quantize(small, first, "Q8_0")
    with pytest.raises(ModelError, match=r"quantized already \(Q8_0\).*--allow-requantize"):
        llamacpu.quantize(first, second, "Q4_0")
    assert not second.exists()
    llamacpu.quantize(first, second, "Q4_0", allow_requantize=True)
    assert weights(second, "blk.0.ffn_up.weight")[0] == "Q4_0"
    # Nothing is converted, so nothing is lost.
    assert set(after(first, "COPY").values()) == {"F32", "Q8_0"}


@pytest.mark.parametrize("preset", ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "Q2_K_S"])
def test_coarse_types_need_an_importance_matrix(small: Path, tmp_path: Path, preset: str) -> None:
    with pytest.raises(ModelError, match="needs an importance matrix"):
        llamacpu.quantize(small, tmp_path / "new.gguf", preset)
    partial = importance_of(SMALL)
    del partial["blk.0.ffn_gate.weight"]
    write_importance(tmp_path / "partial", partial)
    with pytest.raises(ModelError, match=r"no entry for 'blk\.0\.ffn_gate\.weight'"):
        llamacpu.quantize(small, tmp_path / "new.gguf", preset, imatrix=tmp_path / "partial")
    assert list(tmp_path.glob("*.gguf")) == []


def test_an_importance_matrix_of_another_model_is_refused(small: Path, tmp_path: Path) -> None:
    write_importance(tmp_path / "other", importance_of(Shape(layers=2, width=512)))
    with pytest.raises(ModelError, match="made with this model"):
        llamacpu.quantize(small, tmp_path / "new.gguf", "Q4_K_M", imatrix=tmp_path / "other")
    for bad in (np.inf, np.nan, -1.0):
        wrong = importance_of(SMALL)
        wrong["blk.1.attn_q.weight"][0, 3] = bad
        write_importance(tmp_path / "wrong", wrong)
        with pytest.raises(ModelError, match=r"blk\.1\.attn_q\.weight"):
            llamacpu.quantize(small, tmp_path / "new.gguf", "Q4_K_M", imatrix=tmp_path / "wrong")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named_and_nothing_is_left(tmp_path: Path, bad: float) -> None:
    values = np.zeros(tensors_of(SMALL)["blk.1.ffn_up.weight"], np.float32)
    values[300, 7] = bad
    write_shape(tmp_path / "bad.gguf", SMALL, {"blk.1.ffn_up.weight": values})
    with pytest.raises(ModelError, match=r"'blk\.1\.ffn_up\.weight': .*row 300, column 7"):
        llamacpu.quantize(tmp_path / "bad.gguf", tmp_path / "new.gguf", "Q4_K_M")
    assert os.listdir(tmp_path) == ["bad.gguf"]  # noqa: PTH208


def test_a_source_that_becomes_shorter_in_the_middle_is_refused(small: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "new.gguf"
    source.write_bytes(small.read_bytes())
    with GGUFFile(source) as file:
        header = file.header_length
    with pytest.raises(GGUFError, match="shorter"):
        llamacpu.quantize(source, target, "Q4_K_M", on_progress=lambda done, total: os.truncate(source, header))
    assert not target.exists()


def test_the_source_is_never_replaced(small: Path, tmp_path: Path) -> None:
    before = small.read_bytes()
    (tmp_path / "link.gguf").symlink_to(small)
    for target in (small, tmp_path / "link.gguf"):
        with pytest.raises(FileExistsError):
            llamacpu.quantize(small, target, "Q4_0")
    assert small.read_bytes() == before


def test_a_split_model_is_joined_or_stays_split(tmp_path: Path) -> None:
    names = list(tensors_of(SMALL).items())
    for number, part in enumerate((names[:9], names[9:])):
        split: dict[str, object] = {
            "split.no": Typed(number, "uint16"),
            "split.count": Typed(2, "uint16"),
            "split.tensors.count": Typed(len(names), "int32"),
        }
        ones = [NewTensor(name, size, "F32", lambda size=size: [np.ones(size, "<f4")]) for name, size in part]  # type: ignore[misc]
        metadata = split if number else metadata_of(SMALL) | split
        write_gguf(tmp_path / f"model-0000{number + 1}-of-00002.gguf", metadata, ones)
    source = tmp_path / "model-00001-of-00002.gguf"
    joined = llamacpu.quantize(source, tmp_path / "joined.gguf", "Q4_K_M")
    parts = llamacpu.quantize(source, tmp_path / "parts.gguf", "Q4_K_M", keep_split=True)
    assert [path.name for path in parts.paths] == ["parts-00001-of-00002.gguf", "parts-00002-of-00002.gguf"]
    with GGUFFile(joined.paths[0]) as one, GGUFFile(parts.paths[0]) as two:
        assert not [key for key in one.metadata if key.startswith("split.")]
        assert len(two.paths) == 2
        kinds = [{tensor.name: tensor.type_name for tensor in file.tensors} for file in (one, two)]
    assert kinds[0] == kinds[1]
    with pytest.raises(FileExistsError):
        llamacpu.quantize(source, tmp_path / "model.gguf", "Q4_K_M", keep_split=True)


def test_wrong_arguments(small: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'MXFP4_MOE'"):
        llamacpu.quantize(small, None, "MXFP4_MO", dry_run=True)
    with pytest.raises(ValueError, match="target is None"):
        llamacpu.quantize(small, None, "Q4_K_M")
    with pytest.raises(ValueError, match="no regular expression"):
        llamacpu.quantize(small, None, dry_run=True, tensor_types={"(": "Q4_0"})
    with pytest.raises(ValueError, match="'Q8_K' cannot be written"):
        llamacpu.quantize(small, None, dry_run=True, tensor_types={"ffn": "Q8_K"})
    with pytest.raises(ValueError, match="expected one of them"):
        llamacpu.quantize(small, None, dry_run=True, include_weights=["a"], exclude_weights=["b"])


def test_names_of_presets() -> None:
    assert [preset_named(name).name for name in ("q4_k", "Q5_K", " q3_k ", "15", "FP16")] == [
        "Q4_K_M", "Q5_K_M", "Q3_K_M", "Q4_K_M", "F16",
    ]  # fmt: skip


def binary_matrix(importance: dict[str, Any], calls: int, trailer: bytes) -> bytes:
    data = struct.pack("<i", len(importance))
    for name, values in importance.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, values.size)
        data += (values * calls).astype("<f4").tobytes()
    return data + trailer


def test_both_forms_of_importance_matrices_say_the_same(tmp_path: Path) -> None:
    importance = importance_of(Shape(layers=1, experts=4))
    write_importance(tmp_path / "new", importance, count=64.0)
    trailer = struct.pack("<ii", 7, 10) + b"a text.txt"
    (tmp_path / "old.dat").write_bytes(binary_matrix(importance, 16, trailer))
    first, second = read_importance_matrix(tmp_path / "new"), read_importance_matrix(tmp_path / "old.dat")
    for name, values in importance.items():
        for found in (first, second):
            got = found.importance(name, *values.shape)
            assert got is not None
            np.testing.assert_array_equal(got, values)
    assert (first.datasets, first.chunks, first.chunk_size) == (("a text.txt",), 7, 512)
    assert (second.datasets, second.chunks, second.chunk_size) == (("a text.txt",), 7, 0)


def test_damaged_importance_matrices_are_refused(tmp_path: Path) -> None:
    whole = binary_matrix(importance_of(Shape(layers=1)), 16, b"")
    path = tmp_path / "matrix.dat"
    for data in (
        b"",
        b"\0",
        whole[:7],
        whole[:200],
        whole[:-5],
        struct.pack("<i", 2**31 - 1) + whole[4:],
        b"text" * 99,
    ):
        path.write_bytes(data)
        with pytest.raises(ModelError):
            read_importance_matrix(path)
    write_shape(tmp_path / "model.gguf", SMALL)
    with pytest.raises(ModelError, match="no importance matrix"):
        read_importance_matrix(tmp_path / "model.gguf")


def test_the_command(small: Path, tmp_path: Path) -> None:
    run = CliRunner()
    shown = run.invoke(command, [str(small), "--dry-run", "--tensors", "Q6_K"])
    assert shown.exit_code == 0, shown.output
    assert "blk.0.attn_q.weight" in shown.output
    assert "bits per weight" in shown.output
    target = tmp_path / "new.gguf"
    facts = run.invoke(command, [str(small), str(target), "q4_0", "--tensor-type", "attn_v=Q8_0", "--json"])
    assert facts.exit_code == 0, facts.output
    found = json.loads(facts.output)
    assert found["paths"] == [str(target)]
    assert {row["to"] for row in found["tensors"] if "attn_v" in row["name"]} == {"Q8_0"}
    assert run.invoke(command, [str(small), str(target), "--tensor-type", "attn_v"]).exit_code == 2
