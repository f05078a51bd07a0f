"""Vision encoders against tiny models of transformers, with the names that llama.cpp's converter gives tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu import Model
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.engine.pictures import Embeddings, MixedTokens
from reference_vision import write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.instruction_set

TEXT: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
VISION: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
NAMES = [
    (r"(?:self_attn|attention|attn)\.([qkv])_proj\.", r"attn_\1."),
    (r"attn\.qkv\.", "attn_qkv."),
    (r"(?:self_attn\.out_proj|attention\.o_proj|attn\.proj)\.", "attn_out."),
    (r"(?:layer_norm1|attention_norm|norm1)\.", "ln1."),
    (r"(?:layer_norm2|ffn_norm|norm2)\.", "ln2."),
    (r"(?:mlp|feed_forward)\.(?:fc1|up_proj)\.", "ffn_up."),
    (r"(?:mlp|feed_forward)\.gate_proj\.", "ffn_gate."),
    (r"(?:mlp|feed_forward)\.(?:fc2|down_proj)\.", "ffn_down."),
    (r"^.*\.(?:layers|blocks)\.(\d+)\.", r"v.blk.\1."),
    (r"^.*(?:patch_embedding|patch_conv|patch_embed\.proj)\.", "v.patch_embd."),
    (r"^.*position_embedding\.", "v.position_embd."),
    (r"^.*class_embedding$", "v.class_embd"),
    (r"^.*(?:pre_layrnorm|ln_pre)\.", "v.pre_ln."),
    (r"^.*(?:post_layernorm|merger\.ln_q)\.", "v.post_ln."),
]


def keys(kind: str, vision: Any, patch: int, size: int, epsilon: float, **more: Any) -> dict[str, Any]:
    return {
        "general.type": "mmproj", "clip.has_vision_encoder": True, "clip.projector_type": kind,
        "clip.vision.projection_dim": TEXT["hidden_size"], "clip.vision.image_size": size,
        "clip.vision.patch_size": patch, "clip.vision.embedding_length": vision["hidden_size"],
        "clip.vision.feed_forward_length": vision["intermediate_size"],
        "clip.vision.block_count": vision["num_hidden_layers"],
        "clip.vision.attention.head_count": vision["num_attention_heads"],
        "clip.vision.attention.layer_norm_epsilon": epsilon, "clip.vision.image_mean": [0.5] * 3,
        "clip.vision.image_std": [0.5] * 3, **more,
    }  # fmt: skip


def ready(model: Any) -> Any:
    """The model with random weights, norms near one."""
    generator = torch.Generator().manual_seed(1)
    for name, values in model.named_parameters():
        noise = torch.randn(values.shape, generator=generator)
        scale = 0.1 if values.ndim == 1 else 0.3 if "position" in name else values[0].numel() ** -0.5
        with torch.no_grad():
            values.copy_(noise * scale + (values.ndim == 1 and name.endswith("weight")))
    return model.eval()


def tensors(model: Any, *parts: tuple[str, str]) -> dict[str, Any]:
    """The tensors of the encoder by their names in GGUF; `parts` are further replacements."""
    found = {}
    for name, values in model.state_dict().items():
        if re.search(r"language_model|text_model|lm_head", name):
            continue
        for pattern, replacement in [*parts, *NAMES]:
            name = re.sub(pattern, replacement, name)
        found[name] = values.detach().float().numpy()
    return {name: values for name, values in found.items() if name.startswith(("v.", "mm."))}


def interleaved(values: dict[str, Any]) -> dict[str, Any]:
    """The tensors with the rows of queries and keys in the order that the converter of Pixtral gives them."""
    for name, tensor in values.items():
        if ".attn_q." in name or ".attn_k." in name:
            pairs = tensor.reshape(VISION["num_attention_heads"], 2, -1, tensor.shape[-1])
            values[name] = np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(tensor.shape))
    return values


def rows_of(output: Any) -> Any:
    """The features of pictures, whatever holds them."""
    found = output if isinstance(output, list | tuple | torch.Tensor) else output.pooler_output
    parts = [found] if isinstance(found, torch.Tensor) else found
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]).detach().numpy()


def check(path: Path, pixels: Any, output: Any, least: int = 1) -> None:
    """Pixels are tiles x 3 x height x width."""
    exact = rows_of(output)
    with PictureEncoder(path, threads=2) as encoder:
        tiles = np.ascontiguousarray(np.moveaxis(pixels.numpy(), 1, 3))
        rows = encoder.encode(tiles).rows
        assert rows.shape == exact.shape
        assert len(rows) == len(tiles) * encoder.config.rows(*tiles.shape[1:3]) > least
    assert ((rows - exact) ** 2).sum() < 1e-9 * (exact.astype(float) ** 2).sum()


def test_gemma3(tmp_path: Path) -> None:
    config = transformers.Gemma3Config(
        text_config=TEXT | {"head_dim": 16}, vision_config=VISION | {"image_size": 128, "patch_size": 4},
        mm_tokens_per_image=256,
    )  # fmt: skip
    model = ready(transformers.Gemma3ForConditionalGeneration(config))
    values = tensors(
        model,
        (r"^.*mm_input_projection_weight$", "mm.input_projection.weight"),
        (r"^.*mm_soft_emb_norm\.", "mm.soft_emb_norm."),
    )
    values["mm.soft_emb_norm.weight"] = values["mm.soft_emb_norm.weight"] + 1
    factor = {"clip.vision.projector.scale_factor": 2}
    path = write(tmp_path / "mmproj.gguf", values, keys("gemma3", VISION, 4, 128, 1e-6) | factor)
    pixels = torch.randn(2, 3, 128, 128)
    check(path, pixels, model.model.get_image_features(pixel_values=pixels))
    with PictureEncoder(path) as encoder:
        assert encoder.config.bidirectional


def test_idefics3(tmp_path: Path) -> None:
    config = transformers.Idefics3Config(
        text_config=TEXT | {"model_type": "llama"}, vision_config=VISION | {"image_size": 48, "patch_size": 8},
        scale_factor=2, image_token_id=5, pad_token_id=0,
    )  # fmt: skip
    model = ready(transformers.Idefics3ForConditionalGeneration(config))
    values = tensors(model, (r"^.*modality_projection\.proj\.", "mm.model.fc."))
    metadata = keys("idefics3", VISION, 8, 48, 1e-6) | {"clip.vision.projector.scale_factor": 2}
    path = write(tmp_path / "mmproj.gguf", values, metadata)
    pixels = torch.randn(3, 3, 48, 48)
    check(path, pixels, model.model.get_image_features(pixels[None]))


def test_llava(tmp_path: Path) -> None:
    vision = transformers.CLIPVisionConfig(**VISION, image_size=56, patch_size=14)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**TEXT), image_token_index=5
    )
    model = ready(transformers.LlavaForConditionalGeneration(config))
    values = tensors(
        model, (r"^.*projector\.linear_1\.", "mm.0."), (r"^.*projector\.linear_2\.", "mm.2."),
        # Those who converted the first models exchanged these names.
        (r"mlp\.fc1\.", "ffn_down."), (r"mlp\.fc2\.", "ffn_up."),
    )  # fmt: skip
    # The last layer is left out by the files, and by transformers.
    values = {name: tensor for name, tensor in values.items() if not name.startswith("v.blk.2.")}
    metadata = keys("mlp", VISION | {"num_hidden_layers": 2}, 14, 56, 1e-5) | {"clip.use_gelu": False}
    pixels = torch.randn(2, 3, 56, 56)
    output = model.model.get_image_features(pixel_values=pixels)
    check(write(tmp_path / "mmproj.gguf", values, metadata), pixels, output)
    del metadata["clip.projector_type"]  # files from before there was such a key
    check(write(tmp_path / "old.gguf", values, metadata), pixels, output)


def test_pixtral(tmp_path: Path) -> None:
    vision = transformers.PixtralVisionConfig(**VISION, image_size=128, patch_size=8, hidden_act="silu")
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**TEXT), image_token_index=5,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    model = ready(transformers.LlavaForConditionalGeneration(config))
    names = [(r"^.*projector\.linear_1\.", "mm.1."), (r"^.*projector\.linear_2\.", "mm.2.")]
    values = interleaved(tensors(model, *names))
    metadata = keys("pixtral", VISION, 8, 128, 1e-5) | {"clip.use_silu": True}
    values["v.token_embd.img_break"] = np.zeros(TEXT["hidden_size"], np.float32)
    path = write(tmp_path / "mmproj.gguf", values, metadata)
    for height, width in [(40, 64), (128, 16), (8, 8)]:
        pixels = torch.randn(1, 3, height, width)
        sizes = torch.tensor([[height, width]])
        check(path, pixels, model.model.get_image_features(pixel_values=pixels, image_sizes=sizes), 0)


@pytest.mark.parametrize("bias", [False, True])
def test_mistral3(tmp_path: Path, bias: bool) -> None:
    vision = transformers.PixtralVisionConfig(**VISION, image_size=128, patch_size=8, hidden_act="silu")
    config = transformers.Mistral3Config(
        vision_config=vision, text_config=transformers.MistralConfig(**TEXT, rms_norm_eps=1e-5), image_token_index=5,
        spatial_merge_size=2, multimodal_projector_bias=bias,
    )  # fmt: skip
    model = ready(transformers.Mistral3ForConditionalGeneration(config))
    names = [
        (r"^.*projector\.linear_1\.", "mm.1."), (r"^.*projector\.linear_2\.", "mm.2."),
        (r"^.*projector\.norm\.", "mm.input_norm."), (r"^.*patch_merger\.merging_layer\.", "mm.patch_merger."),
    ]  # fmt: skip
    values = interleaved(tensors(model, *names))
    metadata = keys("pixtral", VISION, 8, 128, 1e-5) | {"clip.use_silu": True, "clip.vision.spatial_merge_size": 2}
    values["v.token_embd.img_break"] = np.zeros(TEXT["hidden_size"], np.float32)
    path = write(tmp_path / "mmproj.gguf", values, metadata)
    for height, width in [(48, 64), (128, 16), (32, 16)]:
        pixels = torch.randn(1, 3, height, width)
        sizes = torch.tensor([[height, width]])
        check(path, pixels, model.model.get_image_features(pixel_values=pixels, image_sizes=sizes), 0)
    with PictureEncoder(path) as encoder, pytest.raises(ValueError, match="multiples of 16"):
        encoder.encode(np.zeros((1, 24, 16, 3), np.float32))
    del values["mm.patch_merger.weight"]
    with pytest.raises(ValueError, match=r"no tensor mm\.patch_merger\.weight"):
        PictureEncoder(write(tmp_path / "cut.gguf", values, metadata))


def resampled(states: Any, grid: tuple[int, int], weights: dict[str, Any], width: int, queries: int) -> Any:
    """The resampler of MiniCPM-V by PyTorch's own attention: published code puts these modules one behind the other."""
    from torch import nn

    torch.manual_seed(2)
    norms = {part: nn.LayerNorm(width, eps=1e-6) for part in ("q", "kv", "post")}
    attention = nn.MultiheadAttention(width, width // 128)
    inputs = nn.Linear(states.shape[-1], width, bias=False)
    query, last = torch.randn(queries, width), torch.randn(width, width)
    for part, module in norms.items():
        with torch.no_grad():
            module.weight.add_(torch.randn(width) / 8)
            module.bias.add_(torch.randn(width) / 8)
        weights |= {f"resampler.ln_{part}.{name}": values for name, values in module.named_parameters()}
    with torch.no_grad():
        attention.in_proj_bias.copy_(torch.randn(3 * width) / 4)
    for name, values in zip("qkv", attention.in_proj_weight.chunk(3), strict=True):
        weights[f"resampler.attn.{name}.weight"] = values
    for name, values in zip("qkv", attention.in_proj_bias.chunk(3), strict=True):
        weights[f"resampler.attn.{name}.bias"] = values
    weights |= {f"resampler.attn.out.{name}": values for name, values in attention.out_proj.named_parameters()}
    weights |= {"resampler.kv.weight": inputs.weight, "resampler.query": query, "resampler.proj.weight": last.T}
    omega = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    turned = [place.reshape(-1, 1) * omega for place in (columns, rows)]
    positions = torch.cat([function(angle) for angle in turned for function in (torch.sin, torch.cos)], 1).float()
    values = norms["kv"](inputs(states[0]))
    found = attention(norms["q"](query)[:, None], (values + positions)[:, None], values[:, None])[0][:, 0]
    return (norms["post"](found) @ last)[None]


def test_minicpmv(tmp_path: Path) -> None:
    from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

    encoder = Idefics2VisionTransformer(Idefics2VisionConfig(**VISION, image_size=56, patch_size=8))
    encoder = ready(torch.nn.ModuleDict({"vpm": encoder})).vpm
    wrapped = torch.nn.ModuleDict({"vpm": encoder})
    swapped = [(r"mlp\.fc1\.", "ffn_down."), (r"mlp\.fc2\.", "ffn_up.")]
    metadata = keys("resampler", VISION, 8, 448, 1e-6) | {
        "clip.use_gelu": True, "clip.minicpmv_version": 3, "clip.minicpmv_query_num": 9,
        "clip.vision.projection_dim": 0,
    }  # fmt: skip
    for height, width in [(56, 56), (40, 88), (8, 120), (96, 24)]:
        pixels = torch.randn(1, 3, height, width)
        grid = height // 8, width // 8
        mask = torch.ones(1, *grid, dtype=torch.bool)
        states = encoder(pixels, patch_attention_mask=mask).last_hidden_state
        weights: dict[str, Any] = {}
        exact = resampled(states, grid, weights, 256, 9)
        plain = {name: value.detach().contiguous().numpy() for name, value in weights.items()}
        path = write(tmp_path / "mmproj.gguf", tensors(wrapped, *swapped) | plain, metadata)
        check(path, pixels, exact)


def test_internvl(tmp_path: Path) -> None:
    vision = {"image_size": [48, 48], "patch_size": [8, 8], "num_channels": 3, "layer_norm_eps": 1e-6}
    config = transformers.InternVLConfig(
        vision_config=VISION | vision, text_config=TEXT | {"model_type": "qwen2"}, downsample_ratio=0.5,
        image_token_id=5, attention_bias=True,
    )  # fmt: skip
    model = ready(transformers.InternVLForConditionalGeneration(config))
    names = [
        (r"^.*projector\.layer_norm\.", "mm.model.mlp.0."), (r"^.*projector\.linear_1\.", "mm.model.mlp.1."),
        (r"^.*projector\.linear_2\.", "mm.model.mlp.3."), (r"^.*encoder\.layer\.(\d+)\.", r"v.blk.\1."),
        (r"^.*cls_token$", "v.class_embd"), (r"^.*position_embeddings$", "v.position_embd.weight"),
        (r"^.*patch_embeddings\.projection\.", "v.patch_embd."), (r"attention\.projection_layer\.", "attn_out."),
        (r"layernorm_before\.", "ln1."), (r"layernorm_after\.", "ln2."), (r"lambda_(\d)$", r"ls\1.weight"),
    ]  # fmt: skip
    values = tensors(model, *names)
    values = {name: value.squeeze() if "embd" in name and value.ndim == 3 else value for name, value in values.items()}
    metadata = keys("internvl", VISION, 8, 48, 1e-6) | {
        "clip.use_gelu": True, "clip.vision.projector.scale_factor": 2,
    }  # fmt: skip
    pixels = torch.randn(3, 3, 48, 48)
    path = write(tmp_path / "mmproj.gguf", values, metadata)
    check(path, pixels, model.model.get_image_features(pixel_values=pixels))


@pytest.mark.parametrize("newer", [False, True])
def test_qwen2_vl(tmp_path: Path, newer: bool) -> None:
    text = TEXT | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 2, 2]}}
    shared = {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 4, "depth": 4}
    if newer:
        vision = {"hidden_size": 64, "out_hidden_size": 40, "intermediate_size": 96, "window_size": 64}
        config = transformers.Qwen2_5_VLConfig(
            text_config=text, vision_config=shared | vision | {"fullatt_block_indexes": [1, 3]}
        )
        model = ready(transformers.Qwen2_5_VLForConditionalGeneration(config))
    else:
        vision = {"embed_dim": 64, "hidden_size": 40, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(text_config=text, vision_config=shared | vision)
        model = ready(transformers.Qwen2VLForConditionalGeneration(config))
    values = tensors(model, (r"^.*merger\.mlp\.(\d)\.", r"mm.\1."))
    both = values.pop("v.patch_embd.weight")
    values |= {"v.patch_embd.weight": both[:, :, 0].copy(), "v.patch_embd.weight.1": both[:, :, 1].copy()}
    sizes = VISION | {"num_hidden_layers": 4, "intermediate_size": 96 if newer else 128}
    metadata = keys("qwen2.5vl_merger" if newer else "qwen2vl_merger", sizes, 8, 560, 1e-6)
    if not newer:  # as converters write it
        metadata["clip.vision.feed_forward_length"] = TEXT["hidden_size"]
    if newer:
        metadata |= {"clip.use_silu": True, "clip.vision.n_wa_pattern": 2, "clip.vision.window_size": 64}
    path = write(tmp_path / "mmproj.gguf", values, metadata)
    with PictureEncoder(path) as encoder:
        width = encoder.config.width
    with_text(tmp_path / "model.gguf", model, width)
    for rows, columns in [(10, 12), (2, 18), (8, 8)]:
        image = torch.randn(3, rows * 8, columns * 8)
        cut = torch.stack([image, image]).reshape(1, 2, 3, rows // 2, 2, 8, columns // 2, 2, 8)
        flat = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns, -1)
        output = model.model.get_image_features(flat, torch.tensor([[1, rows, columns]]))
        check(path, image[None], output)


def with_text(path: Path, model: Any, width: int) -> None:
    """Compares the logits of a text with two pictures of random rows."""
    values = {}
    for name, tensor in model.state_dict().items():
        if "visual" in name:
            continue
        for pattern, replacement in [
            (r"^.*layers\.(\d+)\.", r"blk.\1."), (r"self_attn\.([qkv])_proj", r"attn_\1"),
            (r"self_attn\.o_proj", "attn_output"), (r"mlp\.(gate|up|down)_proj", r"ffn_\1"),
            ("post_attention_layernorm", "ffn_norm"), ("input_layernorm", "attn_norm"),
            (r"^.*embed_tokens", "token_embd"), (r"^lm_head", "output"), (r"^.*language_model\.norm", "output_norm"),
        ]:  # fmt: skip
            name = re.sub(pattern, replacement, name)
        values[name] = tensor.detach().float().numpy()
    metadata: dict[str, Any] = {
        "qwen2vl.block_count": 1, "qwen2vl.context_length": 512, "qwen2vl.embedding_length": width,
        "qwen2vl.feed_forward_length": 64, "qwen2vl.attention.head_count": 4, "qwen2vl.attention.head_count_kv": 2,
        "qwen2vl.attention.layer_norm_rms_epsilon": float(model.config.text_config.rms_norm_eps),
        "qwen2vl.rope.freq_base": float(model.config.text_config.rope_parameters["rope_theta"]),
        "qwen2vl.rope.dimension_sections": [1, 2, 2, 0],
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{index}" for index in range(256)],
    }  # fmt: skip
    write(path, values, metadata, "qwen2vl")
    random = np.random.default_rng(0)
    grids = [(5, 3), (2, 6)]
    pictures = [random.standard_normal((height * across, width)).astype(np.float32) for height, across in grids]
    image = model.config.image_token_id = 255
    ids = [7, 8, *[image] * 15, 9, 10, 11, *[image] * 12, 12, 13]
    embedded = model.get_input_embeddings()(torch.tensor([ids])).detach().clone()
    embedded[0, 2:17], embedded[0, 20:32] = (torch.tensor(rows) for rows in pictures)
    merged = torch.tensor([[1, 2 * height, 2 * across] for height, across in grids])
    kinds = torch.tensor([[int(token == image) for token in ids]])
    positions = model.model.get_rope_index(torch.tensor([ids]), kinds, image_grid_thw=merged)[0]
    exact = model(inputs_embeds=embedded, position_ids=positions).logits[0].detach().numpy()
    parts = [Embeddings(rows, b"%d" % at, grid=grids[at]) for at, rows in enumerate(pictures)]
    given = MixedTokens([7, 8, parts[0], 9, 10, 11, parts[1], 12, 13])
    with Model(path, threads=2) as ours:
        got = ours.session(kv_type="f32").forward(given, logits="all")
        assert ((got - exact) ** 2).sum() < 1e-9 * (exact.astype(float) ** 2).sum()
        session = ours.session(kv_type="f32")
        for start, end in [(0, 1), (1, 9), (9, 18), (18, 25), (25, 34)]:
            assert np.array_equal(session.forward(given[start:end], logits="all"), got[start:end])
        for length in (33, 19, 5):
            session.truncate(length)
            assert np.array_equal(session.forward(given[length:], logits="all"), got[length:])
        with pytest.raises(ValueError, match="height and width"):
            ours.session().forward([[1], Embeddings(pictures[0], b"no grid")])
