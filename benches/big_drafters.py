"""Write drafters of random weights for a model file, with the sizes that published drafters have beside theirs.

    python benches/big_drafters.py MODEL.gguf FOLDER [--type q4_k_m]

MODEL may be one of those that benches/big_models.py writes. EAGLE-3: one layer like those of the model and half of its
vocabulary, at most 32,000 tokens; DFlash: five layers, blocks of 16; for Gemma 4, an assistant of four layers. What
they propose is right only by chance: they serve to measure what proposals cost (benches/drafting.py --only drafter,
llamacpu bench --draft-tokens).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter

from big_models import add, copied_vocabulary, finish
from random_weights import TYPES, kind_of, random_blocks

MOST_ROWS = 32_000
KINDS = ("eagle3", "dflash")
Sizes = tuple[str, int, int]


def sizes_of(model: Path) -> dict[str, int]:
    """Return what a drafter has in common with the model."""
    fields = GGUFReader(model).fields
    name = fields["general.architecture"].contents()

    def number(key: str, default: int = 0) -> int:
        found = fields.get(f"{name}.{key}")
        value = default if found is None else found.contents()
        return max(value) if isinstance(value, list) else int(value)

    width, heads = number("embedding_length"), number("attention.head_count")
    return {
        "width": width,
        "layers": number("block_count"),
        "context": number("context_length"),
        "inner": number("feed_forward_length") or 4 * width,
        "heads": heads,
        "shared": number("attention.head_count_kv", heads),
        "size": number("attention.key_length", width // heads),
        "tokens": len(fields["tokenizer.ggml.tokens"].data),
    }


def matrices(kind: str, sizes: dict[str, int], layers: int, rows: int) -> Iterator[Sizes]:
    """Yield name, rows and columns of every matrix."""
    width, inner, size = sizes["width"], sizes["inner"], sizes["size"]
    columns = 2 * width if kind == "eagle3" else width
    yield "fc", width, 3 * width
    if kind == "eagle3":
        yield "output", rows, width
    for layer in range(layers):
        yield f"blk.{layer}.attn_q", sizes["heads"] * size, columns
        yield f"blk.{layer}.attn_k", sizes["shared"] * size, columns
        yield f"blk.{layer}.attn_v", sizes["shared"] * size, columns
        yield f"blk.{layer}.attn_output", width, sizes["heads"] * size
        yield f"blk.{layer}.ffn_gate", inner, width
        yield f"blk.{layer}.ffn_up", inner, width
        yield f"blk.{layer}.ffn_down", width, inner


def norms(kind: str, sizes: dict[str, int], layers: int) -> Iterator[tuple[str, int]]:
    """Yield name and length of every norm."""
    width = sizes["width"]
    yield "output_norm", width
    if kind == "dflash":
        yield "enc.output_norm", width
    for layer in range(layers):
        yield f"blk.{layer}.attn_norm", width
        yield f"blk.{layer}.ffn_norm", width
        if kind == "eagle3":
            yield f"blk.{layer}.attn_norm_2", width
        else:
            yield f"blk.{layer}.attn_q_norm", sizes["size"]
            yield f"blk.{layer}.attn_k_norm", sizes["size"]


def write(path: Path, model: Path, kind: str, mixture: str) -> Path:
    """Write a drafter for the model to `path`, and return `path`."""
    sizes, layers = sizes_of(model), 1 if kind == "eagle3" else 5
    rows = min(sizes["tokens"] // 2, MOST_ROWS)
    random = np.random.default_rng(7)
    writer = GGUFWriter(path, kind)
    writer.add_quantization_version(2)
    writer.add_file_type(TYPES[mixture][0])
    last = sizes["layers"]
    keys: dict[str, Any] = {
        "block_count": layers, "context_length": sizes["context"], "embedding_length": sizes["width"],
        "feed_forward_length": sizes["inner"], "attention.head_count": sizes["heads"],
        "attention.head_count_kv": sizes["shared"], "attention.key_length": sizes["size"],
        "attention.value_length": sizes["size"], "rope.dimension_count": sizes["size"],
        "attention.layer_norm_rms_epsilon": 1e-5, "target_layers": [1, max(last // 2, 1), max(last - 1, 1)],
    }  # fmt: skip
    keys |= {"target_hidden_size": sizes["width"]} if kind == "eagle3" else {"block_size": 16}
    for key, value in keys.items():
        add(writer, f"{kind}.{key}", value)
    for key, value in copied_vocabulary(model).items():
        add(writer, key, value)
    if kind == "dflash":
        writer.add_uint32("tokenizer.ggml.mask_token_id", 0)
    for name, length in norms(kind, sizes, layers):
        writer.add_tensor(f"{name}.weight", np.ones(length, np.float32))
    for name, height, columns in matrices(kind, sizes, layers, rows):
        stored = kind_of(name, columns, layers, mixture, tied=False)
        writer.add_tensor(f"{name}.weight", random_blocks(stored, (height, columns), random), raw_dtype=stored)
    if kind == "eagle3":
        writer.add_tensor("d2t", np.arange(rows, dtype=np.int64))
    finish(writer)
    return path


def write_assistant(path: Path, model: Path, mixture: str) -> Path:
    """Write an assistant for a Gemma 4, whose last layers of both kinds it reads, to `path`, and return `path`."""
    fields, name, layers, width = GGUFReader(model).fields, "gemma4-assistant", 4, 1024

    def value(key: str, default: Any = None) -> Any:
        found = fields.get(f"gemma4.{key}")
        return default if found is None else found.contents()

    pattern, backbone = value("attention.sliding_window_pattern"), value("embedding_length")
    shared = value("attention.head_count_kv", 1)
    kv_heads = shared if isinstance(shared, list) else [shared] * len(pattern)
    own = [kv_heads[len(pattern) - 1 - pattern[::-1].index(near)] for near in (True, True, True, False)]
    heads = 2 * max(own)
    sizes = [value(f"attention.key_length{end}") for end in ("_swa", "_swa", "_swa", "")]
    random = np.random.default_rng(7)
    writer = GGUFWriter(path, name)
    writer.add_quantization_version(2)
    writer.add_file_type(TYPES[mixture][0])
    keys: dict[str, Any] = {
        "block_count": layers, "nextn_predict_layers": layers, "embedding_length": width,
        "feed_forward_length": 4 * width, "embedding_length_out": backbone,
        "attention.head_count": heads, "attention.head_count_kv": own,
        "attention.shared_kv_layers": layers, "attention.sliding_window_pattern": [True, True, True, False],
    }  # fmt: skip
    same = (
        "context_length", "attention.key_length", "attention.value_length", "attention.key_length_swa",
        "attention.value_length_swa", "attention.sliding_window", "attention.layer_norm_rms_epsilon", "rope.freq_base",
        "rope.freq_base_swa", "rope.dimension_count", "rope.dimension_count_swa",
    )  # fmt: skip
    keys |= {key: value(key) for key in same if value(key) is not None}
    for key, setting in keys.items():
        add(writer, f"{name}.{key}", setting)
    for key, setting in copied_vocabulary(model).items():
        add(writer, key, setting)
    vectors = {"output_norm": width}
    tokens = len(fields["tokenizer.ggml.tokens"].data)
    parts: list[Sizes] = [
        ("token_embd", tokens, width), ("nextn.pre_projection", width, 2 * backbone),
        ("nextn.post_projection", backbone, width),
    ]  # fmt: skip
    for layer, size in enumerate(sizes):
        start = f"blk.{layer}."
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        vectors |= {f"{start}{norm}": width for norm in norms}
        vectors |= {f"{start}attn_q_norm": size, f"{start}layer_output_scale": 1}
        parts += [
            (f"{start}attn_q", heads * size, width), (f"{start}attn_output", width, heads * size),
            (f"{start}ffn_gate", 4 * width, width), (f"{start}ffn_up", 4 * width, width),
            (f"{start}ffn_down", width, 4 * width),
        ]  # fmt: skip
    for vector, length in vectors.items():
        writer.add_tensor(f"{vector}.weight", np.ones(length, np.float32))
    writer.add_tensor("rope_freqs.weight", np.ones(sizes[-1] // 2, np.float32))
    for part, height, columns in parts:
        stored = kind_of(part, columns, layers, mixture, tied=True)
        writer.add_tensor(f"{part}.weight", random_blocks(stored, (height, columns), random), raw_dtype=stored)
    finish(writer)
    return path


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--type", choices=TYPES, default="q4_k_m")
    options = parser.parse_args()
    for kind in KINDS:
        path = options.folder / f"{options.model.stem}-{kind}-{options.type}.gguf"
        print(write(path, options.model, kind, options.type), flush=True)
    if GGUFReader(options.model).fields["general.architecture"].contents() == "gemma4":
        path = options.folder / f"{options.model.stem}-assistant-{options.type}.gguf"
        print(write_assistant(path, options.model, options.type), flush=True)


if __name__ == "__main__":
    main()
