"""Merging adapters into model files, and making control vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner, Result

import llamacpu
from llamacpu import Model
from llamacpu.cli.group import command_line
from llamacpu.gguf.file import GGUFFile
from llamacpu.kernels import dequantize
from lora_files import EMBEDDING, random_pairs, write_adapter
from test_golden_families import error
from tiny_models import QUANTIZABLE, VARIANTS, Type, write_model


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments])


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    with GGUFFile(path) as file:
        return {t.name: t.shape[::-1] for t in file.tensors if len(t.shape) > 1 and t.name.endswith(".weight")}


@pytest.mark.instruction_set
def test_published_adapters(golden: Path, tmp_path: Path) -> None:
    folder = golden / "families"
    if not (folder / "lora-base.gguf").is_file():
        pytest.skip(f"no lora-base.gguf in {folder}")
    reference = dict(np.load(folder / "lora.npz"))
    for name, lora in {
        "logits_all_1": [folder / "lora-all.gguf"],
        "logits_all_half": [(folder / "lora-all.gguf", 0.5)],
        "logits_embed_1": [folder / "lora-embed.gguf"],
        "logits_all_half_qv_1": [(folder / "lora-all.gguf", 0.5), (folder / "lora-qv.gguf", 1.0)],
    }.items():
        merged = llamacpu.merge(folder / "lora-base.gguf", lora, tmp_path / "merged.gguf")
        with Model(merged, threads=1) as model:
            rows = model.session(kv_type="f32").forward(reference["tokens"].tolist(), logits="all")
            assert error(rows, reference[name]) < 1e-9, name


@pytest.mark.instruction_set
@pytest.mark.parametrize("variant", ["gqa", "fused", "mixtral", "experts-fused", "experts-single", "bias"])
def test_a_merged_file_runs_like_the_adapter(tmp_path: Path, variant: str) -> None:
    """Tied, fused and stacked tensors; metadata and other tensors stay as they are."""
    path = write_model(tmp_path / "model.gguf", VARIANTS[variant], seed=3)
    random = np.random.default_rng(1)
    shapes = shapes_of(path)
    if VARIANTS[variant].tied:
        shapes["output.weight"] = shapes[EMBEDDING]
    lora = write_adapter(tmp_path / "lora.gguf", random_pairs(shapes, random, (3, 8), 0.3))
    seen: list[tuple[int, int]] = []
    merged = llamacpu.merge(path, [(lora, 0.5)], tmp_path / "merged.gguf", on_progress=lambda *row: seen.append(row))
    assert seen[-1][0] == seen[-1][1] > 0
    tokens = list(range(3, 40))
    with Model(path, threads=1) as model, Model(merged, threads=1) as other:
        before_keys, after_keys = (
            {key: np.asarray(value).tolist() for key, value in one.metadata.items()} for one in (model, other)
        )
        assert before_keys == after_keys
        expected = model.session(kv_type="f32", lora=[(lora, 0.5)]).forward(tokens, logits="all")
        got = other.session(kv_type="f32").forward(tokens, logits="all")
        assert error(got, expected) < 1e-9
        base = model.session(kv_type="f32").forward(tokens, logits="all")
        assert error(base, expected) > 1e-3
        before = {tensor.name: (tensor.shape, tensor.type_name) for tensor in model.file.tensors}
        after = {tensor.name: (tensor.shape, tensor.type_name) for tensor in other.file.tensors}
        assert before.items() <= after.items()
        assert set(after) - set(before) <= {"output.weight"}


def test_types(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", QUANTIZABLE, Type.Q8_0, seed=3)
    lora = write_adapter(tmp_path / "lora.gguf", random_pairs(shapes_of(path), np.random.default_rng(2), (4,), 0.1))
    with GGUFFile(path) as file:
        names = {tensor.name: tensor.type_name for tensor in file.tensors}
        assert names["blk.0.attn_q.weight"] == "Q8_0"
    exact = weights(llamacpu.merge(path, [lora], tmp_path / "f32.gguf", type="F32"))
    for kind, most in ((None, 1e-4), ("Q8_0", 1e-4), ("F16", 1e-6), ("BF16", 1e-4), ("Q4_0", 1e-1)):
        merged = llamacpu.merge(path, [lora], tmp_path / "merged.gguf", type=kind)
        with GGUFFile(merged) as file:
            for tensor in file.tensors:
                wanted = names.get(tensor.name, "Q8_0") if kind is None or "norm" in tensor.name else kind
                assert tensor.type_name == wanted, tensor.name
        for name, values in weights(merged).items():
            assert ((values - exact[name]) ** 2).sum() <= most * (exact[name] ** 2).sum(), (kind, name)
    for wrong in ("Q9", "", "q8_0"):
        with pytest.raises(ValueError, match="cannot be written"):
            llamacpu.merge(path, [lora], tmp_path / "wrong.gguf", type=wrong)
    assert not (tmp_path / "wrong.gguf").exists()


def weights(path: Path) -> dict[str, Any]:
    with GGUFFile(path) as file:
        found = {}
        for tensor in file.tensors:
            data = np.frombuffer(file.tensor_bytes(tensor, 0, tensor.nbytes), dtype=np.uint8)
            found[tensor.name] = dequantize(data, tensor.type_name).astype(np.float64)
        return found


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", VARIANTS["mha"], seed=3)
    pairs = random_pairs({"blk.0.attn_q.weight": (64, 64)}, np.random.default_rng(2))
    lora = write_adapter(tmp_path / "lora.gguf", pairs)
    activated = write_adapter(tmp_path / "activated.gguf", pairs, more={"adapter.alora.invocation_tokens": [1, 2]})
    other = write_adapter(tmp_path / "other.gguf", pairs, architecture="qwen2")
    out = tmp_path / "merged.gguf"
    for given, kind, message in [
        ([activated], llamacpu.ModelError, "invocation"),
        ([other], llamacpu.ModelError, "architecture"),
        ([path], llamacpu.ModelError, "general.type"),
        ([tmp_path / "missing.gguf"], llamacpu.GGUFError, "no such file"),
        ([], ValueError, "no adapter"),
        ([(lora, float("nan"))], ValueError, "scale"),
        (3, TypeError, "lora"),
    ]:
        with pytest.raises(kind, match=message):
            llamacpu.merge(path, given, out)  # type: ignore[arg-type]
    before = path.read_bytes()
    for target in (path, lora):
        with pytest.raises(FileExistsError):
            llamacpu.merge(path, [lora], target)
    assert path.read_bytes() == before
    assert not out.exists()


def test_command_line(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", VARIANTS["mha"], seed=3)
    lora = write_adapter(tmp_path / "lora.gguf", random_pairs(shapes_of(path), np.random.default_rng(2)))
    out = tmp_path / "merged.gguf"
    run = invoke("merge", path, "--lora", f"{lora}:0.5", "-o", out, "--type", "f16")
    assert (run.exit_code, run.stdout) == (0, "")
    assert weights(out).keys() == weights(path).keys()
    with GGUFFile(out) as file:
        assert file.metadata["general.file_type"] == 1
    run = invoke("merge", path, "-o", out)
    assert run.exit_code == 2
    assert "--lora" in run.stderr


@pytest.mark.parametrize("method", ["pca", "mean"])
def test_control_vectors_from_pairs(tmp_path: Path, method: Any) -> None:
    path = write_model(tmp_path / "model.gguf", VARIANTS["layers"], seed=3)
    out = tmp_path / "vector.gguf"
    pairs = [("the happy cat sat", "the sad cat sat"), ("a happy dog ran to me", "a sad dog"), ("happy", "sad")]
    with Model(path, threads=1) as model:
        llamacpu.control_vector(model, pairs, out, method=method)
        vector = model.control_vector(out)
        assert sorted(vector.directions) == [1, 2]
        rows: dict[int, list[Any]] = {1: [], 2: []}
        filler = model.tokenizer.encode(" ", add_special=False)[-1]
        for pair in pairs:
            ids = [model.tokenizer.encode(text, parse_special=True) for text in pair]
            longest = max(map(len, ids))
            ids = [one + [filler] * (longest - len(one)) for one in ids]
            states = [model.session().hidden(one, (1, 2)) for one in ids]
            for layer, difference in zip((1, 2), states[0] - states[1], strict=True):
                rows[layer] += [row.astype(np.float64) for row in difference if np.abs(row).max() > 1e-6]
        for layer, own in rows.items():
            matrix = np.stack(own)
            if method == "mean":
                expected = matrix.mean(axis=0)
            else:
                expected = np.linalg.svd(matrix)[2][0]
                expected = expected * np.sign(expected @ matrix.mean(axis=0))
            expected = expected / np.linalg.norm(expected)
            assert np.abs(vector.directions[layer] - expected).max() < 1e-4
        # Steering towards the positive prompts moves the state of a negative one to that side.
        ids = model.tokenizer.encode("a sad dog")
        plain = model.session().hidden(ids, (2,))[0, -1]
        steered = model.session(control_vectors=[(out, 5.0, (2, 2))]).hidden(ids, (2,))[0, -1]
        assert (steered - plain) @ vector.directions[2] == pytest.approx(5.0, rel=1e-3)
    reader = gguf.GGUFReader(out)
    assert reader.get_field("controlvector.model_hint").contents() == "llama"  # type: ignore[union-attr]
    assert reader.get_field("controlvector.layer_count").contents() == 2  # type: ignore[union-attr]


def test_control_vector_command(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", VARIANTS["mha"], seed=3)
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "vector.gguf"
    pairs.write_text(json.dumps({"positive": "good", "negative": "bad"}) + "\n\n" + json.dumps(["yes", "no"]) + "\n")
    run = invoke("control-vector", path, pairs, "-o", out)
    assert (run.exit_code, run.stdout) == (0, ""), run.output
    for text, message in (
        ("nonsense", "line 1: no JSON"),
        ('{"positive": "a"}', "line 1: expected"),
        ("", "no pairs"),
        ('["same", "same"]', "the same states"),
    ):
        pairs.write_text(text)
        run = invoke("control-vector", path, pairs, "-o", tmp_path / "none.gguf")
        assert run.exit_code == 2
        assert message in run.stderr
    assert not (tmp_path / "none.gguf").exists()
    run = invoke("run", path, "--raw", "-n", "4", "--control-vector", f"{out}:2:1-1", "good")
    assert run.exit_code == 0, run.output
