"""Several pictures in one sequence of Llama 3.2 Vision against transformers, whose processor says what tokens see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llamacpu import Model
from reference_cross_attention import CONFIG, CROSS, PICTURE, write_model
from test_cross_attention import PLACES, sequence

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.instruction_set
NAMES = [
    (r"token_embd", "model.embed_tokens"), (r"^output_norm", "model.norm"), (r"^output\.", "lm_head."),
    (r"^blk\.(\d+)\.", r"model.layers.\1."), (r"cross_attn_attn_gate", "cross_attn_attn_gate"),
    (r"cross_attn_([qkvo]_proj|[qk]_norm)", r"cross_attn.\1"), (r"ffn_(gate|up|down)\.", r"mlp.\1_proj."),
    (r"\.ffn_norm", ".post_attention_layernorm"), (r"\.attn_norm", ".input_layernorm"),
    (r"\.attn_output", ".self_attn.o_proj"), (r"\.attn_([qkv])\.", r".self_attn.\1_proj."),
]  # fmt: skip


def of_transformers(values: dict[str, Any]) -> Any:
    """The model of transformers with these weights, in whose heads pairs are halves apart."""
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig
    from transformers.models.mllama.modeling_mllama import MllamaForCausalLM

    config = MllamaTextConfig(
        vocab_size=CONFIG["vocabulary"], hidden_size=CONFIG["width"], num_hidden_layers=CONFIG["layers"],
        num_attention_heads=CONFIG["heads"], num_key_value_heads=CONFIG["kv_heads"], rope_theta=10000.0,
        intermediate_size=CONFIG["inner"], rms_norm_eps=1e-5, cross_attention_layers=list(CROSS),
        max_position_embeddings=CONFIG["context"], bos_token_id=0, eos_token_id=1, pad_token_id=2,
        attn_implementation="eager", rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    model = MllamaForCausalLM(config)
    found = {}
    for name, value in values.items():
        heads = {"attn_q.weight": CONFIG["heads"], "attn_k.weight": CONFIG["kv_heads"]}.get(name.split(".", 2)[-1])
        if heads:
            value = value.reshape(heads, -1, 2, CONFIG["width"]).swapaxes(1, 2).reshape(value.shape)
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = torch.tensor(value)
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected
    assert all("rotary" in name for name in missing)
    return model.eval()


@pytest.mark.parametrize("places", PLACES)
def test_tokens_see_what_the_processor_says(tmp_path: Path, places: list[int]) -> None:
    from transformers.models.mllama.modeling_mllama import _prepare_cross_attention_mask
    from transformers.models.mllama.processing_mllama import (
        convert_sparse_cross_attention_mask_to_dense,
        get_cross_attention_token_mask,
    )

    path, values = write_model(tmp_path / "model.gguf")
    # Without the rows before the first picture: transformers lets them attend to all states alike, Meta to none.
    given = sequence(places)[places[0] :]
    places = [place - places[0] for place in places]
    pieces: list[Any] = [piece for _, piece in given.pieces]
    ids = [PICTURE if at in places else token for at, token in enumerate(given)]
    # Each picture is one tile; shorter ones are filled up with states that are masked.
    longest = max(len(piece.states) for piece in pieces)
    sparse = get_cross_attention_token_mask(ids, PICTURE)
    dense = convert_sparse_cross_attention_mask_to_dense([sparse], [[1] * len(pieces)], 1, len(ids))
    mask, rows = _prepare_cross_attention_mask(torch.tensor(dense), num_vision_tokens=longest, dtype=torch.float32)
    states = torch.zeros(1, len(pieces) * longest, CONFIG["width"])
    for at, piece in enumerate(pieces):
        states[0, at * longest : at * longest + len(piece.states)] = torch.tensor(piece.states)
        mask[..., at * longest + len(piece.states) : (at + 1) * longest] = torch.finfo(torch.float32).min
    with torch.no_grad():
        exact = of_transformers(values)(
            input_ids=torch.tensor([ids]), cross_attention_states=states, cross_attention_mask=mask,
            full_text_row_masked_out_mask=rows, use_cache=False,
        ).logits[0].numpy()  # fmt: skip
    with Model(path, threads=2) as model:
        got = model.session(kv_type="f32").forward(given, logits="all")
    assert got.shape == exact.shape
    assert ((got - exact) ** 2).sum() < 1e-9 * (exact.astype(float) ** 2).sum()
