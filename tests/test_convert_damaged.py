"""Damaged checkpoints, and what a file cannot say: one clear error, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from checkpoint_files import safetensors_bytes
from converted_checkpoints import weights
from llamacpu.errors import CheckpointError
from test_convert import LLAMA, MODELS, changed, made, names

DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "there is no config.json"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
    "deep JSON": (lambda f: (f / "config.json").write_text("[" * 200_000), "nested too deeply|not valid JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object"),
    "unknown class": (lambda f: changed(f, architectures=["MambaModel"]), "'MambaModel' cannot be converted"),
    "no class": (lambda f: changed(f, architectures=None), "`architectures` does not name"),
    "layers": (lambda f: changed(f, num_hidden_layers="two"), "num_hidden_layers is 'two'"),
    "many layers": (lambda f: changed(f, num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "fewer layers": (lambda f: changed(f, num_hidden_layers=1), "layer|tensor"),
    "more layers": (lambda f: changed(f, num_hidden_layers=3), "blk.2"),
    "heads": (lambda f: changed(f, num_attention_heads=7), "expected rows for 7 heads"),
    "zero heads": (lambda f: changed(f, num_attention_heads=0), "num_attention_heads is 0"),
    "width": (lambda f: changed(f, hidden_size=128), "token_embd|shape|rows"),
    "vocabulary": (lambda f: changed(f, vocab_size=2**31), "vocab_size is 2147483648, but no tensor has a row"),
    "no number": (lambda f: changed(f, rope_parameters={"rope_theta": float("nan")}), "rope"),
    "infinite": (lambda f: changed(f, rms_norm_eps=float("inf")), "layer_norm_rms_epsilon"),
    "digits": (lambda f: changed(f, rms_norm_eps=10**400), "layer_norm_rms_epsilon would be 1000"),
    "epsilon": (lambda f: changed(f, rms_norm_eps="small"), "layer_norm_rms_epsilon"),
    "rope below 0": (lambda f: changed(f, rope_parameters={"rope_type": "llama3", "factor": -8.0}), "positive ones"),
    "rope": (lambda f: changed(f, rope_parameters={"rope_type": "llama3", "factor": "x"}), "not numbers"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), "no tensors here"),
    "truncated": (lambda f: truncate(f / "model.safetensors"), "model.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "no tokenizer"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b"\x0a\xff\xff"), "not a SentencePiece model"),
    "empty tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b""), "has no tokens"),
    "card": (lambda f: (f / "README.md").write_text("---\na: [\n---\n"), "README.md: the model card is not valid YAML"),
    "added tokens": (lambda f: (f / "added_tokens.json").write_text('{"a": "b"}'), "added_tokens.json"),
    "tensor of another": (lambda f: added(f, "model.layers.0.mamba.A_log"), "has no place in the architecture 'llama'"),
}  # fmt: skip


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def added(folder: Path, name: str) -> None:
    tensors = {n: weights(n, shape, kind) for kind, shape, all in MODELS[LLAMA]["tensors"] for n in all}
    (folder / "model.safetensors").write_bytes(safetensors_bytes({**tensors, name: np.ones(3, np.float32)}))


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_one_error_and_writes_nothing(tmp_path: Path, case: str) -> None:
    folder = made(tmp_path)
    damage, message = DAMAGE[case]
    damage(folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=message):
        llamacpu.convert(folder, tmp_path / "out" / "a.gguf")
    assert names(tmp_path / "out") == []


def test_a_share_that_is_infinite_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, "qwen35")
    for share in (float("inf"), 1e308, 1e30):
        changed(folder, rope_parameters={"partial_rotary_factor": share, "rope_theta": 1e4})
        with pytest.raises(
            CheckpointError, match=r"partial_rotary_factor of the rope parameters is|rope\.dimension_count"
        ):
            llamacpu.convert(folder, tmp_path / "a.gguf")


def test_missing_experts_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path, "mixtral")
    tensors = {n: weights(n, shape, kind) for kind, shape, all in MODELS["mixtral"]["tensors"] for n in all}
    missing = next(name for name in tensors if "experts.2.w1" in name)
    del tensors[missing]
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    with pytest.raises(CheckpointError, match="lacks experts"):
        llamacpu.convert(folder, tmp_path / "a.gguf")


def test_a_scale_that_no_key_says_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, "gemma3")
    changed(folder, query_pre_attn_scalar=200)
    with pytest.raises(CheckpointError, match="query_pre_attn_scalar is 200"):
        llamacpu.convert(folder, tmp_path / "a.gguf")
