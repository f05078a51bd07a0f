"""PEFT's adapters become files whose product B A is the change, arranged as the family arranges the matrix itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacpu import CheckpointError, GGUFFile, StoreError
from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.names import gguf_name
from llamacpu.tools.convert.registry import family_of
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert_lora import convert_lora
from llamacpu.tools.convert_lora.settings import Settings
from peft_files import ALPHA, CASES, DOWN, GATE, KV, RANK, Floats, Q, factors, write_adapter, write_base
from pickled_files import saved

OUTSIDE = {"LlamaForCausalLM": {"lm_head": (40, 32)}}


def modules(architecture: str) -> dict[str, tuple[int, int]]:
    before = "transformer.h" if architecture == "FalconForCausalLM" else "model.layers"
    inner = CASES[architecture][1]
    layers = {f"{before}.{layer}.{module}": shape for layer in range(2) for module, shape in inner.items()}
    return layers | OUTSIDE.get(architecture, {})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Floats]]:
    with GGUFFile(path) as file:
        arrays = {}
        for tensor in file.tensors:
            data = np.frombuffer(file.tensor_bytes(tensor, 0, tensor.nbytes), np.float32)
            arrays[tensor.name] = data.reshape(tensor.shape[::-1])
        values = {key: file.metadata[key] for key in file.metadata}
        return {key: list(v) if key.endswith("tags") else v for key, v in values.items()}, arrays


def changes(path: Path) -> dict[str, Floats]:
    """What an adapter adds to each matrix: alpha / rank times B A."""
    metadata, arrays = read(path)
    result = {}
    for name in arrays:
        if name.endswith(".lora_a"):
            a, b = arrays[name], arrays[name[:-1] + "b"]
            if name.startswith("token_embd"):
                a, b = b.T, a
            result[name.removesuffix(".lora_a")] = metadata["adapter.lora.alpha"] / b.shape[-1] * (b @ a)
    return result


@pytest.mark.parametrize("architecture", CASES)
def test_a_change_is_arranged_as_the_matrix_is(tmp_path: Path, architecture: str) -> None:
    base = write_base(tmp_path / "base", architecture)
    pairs = factors(modules(architecture))
    path = convert_lora(write_adapter(tmp_path / "adapter", pairs), tmp_path / "out.gguf", base=base)
    source = Source(Checkpoint(base, json.loads((base / "config.json").read_text()), {}, {}))
    family = family_of(source)(source, TokenizerFolder(source.checkpoint), 0)
    expected = {}
    for module, (a, b) in pairs.items():
        name = family.renamed(f"{module}.weight")
        assert name is not None
        layer = next((int(part) for part in name.split(".") if part.isdecimal()), -1)
        delta = np.float32(ALPHA / RANK) * (b @ a)
        for theirs, array in family.converted(name, Array(delta.shape, "F32", lambda d=delta: iter([d])), layer):
            expected[gguf_name(theirs, family.names)] = array.read()
    found = changes(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[str(name)], array, rtol=1e-5, atol=1e-5)


def test_a_matrix_that_is_stored_transposed(tmp_path: Path) -> None:
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "layer_norm_epsilon": 1e-5}
    base = write_base(tmp_path / "base", "GPT2LMHeadModel", **sizes)
    pairs = factors({"transformer.h.1.attn.c_attn": (96, 32), "transformer.h.1.mlp.c_proj": (32, 128)})
    path = convert_lora(write_adapter(tmp_path / "adapter", pairs, fan_in_fan_out=True), tmp_path / "o.gguf", base=base)
    _, arrays = read(path)
    for (a, b), name in zip(pairs.values(), ("blk.1.attn_qkv.weight", "blk.1.ffn_down.weight"), strict=True):
        np.testing.assert_array_equal(arrays[f"{name}.lora_a"], a)
        np.testing.assert_array_equal(arrays[f"{name}.lora_b"], b)


def test_embeddings_are_looked_up(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    a, b = factors({"": (32, 40)})[""]
    name = "base_model.model.model.embed_tokens"
    more = {
        f"{name}.lora_embedding_A": a,
        f"{name}.lora_embedding_B": b,
        f"{name}.base_layer.weight": np.ones(3, np.float32),
    }
    path = convert_lora(write_adapter(tmp_path / "adapter", {}, more), tmp_path / "o.gguf", base=base)
    _, arrays = read(path)
    assert arrays["token_embd.weight.lora_a"].shape == (40, RANK)
    np.testing.assert_allclose(changes(path)["token_embd.weight"], ALPHA / RANK * (b @ a).T, rtol=1e-5, atol=1e-5)
    pairs = factors({"model.embed_tokens": (40, 32)})
    path = convert_lora(write_adapter(tmp_path / "linear", pairs), tmp_path / "o.gguf", base=base)
    expected = ALPHA / RANK * pairs["model.embed_tokens"][1] @ pairs["model.embed_tokens"][0]
    np.testing.assert_allclose(changes(path)["token_embd.weight"], expected, rtol=1e-5, atol=1e-5)
    tied = write_base(tmp_path / "tied", tie_word_embeddings=True)
    head = write_adapter(tmp_path / "head", factors({"lm_head": (40, 32)}))
    with pytest.raises(CheckpointError, match="is the matrix of the embeddings"):
        convert_lora(head, tmp_path / "o.gguf", base=tied)


@pytest.mark.parametrize("by_root", [False, True])
def test_scales_of_single_modules_are_kept(tmp_path: Path, by_root: bool) -> None:
    names = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(2) for part in "vo"]
    shapes = {name: KV if "v_proj" in name else Q for name in names}
    ranks, alphas = {names[0]: 7, names[1]: 2, names[3]: 2}, {names[2]: 3, names[3]: 9.5}
    patterns = {
        "rank_pattern": {names[0]: 7, "o_proj": 2},
        "alpha_pattern": {f"^{names[2]}".replace(".", "\\."): 3, "layers.1.self_attn.o_proj": 9.5},
        "use_rslora": by_root,
    }
    pairs = factors(shapes, ranks)
    base = write_base(tmp_path / "base")
    found = changes(
        convert_lora(write_adapter(tmp_path / "adapter", pairs, **patterns), tmp_path / "o.gguf", base=base)
    )
    for name, (a, b) in pairs.items():
        rank = ranks.get(name, RANK)
        scale = alphas.get(name, ALPHA) / (math.sqrt(rank) if by_root else rank)
        gguf = f"blk.{name.split('.')[2]}.{'attn_v' if 'v_proj' in name else 'attn_output'}.weight"
        np.testing.assert_allclose(found[gguf], scale * (b @ a), rtol=1e-5, atol=1e-5)


def test_experts_are_stacked(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "MixtralForCausalLM", num_local_experts=3, num_experts_per_tok=2)
    before = "model.layers.1.block_sparse_moe.experts"
    pairs = factors({f"{before}.{e}.{part}": DOWN if part == "w2" else GATE for e in range(3) for part in ("w2", "w3")})
    path = convert_lora(write_adapter(tmp_path / "adapter", pairs), tmp_path / "o.gguf", base=base)
    found = changes(path)
    assert list(found) == ["blk.1.ffn_down_exps.weight", "blk.1.ffn_up_exps.weight"]
    for part, name in (("w2", "ffn_down"), ("w3", "ffn_up")):
        expected = np.stack(
            [ALPHA / RANK * np.matmul(*pairs[f"{before}.{expert}.{part}"][::-1]) for expert in range(3)]
        )
        np.testing.assert_allclose(found[f"blk.1.{name}_exps.weight"], expected, rtol=1e-5, atol=1e-5)
    del pairs[f"{before}.1.w2"]
    with pytest.raises(CheckpointError, match="w2 is adapted in 2 of 3 experts"):
        convert_lora(write_adapter(tmp_path / "adapter", pairs), tmp_path / "o.gguf", base=base)


def test_metadata_and_names(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "Poems-7B-LoRA", factors({"lm_head": (40, 32)}), alora_invocation_tokens=[7, 8])
    path = convert_lora(adapter, tmp_path, base=base, type="f16")
    assert path.name == "Poems-7B-F16-LoRA.gguf"
    with GGUFFile(path) as file:
        assert file.metadata["general.type"] == "adapter"
        assert file.metadata["adapter.type"] == "lora"
        assert list(file.metadata["adapter.alora.invocation_tokens"]) == [7, 8]
        assert {tensor.type_name for tensor in file.tensors} == {"F16"}
    with GGUFFile(convert_lora(adapter, tmp_path / "q.gguf", base=base, type="q8_0", name="Odes")) as file:
        assert file.metadata["general.name"] == "Odes"
        # Rows that are no whole blocks stay in F16.
        assert {tensor.name: tensor.type_name for tensor in file.tensors} == {
            "output.weight.lora_a": "Q8_0", "output.weight.lora_b": "F16"
        }  # fmt: skip


def test_adapters_that_pytorch_saved(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    pairs = factors({"lm_head": (40, 32)})
    adapter = write_adapter(tmp_path / "adapter", pairs)
    first = convert_lora(adapter, tmp_path / "1.gguf", base=base).read_bytes()
    (adapter / "adapter_model.safetensors").unlink()
    a, b = pairs["lm_head"]
    tensors = {"base_model.model.lm_head.lora_A.weight": a, "base_model.model.lm_head.lora_B.weight": b}
    (adapter / "adapter_model.bin").write_bytes(saved(tensors))
    assert convert_lora(adapter, tmp_path / "2.gguf", base=base).read_bytes() == first


def test_a_gguf_file_as_the_base(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    base = tiny_model("gqa")
    with GGUFFile(base) as file:
        name = file.metadata["general.architecture"]
        heads, kv_heads = (file.metadata[f"{name}.attention.head_count{key}"] for key in ("", "_kv"))
        shapes = {tensor.name: tensor.shape[::-1] for tensor in file.tensors}
        vocabulary = shapes["token_embd.weight"][0]
    q, k = shapes["blk.0.attn_q.weight"], shapes["blk.0.attn_k.weight"]
    pairs = factors({"model.layers.0.self_attn.q_proj": q, "model.layers.0.self_attn.k_proj": k})
    adapter = write_adapter(tmp_path / "adapter", pairs)
    sizes = {
        "hidden_size": q[1],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": q[0] // heads,
    }
    folder = write_base(tmp_path / "base", **sizes, vocab_size=vocabulary)
    by_folder = convert_lora(adapter, tmp_path / "1.gguf", base=folder).read_bytes()
    assert convert_lora(adapter, tmp_path / "2.gguf", base=base).read_bytes() == by_folder
    for module, shape in (("self_attn.q_proj", (q[0], q[1] + 2)), ("mlp.down_proj", (3, 4)), ("self_attn.q_norm", q)):
        wrong = write_adapter(tmp_path / "wrong", factors({f"model.layers.0.{module}": shape}))
        with pytest.raises(CheckpointError, match="is it the right one"):
            convert_lora(wrong, tmp_path / "3.gguf", base=base)
    with pytest.raises(FileExistsError):
        convert_lora(adapter, base, base=base)
    assert not (tmp_path / "3.gguf").exists()


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'; expected 'LORA'"),
    ({"use_dora": True}, "this is DoRA"),
    ({"bias": "lora_only"}, "trained biases"),
    ({"lora_bias": True}, "has a bias beside B"),
    ({"layer_replication": [[0, 1]]}, "repeats layers"),
    ({"trainable_token_indices": [1]}, "replaces rows of the embeddings"),
    ({"target_parameters": ["experts.gate_up_proj"]}, "changes parameters"),
    ({"init_lora_weights": "pissa_niter_4"}, "the training began with 'pissa_niter_4'"),
    ({"lora_alpha": 0}, "lora_alpha is 0; expected a positive number"),
    ({"lora_alpha": "16"}, "lora_alpha is '16'"),
    ({"r": -1}, "r is -1"),
    ({"r": 5}, "the rank is 4, but adapter_config.json says 5"),
    ({"rank_pattern": {"(a|b)*c": 4}}, "the pattern '(a|b)*c' in rank_pattern"),
    ({"alpha_pattern": [1]}, "alpha_pattern is not a table"),
    ({"alora_invocation_tokens": [-1]}, "alora_invocation_tokens is [-1]"),
    ({"invocation_string": "<think>"}, "switched on by a text"),
]


@pytest.mark.parametrize(("config", "message"), CONFIGS, ids=range(len(CONFIGS)))
def test_what_gguf_cannot_express_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", factors({"lm_head": (40, 32)}), **config)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        convert_lora(adapter, tmp_path / "o.gguf", base=write_base(tmp_path / "base"))
    assert not (tmp_path / "o.gguf").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base_model.model.lm_head.weight", "is a whole tensor of the model (modules_to_save"),
        ("base_model.model.model.norm.weight", "is a whole tensor"),
        ("base_model.model.lm_head.lora_magnitude_vector", "belongs to DoRA"),
        ("base_model.model.lm_head.lora_B.bias", "is a whole tensor"),
        ("base_model.model.model.norm.lora_A.weight", "has a matrix A without the other"),
        ("base_model.model.lm_head.lora_A.default.weight", "has two matrices A"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, name: str, message: str) -> None:
    more = {name: np.ones((4, 4), np.float32)}
    adapter = write_adapter(tmp_path / "adapter", factors({"lm_head": (40, 32)}), more)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        convert_lora(adapter, tmp_path / "o.gguf", base=write_base(tmp_path / "base"))


def test_wrong_modules_and_folders_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    for module, shape, message in (
        ("model.layers.0.self_attn.other", Q, "has no place in the architecture 'llama'"),
        ("model.vision_tower.0.q_proj", Q, "which the GGUF file of the model does not have"),
        ("model.layers.0.self_attn.q_proj", (30, 32), "expected rows for 4 heads"),
    ):
        adapter = write_adapter(tmp_path / "adapter", factors({module: shape}))
        with pytest.raises(CheckpointError, match=message):
            convert_lora(adapter, tmp_path / "o.gguf", base=base)
    with pytest.raises(CheckpointError, match="no LoRA matrices"):
        convert_lora(write_adapter(tmp_path / "adapter", {}), tmp_path / "o.gguf", base=base)
    adapter = write_adapter(tmp_path / "adapter", factors({"lm_head": (40, 32)}), base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="names no base model"):
        convert_lora(adapter, tmp_path / "o.gguf")
    for wrong, error in (
        (tmp_path / "nothing", CheckpointError),
        ("nothing", CheckpointError),
        ("owner/base", StoreError),
    ):
        with pytest.raises(error):
            convert_lora(adapter, tmp_path / "o.gguf", base=wrong)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the tensors of the adapter are missing"):
        convert_lora(tmp_path / "adapter", tmp_path / "o.gguf", base=base)
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        convert_lora(base, tmp_path / "o.gguf", base=base)
    with pytest.raises(ValueError, match="type is 'q4_k'"):
        convert_lora(base, tmp_path / "o.gguf", base=base, type="q4_k")


@pytest.mark.parametrize(("name", "alpha"), [("all", 16), ("qv", 8), ("embed", 4)])
def test_files_of_llama_cpp_come_out_again(tmp_path: Path, golden: Path, name: str, alpha: int) -> None:
    """From a golden adapter back to PEFT's folder, and forth to the same bytes."""
    original = golden / "families" / f"lora-{name}.gguf"
    metadata, arrays = read(original)
    theirs = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "output": "lm_head",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    tensors = {}
    for key, array in arrays.items():
        stem, _, part = key.rpartition(".")
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", stem)
        module = f"model.layers.{block[1]}.{theirs[block[2]]}" if block else theirs.get(stem.split(".")[0], "")
        kind = part[-1].upper()
        if block and block[2] in ("attn_q", "attn_k") and kind == "B":
            heads = 4 if block[2] == "attn_q" else 2
            array = array.reshape(heads, -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if module:
            tensors[f"base_model.model.{module}.lora_{kind}.weight"] = array
        else:
            tensors[f"base_model.model.model.embed_tokens.lora_embedding_{kind}"] = array.T if kind == "A" else array
    more = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
    folder = write_adapter(tmp_path / name, {}, more, lora_alpha=alpha, r=8 if name == "all" else 4)
    card = {"base_model": metadata["general.base_model.0.repo_url"].removeprefix("https://huggingface.co/")}
    *tags, pipeline = metadata["general.tags"]
    lines = [f"base_model: {card['base_model']}", "tags:", *(f"- {tag}" for tag in tags), f"pipeline_tag: {pipeline}"]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", ""]))
    base = write_base(tmp_path / "base", hidden_size=64, intermediate_size=128, vocab_size=320, head_dim=16)
    assert convert_lora(folder, tmp_path / "o.gguf", base=base).read_bytes() == original.read_bytes()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        "peft_type", "r", "lora_alpha", "bias", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "lora_bias",
        "init_lora_weights", "layer_replication", "alora_invocation_tokens", "invocation_string", "target_parameters",
    ]
)  # fmt: skip


@given(st.dictionaries(KEYS, ANYTHING, max_size=3))
def test_any_configuration_gives_a_scale_or_is_refused(config: dict[str, Any]) -> None:
    try:
        settings = Settings({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA} | config)
        factor = settings.factor("model.layers.0.self_attn.q_proj", RANK)
    except CheckpointError:
        return
    assert 0 < settings.alpha < math.inf
    assert 0 < factor < math.inf
