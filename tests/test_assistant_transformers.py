"""Gemma 4 and its assistant against transformers, from converted checkpoints: the logits and states of a proposal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converted_checkpoints import load
from llamacpu import Model, convert
from llamacpu.engine.drafter import EngineDrafter

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.instruction_set

WINDOW, VOCABULARY, WIDTH = 24, 342, 64
SHARED: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "global_head_dim": 32, "vocab_size": VOCABULARY, "sliding_window": WINDOW, "final_logit_softcapping": 5.0,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
}  # fmt: skip
LOCAL, FULL = "sliding_attention", "full_attention"
MODELS: dict[str, dict[str, Any]] = {
    "dense": {
        "num_hidden_layers": 6, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True,
        "num_global_key_value_heads": 1, "layer_types": [LOCAL, LOCAL, FULL, LOCAL, LOCAL, FULL],
    },
    "shared": {
        "num_hidden_layers": 6, "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": VOCABULARY,
        "num_kv_shared_layers": 3, "layer_types": [LOCAL, FULL, LOCAL, FULL, LOCAL, FULL],
    },
}  # fmt: skip
ASSISTANT: dict[str, Any] = {
    "num_hidden_layers": 4, "num_kv_shared_layers": 4, "hidden_size_per_layer_input": 0, "hidden_size": 48,
    "vocab_size_per_layer_input": 0, "intermediate_size": 80, "layer_types": [LOCAL, LOCAL, LOCAL, FULL],
}  # fmt: skip


def saved(model: Any, folder: Path) -> Path:
    """The checkpoint of a model with random weights, with a vocabulary."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * spread if "norm" in name else spread * parameter.shape[-1] ** -0.5)
            if "q_norm" in name:
                # transformers computes angles in 32 bits whatever the weights are; large scores would show that.
                parameter.mul_(0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.copy_(0.5 + torch.rand_like(buffer))
    model.eval().save_pretrained(folder)
    for name, text in load()["tokenizers"]["characters"].items():
        (folder / name).write_text(text, "utf-8")
    return folder


def nmse(got: Any, exact: Any) -> float:
    exact = exact.detach().double().numpy()
    return float(((got - exact) ** 2).sum() / (exact**2).sum())


@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize("count", [1, WINDOW, WINDOW + 1, WINDOW + 2, 90])
def test_proposals(kind: str, count: int, tmp_path: Path) -> None:
    from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4ForCausalLM, Gemma4TextConfig

    torch.manual_seed(count)
    eager = {"attn_implementation": "eager"}
    target = Gemma4ForCausalLM(Gemma4TextConfig(**SHARED | MODELS[kind], **eager))
    heads = {
        key: MODELS[kind][key] for key in ("attention_k_eq_v", "num_global_key_value_heads") if key in MODELS[kind]
    }
    own = Gemma4TextConfig(**SHARED | ASSISTANT | heads, **eager)
    assistant = Gemma4AssistantForCausalLM(Gemma4AssistantConfig(text_config=own, backbone_hidden_size=WIDTH, **eager))
    files = [
        convert(saved(model, tmp_path / name), tmp_path / f"{name}.gguf", type="f32")
        for name, model in (("target", target), ("assistant", assistant))
    ]
    tokens = np.random.default_rng(count).integers(0, VOCABULARY, count).tolist()
    target, assistant = target.double(), assistant.double()
    with torch.no_grad():
        out = target(torch.tensor([tokens]), output_hidden_states=True, return_shared_kv_states=True)
    state, embed = out.hidden_states[-1][:, -1:], target.get_input_embeddings()
    with Model(files[0], threads=2) as model:
        drafter = EngineDrafter(files[1], model)
        session = model.session(kv_type="f32")
        [ours] = model.step_hidden([(session, tokens)], drafter.places)
        assert nmse(ours.hidden[0, -1], state[0, 0]) < 1e-9
        token, own_state = 7, ours.hidden[0, -1]
        for _ in range(4):
            pair = torch.cat([embed(torch.tensor([[token]])), state], dim=-1)
            with torch.no_grad():
                exact = assistant(
                    inputs_embeds=pair, shared_kv_states=out.shared_kv_states, position_ids=torch.tensor([[count]])
                )
            found = drafter.continued(session.lend(), token, own_state)
            assert found is not None
            assert nmse(found[0], exact.logits[0, 0]) < 1e-9
            assert nmse(found[1], exact.last_hidden_state[0, 0]) < 1e-9
            token, own_state, state = int(found[0].argmax()), found[1], exact.last_hidden_state
        drafter.close()
