"""Losses and gradients of adapters beside PyTorch's autograd and PEFT, on models of transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from llamacpu import _native
from llamacpu.families.config import Config
from test_training_gradients import BASE, split

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

LAYERS, RANK, ALPHA, VOCABULARY = 2, 4, 8, 64
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "attn_implementation": "eager",
}  # fmt: skip
OURS = {"vocab_size": VOCABULARY, "embedding_length": 32, "feed_forward": [48] * LAYERS, "key_size": 8, "value_size": 8}
PARTS = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip
# Names of transformers' class and its further settings; our switches.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("Llama", {}, {}),
    "qwen2": ("Qwen2", {}, {}),
    "qwen3": ("Qwen3", {}, {"query_key_norm": ["head"] * LAYERS}),
    "gemma2": (
        "Gemma2",
        {
            "sliding_window": 6, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0,
            "query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh", "pad_token_id": 0,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        {
            "norms": "both", "activation": "gelu_tanh", "window": [6, 0], "attention_soft_cap": 3.0,
            "logit_soft_cap": 4.0, "embedding_scale": 32**0.5, "attention_scale": 0.25,
        },
    ),
}  # fmt: skip


def names_of(config: Config, gemma: bool) -> dict[str, str]:
    """The names of transformers by ours."""
    found = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
    for layer in range(config.layers):
        there, here = f"model.layers.{layer}", f"blk.{layer}"
        for name, ours in PARTS.items():
            block = "self_attn" if ours.startswith("attn") else "mlp"
            found[f"{here}.{ours}"] = f"{there}.{block}.{name}"
        for part in "qk":
            found[f"{here}.attn_{part}_norm"] = f"{there}.self_attn.{part}_norm"
        found[f"{here}.attn_norm"] = f"{there}.input_layernorm"
        found[f"{here}.ffn_norm"] = f"{there}.{'pre_feedforward' if gemma else 'post_attention'}_layernorm"
        if gemma:
            found[f"{here}.post_attention_norm"] = f"{there}.post_attention_layernorm"
            found[f"{here}.post_ffw_norm"] = f"{there}.post_feedforward_layernorm"
    return found


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_autograd(tmp_path: Path, name: str) -> None:
    kind, more, switches = MODELS[name]
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**SIZES, **more))
    for key, value in theirs.named_parameters():
        if key.endswith("bias") or "norm" in key:
            value.data += 0.2 * torch.randn_like(value)
        elif "embed" not in key:
            value.data = torch.randn_like(value) * value.shape[-1] ** -0.5
    config = replace(BASE, **OURS, rope_style="neox", rope_size=8, **switches)
    state = {key: value.detach().numpy().copy() for key, value in theirs.state_dict().items()}
    values = {}
    for ours, name_there in names_of(config, name == "gemma2").items():
        for end in ("weight", "bias"):
            if f"{name_there}.{end}" in state:
                # Gemma's own code adds 1 to the weights of norms.
                shift = 1.0 if name == "gemma2" and "norm" in name_there else 0.0
                values[f"{ours}.{end}"] = state[f"{name_there}.{end}"] + np.float32(shift)
    if name == "gemma2":
        scale = np.float32(32**0.5)
        assert np.float32(config.embedding_scale) == scale

    matrices = [*PARTS, "embed_tokens", "lm_head"]
    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=matrices, lora_dropout=0.0)
    adapted = peft.get_peft_model(theirs, settings)
    lora = {key: value for key, value in adapted.named_parameters() if value.requires_grad}
    for value in lora.values():
        value.data = torch.randn_like(value) * 0.2
    ids = torch.randint(0, VOCABULARY, (1, 21))
    loss = adapted(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()

    path = write_config_model(tmp_path / "model.gguf", config, values=values)
    with open_config_model(path, config) as model:
        shape = _native.TrainerShape([n for n, _, _ in _native.trainable(model._native)], RANK, 20)
        trainer = _native.Trainer(model._native, shape, ALPHA)
        assert len(trainer.names) == len(lora) == 2 * 7 * LAYERS + 4
        there = names_of(config, name == "gemma2")
        keys = {}
        for key, _, _ in trainer.names:
            target, part = key.rsplit(".lora_", 1)
            kind = "embedding_{}.default" if target == "token_embd" else "{}.default.weight"
            keys[key] = f"base_model.model.{there[target]}.lora_{kind.format(part.upper())}"
        trainer.set_parameters(np.concatenate([lora[key].detach().numpy().ravel() for key in keys.values()]))
        tokens = ids[0].numpy().astype(np.int32)
        found, count = trainer.step(tokens[:-1], np.array([0, 20], np.int32), tokens[1:])
        assert found / count == pytest.approx(loss.item(), rel=1e-5)
        for key, gradient in split(trainer, trainer.gradients()).items():
            expected = lora[keys[key]].grad.numpy()
            error = np.linalg.norm(gradient / count - expected) / np.linalg.norm(expected)
            assert error <= 1e-5, (key, error)
