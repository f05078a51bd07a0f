"""A small Qwen3-VL, or Qwen 3.5, of random weights: the text model, with the demo's vocabulary, and its mmproj file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import llamacpu
from config_models import tensors as text_tensors
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision.config import VisionConfig
from reference_vision import tensors, write

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
WIDTH, LAYERS, DEEP = 64, 4, [0, 1]
SIDE = 8
"""Side of what becomes one token, in pixels."""
FEWEST = 64
"""Tokens of the smallest picture."""
TEMPLATE = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}{% else %}
{%- for item in message.content %}
{%- if 'image' in item or 'image_url' in item or item.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif 'text' in item %}{{- item.text }}{% endif %}{% endfor %}{% endif %}{{- '<|im_end|>\\n' }}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]


def write_mmproj(path: Path, width: int = WIDTH, deep: list[int] | None = None, **metadata: Any) -> Path:
    """The vision encoder, whose matrices are in half precision."""
    deep = DEEP if deep is None else deep
    config = VisionConfig(
        kind="qwen3vl_merger", image_size=0, patch_size=4, embedding_length=32, layers=3, heads=2, feed_forward=48,
        output_length=width, norm_epsilon=1e-6, positions="corners", merge=2, projector=["mm.0", "mm.2"],
        deepstack=deep,
    )  # fmt: skip
    values = tensors(config, table=3)
    for layer in range(3):
        for part in ("weight", "bias"):
            three = [values.pop(f"v.blk.{layer}.attn_{name}.{part}") for name in "qkv"]
            values[f"v.blk.{layer}.attn_qkv.{part}"] = np.concatenate(three)
    # Of two frames, which are equal in pictures.
    values |= {f"v.patch_embd.weight{end}": values["v.patch_embd.weight"] / 2 for end in ("", ".1")}
    for name, tensor in values.items():
        if tensor.ndim == 2 and "position" not in name:
            values[name] = tensor.astype(np.float16)
    return write(path, values, {
        "general.type": "mmproj", "clip.has_vision_encoder": True, "clip.projector_type": "qwen3vl_merger",
        "clip.vision.projection_dim": width, "clip.vision.image_size": 12, "clip.vision.patch_size": 4,
        "clip.vision.embedding_length": 32, "clip.vision.feed_forward_length": 48, "clip.vision.block_count": 3,
        "clip.vision.attention.head_count": 2, "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": [0.5] * 3, "clip.vision.image_std": [0.5] * 3, "clip.use_gelu": True,
        "clip.vision.spatial_merge_size": 2, "clip.vision.is_deepstack_layers": [layer in deep for layer in range(3)],
        **metadata,
    })  # fmt: skip


def write_text(path: Path, architecture: str = "qwen3vl", **metadata: Any) -> Path:
    """The language model; None for a key leaves it out."""
    with GGUFFile(DEMO) as demo:
        words = list(demo.metadata["tokenizer.ggml.tokens"])
        merges = list(demo.metadata["tokenizer.ggml.merges"])
        kinds = demo.metadata["tokenizer.ggml.token_type"].tolist()
    experts = {"experts": 4, "experts_used": 2, "expert_feed_forward": 24} if architecture.endswith("moe") else {}
    fields: dict[str, Any] = {"heads": [4] * LAYERS, "kv_heads": [2] * LAYERS, "query_key_norm": ["head"] * LAYERS}
    if architecture.startswith("qwen35"):
        fields = {
            "heads": [0, 0, 0, 4], "kv_heads": [0, 0, 0, 2], "recurrent_heads": [4, 4, 4, 0], "recurrent_key_heads": 2,
            "recurrent_key_size": 16, "recurrent_value_size": 16, "convolution_size": 4, "attention_gate": "query",
            "query_key_norm": ["none"] * 3 + ["head"], "feed_forward_norm": "post_attention_norm",
        }  # fmt: skip
        metadata = {"n_deepstack_layers": None, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 64,
                    "ssm.state_size": 16, "ssm.conv_kernel": 4, **metadata}  # fmt: skip
    config = Config(
        architecture=architecture, vocab_size=len(words) + len(CONTROL), context_length=1024, embedding_length=WIDTH,
        layers=LAYERS, feed_forward=[48] * LAYERS, key_size=16, value_size=16, norm_epsilon=1e-6, rope_size=16,
        rope_original_context=1024, **fields, **experts,
    )  # fmt: skip
    values = text_tensors(config, np.random.default_rng(5), False, False)
    keys = {
        "context_length": 1024, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": 48,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "attention.value_length": 16, "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 5e6,
        "rope.dimension_sections": [4, 2, 2, 0], "n_deepstack_layers": len(DEEP),
    }  # fmt: skip
    if experts:
        keys |= {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 24}
    keys = {key: value for key, value in (keys | metadata).items() if value is not None}
    return write(path, {name: np.asarray(value, np.float32) for name, value in values.items()}, {
        **{f"{architecture}.{key}": value for key, value in keys.items()},
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.tokens": [*words, *CONTROL], "tokenizer.ggml.token_type": [*kinds, *[3] * len(CONTROL)],
        "tokenizer.ggml.eos_token_id": len(words) + 2, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }, architecture)  # fmt: skip
