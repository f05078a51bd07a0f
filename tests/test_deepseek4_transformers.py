"""DeepSeek V4 against transformers, from converted checkpoints: logits of prompts and of tokens one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converted_checkpoints import load
from llamacpu import Model, convert

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.deepseek_v4", reason="a transformers without DeepSeek V4")
pytestmark = pytest.mark.instruction_set

VOCABULARY, EXPERTS, USED = 320, 6, 2
LOCAL, CHOSEN, FAR = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
KINDS = {"windows alone": [LOCAL] * 2, "chosen": [CHOSEN] * 2, "far": [FAR] * 2, "all": [LOCAL, CHOSEN, FAR, CHOSEN]}


def saved(kinds: list[str], scaled: bool, folder: Path) -> tuple[Any, Path]:
    """A model with random weights, and its checkpoint, with a vocabulary."""
    from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

    yarn = {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1,
    }  # fmt: skip
    config = DeepseekV4Config(
        vocab_size=VOCABULARY, hidden_size=48, moe_intermediate_size=20, num_hidden_layers=len(kinds),
        num_attention_heads=4, head_dim=24, q_lora_rank=20, num_experts_per_tok=USED, n_routed_experts=EXPERTS,
        n_shared_experts=1, max_position_embeddings=512, layer_types=kinds, hc_mult=4, sliding_window=12,
        mlp_layer_types=["hash_moe"] + ["moe"] * (len(kinds) - 1), swiglu_limit=1.0, o_groups=2, o_lora_rank=12,
        index_n_heads=16, index_head_dim=16, index_topk=5, partial_rotary_factor=1 / 3, rope_theta=100.0,
        compress_rope_theta=1000.0, rope_parameters=yarn if scaled else None, attn_implementation="eager",
        experts_implementation="eager",
    )  # fmt: skip
    model = DeepseekV4ForCausalLM(config).eval()
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("tid2eid"):
                values.copy_(torch.rand(VOCABULARY, EXPERTS).argsort(dim=1)[:, :USED])
            elif "inv_freq" not in name:
                spread = torch.randn_like(values)
                one = 1 if "norm" in name or "scale" in name else 0
                small = one or values.dim() == 1 or "position_bias" in name
                values.copy_(one + spread * (0.3 if small else values.shape[-1] ** -0.5))
    model.save_pretrained(folder)
    for name, text in load()["tokenizers"]["words"].items():
        (folder / name).write_text(text, "utf-8")
    return model.double(), folder


def nmse(got: Any, exact: Any) -> float:
    exact = exact.numpy()
    return float(((got - exact) ** 2).sum() / (exact**2).sum())


@pytest.mark.parametrize(("kind", "scaled"), [*((kind, True) for kind in KINDS), ("all", False)])
def test_logits(kind: str, scaled: bool, tmp_path: Path) -> None:
    torch.manual_seed(7)
    theirs, folder = saved(KINDS[kind], scaled, tmp_path / "checkpoint")
    tokens = torch.randint(0, VOCABULARY, (1, 280))
    with torch.no_grad():
        exact = theirs(tokens).logits[0]
        start = theirs(tokens[:, :125], use_cache=True)
        cache, rows = start.cache, [start.logits[0]]
        for place in range(125, 140):
            out = theirs(tokens[:, place : place + 1], cache=cache, use_cache=True)
            cache = out.cache
            rows.append(out.logits[0])
    with Model(convert(folder, tmp_path / "model.gguf", type="f32"), threads=2) as model:
        session = model.session(kv_type="f32")
        got = session.forward(tokens[0].tolist(), logits="all")
        session.truncate(125)
        one_by_one = np.stack([session.forward([token]) for token in tokens[0, 125:140].tolist()])
    # Computed in 32 bits in any model: the angles, the norms, and the weights of hyper-connections.
    assert nmse(got, exact) < 1e-9
    assert nmse(got[:140], torch.cat(rows)) < 1e-9
    assert np.array_equal(one_by_one, got[125:140])
