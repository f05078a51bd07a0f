"""Writes GGUF files of the shapes of published models with random weights, to time what their size costs.

    python benches/big_models.py FOLDER [SHAPE ...] [--type q4_k_m] [--vocabulary FILE.gguf]

Without a shape, all of them. `--vocabulary` copies the tokenizer of another file with as many tokens; without it the
vocabulary has the right size and means nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter, PoolingType

from current_shapes import CURRENT, Description
from random_weights import TYPES, kind_of, random_blocks


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of a model; `extra` holds further metadata, its keys without the architecture prefix."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    vocabulary: int
    context: int
    rope_base: float = 1e4
    tied: bool = False
    fused: bool = False
    head_norms: bool = False
    norms_behind: bool = False
    dense_layers: int = 0
    experts: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0
    latent: int = 0
    rotated: int = 0
    attention_period: int = 1
    predicting: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


SHAPES = {
    "llama-3.2-1b": Shape("llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, 5e5, tied=True),
    "qwen3-1.7b": Shape("qwen3", 28, 2048, 16, 8, 128, 6144, 151936, 40960, 1e6, tied=True, head_norms=True),
    "gemma-3-1b": Shape(
        "gemma3", 26, 1152, 4, 1, 256, 6912, 262144, 32768, 1e6, tied=True, head_norms=True, norms_behind=True,
        extra={"attention.sliding_window": 512, "rope.freq_base_swa": 1e4},
    ),
    "phi-4-mini": Shape(
        "phi3", 32, 3072, 24, 8, 128, 8192, 200064, 131072, tied=True, fused=True, rotated=96,
        extra={
            "attention.sliding_window": 0, "rope.scaling.attn_factor": 1.1902381,
            "rope.scaling.original_context_length": 4096,
        },
    ),
    "qwen3-30b-a3b-4-layers": Shape(
        "qwen3moe", 4, 2048, 32, 4, 128, 6144, 151936, 40960, 1e6, head_norms=True,
        experts=128, expert_feed_forward=768, extra={"expert_used_count": 8},
    ),
    "deepseek-v2-lite-4-layers": Shape(
        "deepseek2", 4, 2048, 16, 1, 192, 10944, 102400, 163840, dense_layers=1, latent=512, rotated=64,
        experts=64, expert_feed_forward=1408, shared_feed_forward=2816,
        extra={
            # Zero states that queries have no latent vector; fewer than 27 layers would not imply it.
            "attention.q_lora_rank": 0, "attention.kv_lora_rank": 512, "attention.key_length_mla": 192,
            "attention.value_length_mla": 128, "leading_dense_block_count": 1, "expert_used_count": 6,
            "expert_shared_count": 2, "expert_weights_scale": 1.0, "expert_gating_func": 1,
            "expert_group_count": 1, "expert_group_used_count": 1, "rope.scaling.type": "yarn",
            "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 4096,
            "rope.scaling.yarn_log_multiplier": 0.0707,
        },
    ),
    # One layer in four attends to the whole context; without such a layer, llama-bench fails an assertion.
    "llama-4-scout-4-layers": Shape(
        "llama4", 4, 5120, 40, 8, 128, 16384, 202048, 262144, 5e5,
        experts=16, expert_feed_forward=8192, shared_feed_forward=8192,
        extra={"expert_used_count": 1, "interleave_moe_layer_step": 1},
    ),
    "qwen3-next-80b-a3b-4-layers": Shape(
        "qwen3next", 4, 2048, 16, 2, 256, 5120, 151936, 262144, 1e7, head_norms=True, rotated=64, attention_period=4,
        experts=512, expert_feed_forward=512, shared_feed_forward=512,
        extra={
            "expert_used_count": 10, "expert_shared_feed_forward_length": 512, "full_attention_interval": 4,
            "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 32,
            "ssm.inner_size": 4096,
        },
    ),
    # The same with its layer for multi-token prediction, which is counted among the layers.
    "qwen3-next-80b-a3b-5-layers": Shape(
        "qwen3next", 5, 2048, 16, 2, 256, 5120, 151936, 262144, 1e7, head_norms=True, rotated=64, attention_period=4,
        predicting=1, experts=512, expert_feed_forward=512, shared_feed_forward=512,
        extra={
            "expert_used_count": 10, "expert_shared_feed_forward_length": 512, "full_attention_interval": 4,
            "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 32,
            "ssm.inner_size": 4096, "nextn_predict_layers": 1,
        },
    ),
    "bge-small": Shape("bert", 12, 384, 12, 12, 32, 1536, 30522, 512),
}  # fmt: skip

ALL = [*SHAPES, *CURRENT]

PLAIN_BYTES = {*range(33, 127), *range(161, 173), *range(174, 256)}
"""Bytes that GPT-2 maps to the character with the same code; all others are mapped to codes from 256 on."""

Sizes = tuple[str, tuple[int, ...]]


def matrices(shape: Shape) -> Iterator[Sizes]:
    """Yield names and sizes of all matrices, row length last."""
    yield "token_embd", (shape.vocabulary, shape.width)
    if shape.architecture == "bert":
        yield "token_types", (2, shape.width)
        yield "position_embd", (shape.context, shape.width)
    elif not shape.tied:
        yield "output", (shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        mixer = recurrent(shape) if is_recurrent(shape, layer) else attention(shape)
        for name, sizes in (*mixer, *network(shape, layer)):
            yield f"blk.{layer}.{name}", sizes
        if predicts(shape, layer):
            yield f"blk.{layer}.nextn.eh_proj", (shape.width, 2 * shape.width)


def is_recurrent(shape: Shape, layer: int) -> bool:
    """Return whether a layer is recurrent: all but the last of every `attention_period`, and those that predict."""
    return (layer + 1) % shape.attention_period != 0 and not predicts(shape, layer)


def predicts(shape: Shape, layer: int) -> bool:
    """Return whether a layer is one for multi-token prediction."""
    return layer >= shape.layers - shape.predicting


def recurrent(shape: Shape) -> Iterator[Sizes]:
    """Yield the matrices of a recurrent layer."""
    heads, inner = shape.extra["ssm.time_step_rank"], shape.extra["ssm.inner_size"]
    yield "attn_qkv", (channels(shape), shape.width)
    yield "attn_gate", (inner, shape.width)
    yield "ssm_ba", (2 * heads, shape.width)
    yield "ssm_conv1d", (channels(shape), shape.extra["ssm.conv_kernel"])
    yield "ssm_out", (shape.width, inner)


def channels(shape: Shape) -> int:
    """Return the elements of all queries, keys and values of a recurrent layer."""
    return 2 * shape.extra["ssm.group_count"] * shape.extra["ssm.state_size"] + shape.extra["ssm.inner_size"]


def attention(shape: Shape) -> Iterator[Sizes]:
    """Yield the attention matrices of a layer."""
    width, heads, size = shape.width, shape.heads, shape.head_size
    if shape.latent:
        plain, values = size - shape.rotated, size - shape.rotated
        yield "attn_q", (heads * size, width)
        yield "attn_kv_a_mqa", (shape.latent + shape.rotated, width)
        yield "attn_k_b", (heads, shape.latent, plain)
        yield "attn_v_b", (heads, values, shape.latent)
        yield "attn_output", (width, heads * values)
        return
    if shape.fused:
        yield "attn_qkv", ((heads + 2 * shape.kv_heads) * size, width)
    else:
        # Where there are recurrent layers, queries have gates.
        yield "attn_q", ((2 if shape.attention_period > 1 else 1) * heads * size, width)
        yield "attn_k", (shape.kv_heads * size, width)
        yield "attn_v", (shape.kv_heads * size, width)
    yield "attn_output", (width, heads * size)


def network(shape: Shape, layer: int) -> Iterator[Sizes]:
    """Yield the feed-forward matrices of a layer."""
    width = shape.width
    if shape.experts and layer >= shape.dense_layers:
        yield "ffn_gate_inp", (shape.experts, width)
        for experts, kind, inner in (
            ((shape.experts,), "exps", shape.expert_feed_forward),
            ((), "shexp", shape.shared_feed_forward),
        ):
            if inner:
                yield f"ffn_gate_{kind}", (*experts, inner, width)
                yield f"ffn_up_{kind}", (*experts, inner, width)
                yield f"ffn_down_{kind}", (*experts, width, inner)
        return
    inner = shape.feed_forward
    if shape.architecture != "bert" and not shape.fused:
        yield "ffn_gate", (inner, width)
    yield "ffn_up", (2 * inner if shape.fused else inner, width)
    yield "ffn_down", (width, inner)


def vectors(shape: Shape) -> Iterator[tuple[str, int, float]]:
    """Yield names, lengths and values of norms, biases and rotary factors."""
    blocks = [f"blk.{layer}" for layer in range(shape.layers)]
    if shape.architecture == "bert":
        norms = [f"{block}.{name}" for block in blocks for name in ("attn_output_norm", "layer_output_norm")]
        for name in ("token_embd_norm", *norms):
            yield f"{name}.weight", shape.width, 1.0
            yield f"{name}.bias", shape.width, 0.0
        for block in blocks:
            for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
                yield f"{block}.{name}.bias", shape.feed_forward if name == "ffn_up" else shape.width, 0.01
        return
    yield "output_norm.weight", shape.width, 1.0
    if "rope.scaling.attn_factor" in shape.extra:
        yield "rope_factors_long.weight", shape.rotated // 2, 8.0
        yield "rope_factors_short.weight", shape.rotated // 2, 1.0
    behind = ("post_attention_norm", "post_ffw_norm") if shape.norms_behind else ()
    before_network = "post_attention_norm" if shape.attention_period > 1 else "ffn_norm"
    for layer, block in enumerate(blocks):
        for name in ("attn_norm", before_network, *behind):
            yield f"{block}.{name}.weight", shape.width, 1.0
        if shape.attention_period > 1:
            yield f"{block}.ffn_gate_inp_shexp.weight", shape.width, 0.01
        if is_recurrent(shape, layer):
            heads = shape.extra["ssm.time_step_rank"]
            yield f"{block}.ssm_a", heads, -0.1
            yield f"{block}.ssm_dt.bias", heads, 0.5
            yield f"{block}.ssm_norm.weight", shape.extra["ssm.state_size"], 1.0
            continue
        for name in ("attn_q_norm", "attn_k_norm") if shape.head_norms else ():
            yield f"{block}.{name}.weight", shape.head_size, 1.0
        for name in ("enorm", "hnorm", "shared_head_norm") if predicts(shape, layer) else ():
            yield f"{block}.nextn.{name}.weight", shape.width, 1.0
        if shape.latent:
            yield f"{block}.attn_kv_a_norm.weight", shape.latent, 1.0


def metadata(shape: Shape) -> dict[str, Any]:
    """Return all metadata keys, without the architecture prefix."""
    keys: dict[str, Any] = {
        "context_length": shape.context, "embedding_length": shape.width, "block_count": shape.layers,
        "feed_forward_length": shape.feed_forward, "attention.head_count": shape.heads,
        "vocab_size": shape.vocabulary,
    }  # fmt: skip
    if shape.architecture == "bert":
        pooling = {"pooling_type": int(PoolingType.CLS), "attention.causal": False}
        return keys | {"attention.layer_norm_epsilon": 1e-12} | pooling
    keys |= {
        "attention.head_count_kv": shape.kv_heads, "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.key_length": shape.latent + shape.rotated if shape.latent else shape.head_size,
        "attention.value_length": shape.latent or shape.head_size,
        "rope.freq_base": shape.rope_base, "rope.dimension_count": shape.rotated or shape.head_size,
    }  # fmt: skip
    if shape.experts:
        keys |= {"expert_count": shape.experts, "expert_feed_forward_length": shape.expert_feed_forward}
    return keys | shape.extra


def add(writer: GGUFWriter, key: str, value: Any) -> None:
    """Add a value with the GGUF type of its Python type; integers have 32 bits."""
    by_type = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    by_type.get(type(value), writer.add_array)(key, value)


def made_up_vocabulary(shape: Shape | Description, controls: Sequence[str] = ()) -> dict[str, Any]:
    """Return a tokenizer of the right size for single bytes or letters, with these control tokens; others are padding.

    The control tokens are those of a vocabulary of bytes.
    """
    if shape.architecture == "bert":
        letters = (f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
        known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
        special = {"bos": 2, "unknown": 1, "seperator": 3, "padding": 0, "cls": 2, "mask": 4}
        kinds = [3] * 5
        keys: dict[str, Any] = {"model": "bert", "pre": "default", "token_type_count": 2}
    else:
        others = [256 + place for place in range(256 - len(PLAIN_BYTES))]
        known = ["<end>", *controls, *map(chr, (*sorted(PLAIN_BYTES), *others)), "Ġt", "ĊĊ"]
        special = {"eos": 0}
        kinds = [3] * (1 + len(controls))
        keys = {"model": "gpt2", "pre": "llama-bpe", "merges": ["Ġ t"], "add_bos_token": False}
    keys["tokens"] = known + [f"filling{number}" for number in range(shape.vocabulary - len(known))]
    keys["token_type"] = kinds + [1] * (shape.vocabulary - len(kinds))
    keys |= {f"{name}_token_id": number for name, number in special.items()}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def copied_vocabulary(path: Path) -> dict[str, Any]:
    """Return the tokenizer metadata of another file."""
    fields = GGUFReader(path).fields
    return {key: found.contents() for key, found in fields.items() if key.startswith("tokenizer.")}


def description(shape: Shape) -> Description:
    """Return all that a file of this shape contains."""
    contents = (metadata(shape), [*matrices(shape)], [*vectors(shape)])
    return Description(shape.architecture, shape.layers, shape.vocabulary, shape.tied, *contents)


def finish(writer: GGUFWriter) -> None:
    """Write what a writer has been given, and close its file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(path: Path, name: str, mixture: str, vocabulary: Path | None = None) -> Path:
    """Write a file of the shape `name` to `path`, and return `path`."""
    shape = CURRENT[name]() if name in CURRENT else SHAPES[name]
    tokens = copied_vocabulary(vocabulary) if vocabulary else made_up_vocabulary(shape)
    return write_shape(path, shape, name, mixture, tokens)


