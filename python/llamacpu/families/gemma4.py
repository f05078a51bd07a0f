"""Gemma 4 (Google, 2026), dense, with experts, and with inputs of layers: heads of two sizes, shared keys."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_HEAD_SIZE, MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["gemma4", "head_sizes"]


def gemma4(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture; norms have final weights here, unlike those of Gemma 1 to 3."""
    metadata = file.metadata
    fields = parts.common(file, name)
    layers, window = fields["layers"], parts.window(file, name)
    local = [window > 0 and near for near in parts.local_layers(file, name, layers, 6)]
    fields |= head_sizes(file, name, fields, local)
    fields |= _shared(file, name, fields, local)
    own = [source == layer for layer, source in enumerate(fields["kv_source"])]
    separate = [any(parts.has(file, f"blk.{at}.attn_{part}.weight") for part in ("v", "qkv")) for at in range(layers)]
    return Config(
        **fields
        | parts.gemma(fields)
        | {
            "norms": "both",
            "query_key_norm": ["head"] * layers,
            "value_norm": True,
            "keys_as_values": [mine and not apart for mine, apart in zip(own, separate, strict=True)],
            "window": [window * near for near in local],
            "rotation": ["local" if near else "global" for near in local],
            "attention_scale": fields["attention_scale"] or 1.0,
            "logit_soft_cap": metadata.number(f"{name}.final_logit_softcapping", 0.0, minimum=0),
            "layer_scale": [parts.has(file, f"blk.{layer}.layer_output_scale.weight") for layer in range(layers)],
            "per_layer_input": metadata.integer(
                f"{name}.embedding_length_per_layer_input", 0, maximum=MAX_WIDTH // layers
            ),
            "experts_beside": fields["experts"] > 0,
        }
    )


def head_sizes(file: GGUFFile, name: str, fields: dict[str, Any], local: list[bool]) -> dict[str, Any]:
    """Sizes of heads and rotations: layers with a window have their own."""
    metadata = file.metadata
    near = {
        part: metadata.integer(
            f"{name}.attention.{part}_length_swa", fields[f"{part}_size"], minimum=1, maximum=MAX_HEAD_SIZE
        )
        for part in ("key", "value")
    }
    turned = metadata.integer(f"{name}.rope.dimension_count_swa", near["key"], minimum=0, maximum=near["key"])
    for what, size in (("attention.key_length_swa", near["key"]), ("rope.dimension_count_swa", turned)):
        if size % 2:
            raise ModelError(f"{name}.{what} is {size}; expected an even number: elements turn in pairs")
    return {
        "key_sizes": [near["key"] if windowed else fields["key_size"] for windowed in local],
        "value_sizes": [near["value"] if windowed else fields["value_size"] for windowed in local],
        "rope_local_size": turned,
        "rope_local_base": metadata.number(f"{name}.rope.freq_base_swa", 0.0, minimum=0),
    }


def _shared(file: GGUFFile, name: str, fields: dict[str, Any], local: list[bool]) -> dict[str, Any]:
    """The last layers read the keys and values of the last layer before them that has as much in sight as they have."""
    key, layers = f"{name}.attention.shared_kv_layers", fields["layers"]
    first = layers - file.metadata.integer(key, 0, minimum=0, maximum=layers - 1)
    sources = list(range(first))
    for layer in range(first, layers):
        source = next((at for at in reversed(range(first)) if local[at] == local[layer]), None)
        if source is None:
            kind = "a window" if local[layer] else "no window"
            raise ModelError(f"{key}: layer {layer} has {kind}, but none of the {first} layers with their own keys has")
        sources.append(source)
    kv_heads: list[int] = fields["kv_heads"]
    tensors = [f"blk.{layer}.attn_{part}." for layer in range(first, layers) for part in ("k", "v", "k_norm")]
    return {
        "kv_source": sources,
        "kv_heads": [kv_heads[source] for source in sources],
        "ignored_tensors": [*fields.get("ignored_tensors", []), *tensors],
    }
