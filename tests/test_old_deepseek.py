"""DeepSeek files of before April 2025, whose keys and values of all heads come from one tensor, `attn_kv_b`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from config_models import tensors
from llamacpu import Model, ModelError, merge
from llamacpu.families.config import Config
from lora_files import random_pairs, write_adapter

pytestmark = pytest.mark.instruction_set

LATENT, TURNED, STILL, VALUES, HEADS = 256, 8, 32, 16, 3
CONFIG = Config(
    architecture="deepseek2", vocab_size=40, context_length=128, embedding_length=32, layers=2, feed_forward=[24] * 2,
    heads=[HEADS] * 2, kv_heads=[1] * 2, key_size=STILL + TURNED, value_size=VALUES, latent_size=LATENT,
    norm_epsilon=1e-5, rope_size=TURNED, rope_original_context=128,
)  # fmt: skip
TOKENS = np.random.default_rng(3).integers(0, 40, 30).tolist()


def write(path: Path, weights: dict[str, tuple[Any, gguf.GGMLQuantizationType]], old: bool) -> Path:
    """A file in the layout of converters before or after that month."""
    writer = gguf.GGUFWriter(path, "deepseek2")
    writer.add_token_list([f"t{index}" for index in range(40)])
    writer.add_tokenizer_model("gpt2")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(24)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(TURNED)
    writer.add_kv_lora_rank(LATENT)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS if old else 1)
    writer.add_key_length(STILL + TURNED if old else LATENT + TURNED)
    writer.add_value_length(VALUES if old else LATENT)
    if not old:
        writer.add_key_length_mla(STILL + TURNED)
        writer.add_value_length_mla(VALUES)
    for name, (data, kind) in weights.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def layouts(kind: gguf.GGMLQuantizationType) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same weights split and fused; those of keys have the type in the fused tensor alone."""
    plain = gguf.GGMLQuantizationType.F32
    random = np.random.default_rng(8)
    split: dict[str, Any] = {}
    for name, data in tensors(CONFIG, random, biases=False, tied=False).items():
        if "_k_b" not in name and "_v_b" not in name:
            split[name] = (data.astype(np.float32), plain)
    fused = dict(split)
    for layer in range(CONFIG.layers):
        rows = (random.standard_normal((HEADS * (STILL + VALUES), LATENT)) / 16).astype(np.float32)
        stored = gguf.quants.quantize(rows, kind)
        fused[f"blk.{layer}.attn_kv_b.weight"] = (stored, kind)
        heads = stored.reshape(HEADS, STILL + VALUES, -1)
        keys = gguf.quants.dequantize(heads[:, :STILL], kind).swapaxes(1, 2)
        split[f"blk.{layer}.attn_k_b.weight"] = (np.ascontiguousarray(keys), plain)
        split[f"blk.{layer}.attn_v_b.weight"] = (np.ascontiguousarray(heads[:, STILL:]), kind)
    return split, fused


def logits(path: Path) -> Any:
    with Model(path) as model:
        model.prepare()
        return model.session().forward(TOKENS, logits="all")


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q5_0"])
def test_an_old_file_gives_the_bits_of_a_new_one(name: str, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType[name]
    split, fused = layouts(kind)
    expected = logits(write(tmp_path / "new.gguf", split, old=False))
    assert np.isfinite(expected).all()
    assert logits(write(tmp_path / "old.gguf", fused, old=True)).tobytes() == expected.tobytes()


def test_an_adapter_changes_keys_and_values_of_the_fused_tensor(tmp_path: Path) -> None:
    """The absorbed form multiplies by the transposed matrix of keys, and its change has to be transposed, too."""
    path = write(tmp_path / "old.gguf", layouts(gguf.GGMLQuantizationType.F32)[1], old=True)
    shapes = {f"blk.{layer}.attn_kv_b.weight": (HEADS * (STILL + VALUES), LATENT) for layer in range(2)}
    pairs = random_pairs(shapes, np.random.default_rng(4), (5,))
    lora = write_adapter(tmp_path / "lora.gguf", pairs, architecture="deepseek2", alpha=2.5)
    exact = logits(merge(path, [lora], tmp_path / "merged.gguf"))
    with Model(path, threads=1) as model:
        got = model.session(lora=[lora]).forward(TOKENS, logits="all")
    assert ((got - exact) ** 2).sum() < 1e-5 * (exact**2).sum()
    assert ((logits(path) - exact) ** 2).sum() > 1e-2 * (exact**2).sum()


def test_parts_beside_the_fused_tensor_are_left_alone(tmp_path: Path) -> None:
    split, fused = layouts(gguf.GGMLQuantizationType.F32)
    both = logits(write(tmp_path / "both.gguf", split | fused, old=True))
    assert both.tobytes() == logits(write(tmp_path / "new.gguf", split, old=False)).tobytes()


def test_a_fused_tensor_of_another_size_is_refused(tmp_path: Path) -> None:
    _, fused = layouts(gguf.GGMLQuantizationType.F32)
    data, kind = fused["blk.1.attn_kv_b.weight"]
    fused["blk.1.attn_kv_b.weight"] = (np.ascontiguousarray(data[:-1]), kind)
    with pytest.raises(ModelError, match=r'"blk\.1\.attn_kv_b\.weight" has the shape \[256, 143\]'):
        Model(write(tmp_path / "short.gguf", fused, old=True))
