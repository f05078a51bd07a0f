"""Qwen3-VL and Qwen 3.5 against tiny models of transformers: encoders, with rows of layers in the middle, and text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converted_checkpoints import load
from llamacpu import Model, convert
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.engine.pictures import Embeddings, MixedTokens
from reference_vision import write
from test_vision_transformers import ready

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.instruction_set

WIDTH, DEEP = 48, [0, 2]
VISION = [
    (r"^model\.visual\.deepstack_merger_list\.(\d)\.norm\.", r"v.deepstack.\1.norm."),
    (r"^model\.visual\.deepstack_merger_list\.(\d)\.linear_", r"v.deepstack.\1."),
    (r"^model\.visual\.merger\.norm\.", "v.post_ln."), (r"^model\.visual\.merger\.linear_fc1\.", "mm.0."),
    (r"^model\.visual\.merger\.linear_fc2\.", "mm.2."), (r"^model\.visual\.pos_embed\.", "v.position_embd."),
    (r"^model\.visual\.patch_embed\.proj\.", "v.patch_embd."), (r"^model\.visual\.blocks\.(\d+)\.", r"v.blk.\1."),
    (r"attn\.qkv\.", "attn_qkv."), (r"attn\.proj\.", "attn_out."), (r"norm(\d)\.", r"ln\1."),
    (r"mlp\.linear_fc1\.", "ffn_up."), (r"mlp\.linear_fc2\.", "ffn_down."),
]  # fmt: skip
TEXT = [
    (r"mlp\.gate\.weight", "ffn_gate_inp.weight"),
    (r"^.*layers\.(\d+)\.", r"blk.\1."), (r"self_attn\.([qkv])_(proj|norm)", r"attn_\1_\2"),
    (r"_proj\.(weight|bias)", r".\1"),
    (r"mlp\.experts\.down_proj", "ffn_down_exps.weight"),
    (r"self_attn\.o\.", "attn_output."), (r"mlp\.(gate|up|down)\.", r"ffn_\1."),
    ("post_attention_layernorm", "ffn_norm"), ("input_layernorm", "attn_norm"),
    (r"^.*embed_tokens", "token_embd"), (r"^lm_head", "output"), (r"^.*language_model\.norm", "output_norm"),
]  # fmt: skip


def near(got: Any, exact: Any) -> bool:
    return bool(((got - exact) ** 2).sum() < 1e-9 * (exact.astype(float) ** 2).sum())


@pytest.fixture(scope="module", params=["qwen3vl", "qwen3vlmoe"])
def model(request: pytest.FixtureRequest) -> Any:
    text = {
        "vocab_size": 256, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "mrope_section": [4, 2, 2]},
    }  # fmt: skip
    vision = {
        "depth": 4, "hidden_size": 64, "intermediate_size": 96, "num_heads": 4, "patch_size": 8,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": WIDTH, "num_position_embeddings": 49,
        "deepstack_visual_indexes": DEEP,
    }  # fmt: skip
    if request.param == "qwen3vlmoe":
        text |= {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        experts = transformers.Qwen3VLMoeConfig(text_config=text, vision_config=vision, image_token_id=255)
        return ready(transformers.Qwen3VLMoeForConditionalGeneration(experts))
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=255)
    return ready(transformers.Qwen3VLForConditionalGeneration(config))


def renamed(model: Any, vision: bool) -> dict[str, Any]:
    found = {}
    for name, values in model.state_dict().items():
        if ("visual" in name) != vision:
            continue
        if "deepstack_merger_list" in name:
            name = re.sub(r"list\.(\d)", lambda match: f"list.{DEEP[int(match[1])]}", name)
        for pattern, replacement in VISION if vision else TEXT:
            name = re.sub(pattern, replacement, name)
        array = values.detach().float().numpy()
        if name.endswith("mlp.experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), np.split(array, 2, 1), strict=True):
                found[name.replace("mlp.experts.gate_up_proj", f"ffn_{part}_exps.weight")] = np.ascontiguousarray(half)
        else:
            found[name] = array
    return found


def mmproj(folder: Path, model: Any) -> Path:
    values = renamed(model, True)
    both = values.pop("v.patch_embd.weight")
    values |= {"v.patch_embd.weight": both[:, :, 0].copy(), "v.patch_embd.weight.1": both[:, :, 1].copy()}
    return write(
        folder / "mmproj.gguf", values,
        {
            "general.type": "mmproj", "clip.has_vision_encoder": True, "clip.projector_type": "qwen3vl_merger",
            "clip.vision.projection_dim": WIDTH, "clip.vision.image_size": 56, "clip.vision.patch_size": 8,
            "clip.vision.embedding_length": 64, "clip.vision.feed_forward_length": 96, "clip.vision.block_count": 4,
            "clip.vision.attention.head_count": 4, "clip.vision.attention.layer_norm_epsilon": 1e-6,
            "clip.vision.image_mean": [0.5] * 3, "clip.vision.image_std": [0.5] * 3, "clip.use_gelu": True,
            "clip.vision.spatial_merge_size": 2,
            "clip.vision.is_deepstack_layers": [layer in DEEP for layer in range(4)],
        },
    )  # fmt: skip


def language(folder: Path, model: Any) -> Path:
    key = "qwen3vlmoe" if "Moe" in type(model).__name__ else "qwen3vl"
    path = folder / "model.gguf"
    experts = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 24}
    write(
        path, renamed(model, False),
        {
            **{f"{key}.{name}": value for name, value in experts.items() if key == "qwen3vlmoe"},
            f"{key}.block_count": 4, f"{key}.context_length": 512, f"{key}.embedding_length": WIDTH,
            f"{key}.feed_forward_length": 64, f"{key}.attention.head_count": 4, f"{key}.attention.head_count_kv": 2,
            f"{key}.attention.key_length": 16, f"{key}.attention.value_length": 16,
            f"{key}.attention.layer_norm_rms_epsilon": 1e-6, f"{key}.rope.freq_base": 5000.0,
            f"{key}.rope.dimension_sections": [4, 2, 2, 0], f"{key}.n_deepstack_layers": len(DEEP),
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{index}" for index in range(256)],
        },
        key,
    )  # fmt: skip
    return path


@pytest.mark.parametrize(("rows", "columns"), [(10, 12), (2, 18), (8, 8), (14, 6)])
def test_pictures_and_text(tmp_path: Path, model: Any, rows: int, columns: int) -> None:
    torch.manual_seed(rows)
    image = torch.randn(3, rows * 8, columns * 8)
    cut = torch.stack([image, image]).reshape(1, 2, 3, rows // 2, 2, 8, columns // 2, 2, 8)
    flat = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns, -1)
    grid = torch.tensor([[1, rows, columns]])
    with torch.no_grad():
        output = model.model.get_image_features(flat, grid)
    features = [output.pooler_output, *output.deepstack_features]
    found = [part[0] if isinstance(part, list | tuple) else part for part in features]
    exact = torch.cat(found, -1).numpy()
    with PictureEncoder(mmproj(tmp_path, model), threads=2) as encoder:
        got = encoder.encode(np.ascontiguousarray(np.moveaxis(image[None].numpy(), 1, 3))).rows
    assert got.shape == exact.shape == (rows * columns // 4, WIDTH * 3)
    for part in range(3):
        assert near(got[:, part * WIDTH :][:, :WIDTH], exact[:, part * WIDTH :][:, :WIDTH])

    count = rows * columns // 4
    ids = torch.tensor([[7, 8, *[255] * count, 9, 10, *[255] * count, 11, 12]])
    with torch.no_grad():
        logits = model(
            input_ids=ids, pixel_values=torch.cat([flat, flat]), image_grid_thw=torch.cat([grid, grid]),
            mm_token_type_ids=(ids == 255).long(),
        ).logits[0].numpy()  # fmt: skip
    places = (rows // 2, columns // 2)
    pictures = [Embeddings(exact, bytes([number]), grid=places) for number in range(2)]
    given = MixedTokens([7, 8, pictures[0], 9, 10, pictures[1], 11, 12])
    with Model(language(tmp_path, model), threads=2) as ours:
        whole = ours.session(kv_type="f32").forward(given, logits="all")
        assert near(whole, logits)
        session = ours.session(kv_type="f32")
        for start, end in [(0, 1), (1, 5), (5, count + 6), (count + 6, len(given))]:
            assert np.array_equal(session.forward(given[start:end], logits="all"), whole[start:end])
        for length in (len(given) - 4, 4):
            session.truncate(length)
            assert np.array_equal(session.forward(given[length:], logits="all"), whole[length:])
        fork = session.fork()
        fork.truncate(3)
        assert np.array_equal(fork.forward(given[3:], logits="all"), whole[3:])
        with pytest.raises(ValueError, match="width"):
            ours.session().forward([[1], Embeddings(exact[:, :WIDTH], b"shallow", grid=places)])


@pytest.mark.parametrize("experts", [False, True])
def test_qwen35(tmp_path: Path, experts: bool) -> None:
    """The files are those of our converter: the encoder has no rows for layers in the middle."""
    kind = "qwen3_5_moe" if experts else "qwen3_5"
    text = {
        "vocab_size": 320, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512,
        "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 5000.0, "mrope_section": [4, 2, 2], "partial_rotary_factor": 0.5,
        },
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    }  # fmt: skip
    if experts:
        text |= {
            "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
        }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": 64, "intermediate_size": 96, "num_heads": 4, "patch_size": 8,
        "out_hidden_size": WIDTH, "num_position_embeddings": 49,
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, text_config=text, vision_config=vision, image_token_id=319)
    model = ready(transformers.AutoModelForImageTextToText.from_config(config))
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    for name, file in load()["tokenizers"]["words"].items():
        (folder / name).write_text(file, "utf-8")
    means = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(means), "utf-8")
    text_file = convert(folder, tmp_path / "model.gguf", type="f32")
    encoder_file = convert(folder, tmp_path / "mmproj.gguf", type="f32", mmproj=True)

    rows, columns = 6, 14
    torch.manual_seed(rows)
    image = torch.randn(3, rows * 8, columns * 8)
    cut = torch.stack([image, image]).reshape(1, 2, 3, rows // 2, 2, 8, columns // 2, 2, 8)
    flat = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns, -1)
    grid, count = torch.tensor([[1, rows, columns]]), rows * columns // 4
    ids = torch.tensor([[7, 8, *[319] * count, 9, 10, *[319] * count, 11, 12]])
    with torch.no_grad():
        output = model.model.get_image_features(flat, grid).pooler_output
        exact = (output[0] if isinstance(output, list | tuple) else output).numpy()
        logits = model(
            input_ids=ids, pixel_values=torch.cat([flat, flat]), image_grid_thw=torch.cat([grid, grid]),
            mm_token_type_ids=(ids == 319).long(),
        ).logits[0].numpy()  # fmt: skip
    with PictureEncoder(encoder_file, threads=2) as encoder:
        got = encoder.encode(np.ascontiguousarray(np.moveaxis(image[None].numpy(), 1, 3))).rows
    assert near(got, exact)
    places = (rows // 2, columns // 2)
    pictures = [Embeddings(exact, bytes([number]), grid=places) for number in range(2)]
    given = MixedTokens([7, 8, pictures[0], 9, 10, pictures[1], 11, 12])
    with Model(text_file, mmproj=encoder_file, threads=2) as ours:
        whole = ours.session(kv_type="f32").forward(given, logits="all")
        assert near(whole, logits)
        session = ours.session(kv_type="f32")
        for start, end in [(0, 5), (5, count + 6), (count + 6, len(given))]:
            assert np.array_equal(session.forward(given[start:end], logits="all"), whole[start:end])
        for length in (len(given) - 4, 4):
            session.truncate(length)
            assert np.array_equal(session.forward(given[length:], logits="all"), whole[length:])