def write_shape(path: Path, shape: Shape | Description, name: str, mixture: str, vocabulary: dict[str, Any]) -> Path:
    """Write a file of a shape with the metadata of a tokenizer to `path`, and return `path`."""
    if isinstance(shape, Shape):
        shape = description(shape)
    random = np.random.default_rng(7)
    writer = GGUFWriter(path, shape.architecture)
    writer.add_name(f"random {name}")
    writer.add_quantization_version(2)
    writer.add_file_type(TYPES[mixture][0])
    for key, value in shape.metadata.items():
        add(writer, f"{shape.architecture}.{key}", value)
    for key, value in vocabulary.items():
        add(writer, key, value)
    for tensor, length, value in shape.vectors:
        writer.add_tensor(tensor, np.full(length, value, dtype=np.float32))
    for tensor, sizes in shape.matrices:
        kind = kind_of(tensor, sizes[-1], shape.layers, mixture, shape.tied)
        writer.add_tensor(f"{tensor}.weight", random_blocks(kind, sizes, random), raw_dtype=kind)
    finish(writer)
    return path


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(ALL)}")
    parser.add_argument("--type", choices=TYPES, default="q4_k_m")
    parser.add_argument("--vocabulary", type=Path, help="a GGUF file with as many tokens")
    options = parser.parse_args()
    unknown = [name for name in options.shapes if name not in ALL]
    if unknown:
        parser.error(f"no shape is called {unknown[0]}; there are {', '.join(ALL)}")
    for name in options.shapes or ALL:
        print(write(options.folder / f"{name}-{options.type}.gguf", name, options.type, options.vocabulary), flush=True)


if __name__ == "__main__":
    main()
