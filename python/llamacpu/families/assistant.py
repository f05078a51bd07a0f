"""Gemma 4's assistant: a drafter whose layers see the keys and values of the model, and have none of their own.

It takes pairs of the embedding of a token and the model's state before it, after the final norm, and makes the state of
its next pair itself. All tokens of a proposal have the position of the first one.
"""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.gemma4 import head_sizes
from llamacpu.families.limits import MAX_LAYERS, MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["assistant", "assistant_names", "lent_layers"]

_NAMES = {"nextn.pre_projection.weight": "fc.weight"}
# An index of the vocabulary by which E2B's and E4B's assistants skip most of it; all logits are computed here.
_INDEX = ("masked_embd_centroids", "masked_embd_ordering")


def assistant(file: GGUFFile, name: str) -> Config:
    """The sizes of its own layers; which layers of a model they read is found by `lent_layers`, not set here."""
    metadata = file.metadata
    fields: dict[str, Any] = parts.common(file, name)
    layers, window = fields["layers"], parts.window(file, name)
    key = f"{name}.attention.shared_kv_layers"
    shared = metadata.integer(key, layers, minimum=0, maximum=MAX_LAYERS)
    if shared != layers:
        raise ModelError(f"{key} is {shared}; expected all of the {layers} layers, which have no keys of their own")
    width = metadata.integer(f"{name}.embedding_length_out", minimum=1, maximum=MAX_WIDTH // 2)
    local = [window > 0 and near for near in parts.local_layers(file, name, layers, 0)]
    fields |= head_sizes(file, name, fields, local)
    return Config(
        **fields
        | parts.gemma(fields)
        | {
            "input": "rows",
            "states_width": 2 * width,
            "next_width": width,
            "lent_layers": list(range(layers)),
            "norms": "both",
            "query_key_norm": ["head"] * layers,
            "window": [window * near for near in local],
            "rotation": ["local" if near else "global" for near in local],
            "attention_scale": fields["attention_scale"] or 1.0,
            "layer_scale": [parts.has(file, f"blk.{layer}.layer_output_scale.weight") for layer in range(layers)],
        }
    )


def assistant_names(file: GGUFFile) -> dict[str, str]:
    """The tensors that are used, name in the file to name here."""
    names = (tensor.name for tensor in file.tensors)
    return {name: _NAMES.get(name, name) for name in names if not name.startswith(_INDEX)}


def lent_layers(own: Config, model: Config) -> list[int]:
    """For each layer of the drafter that of the model whose keys and values it reads: the last with as much in sight.

    Raises ModelError for a model that has no such keys and values.
    """
    if model.architecture != "gemma4":
        raise ModelError(f"it reads keys and values of Gemma 4, and the model is {model.architecture!r:.60}")
    found = []
    for layer, window in enumerate(own.window):
        kind = "a window" if window else "no window"
        at = next((at for at in reversed(range(model.layers)) if bool(model.window[at]) == bool(window)), None)
        if at is None:
            raise ModelError(f"its layer {layer} has {kind}, but none of the model's layers has")
        source = model.kv_source[at]
        sizes, theirs = _sizes(own, layer), _sizes(model, source)
        if sizes != theirs:
            raise ModelError(
                f"its layer {layer} reads {sizes[0]} key and value heads of {sizes[1]} and {sizes[2]} elements, and "
                f"those of the model's layer {source} are {theirs[0]} of {theirs[1]} and {theirs[2]}"
            )
        if window > model.window[source]:
            raise ModelError(
                f"its layer {layer} sees {window} tokens, but the model's layer {source} keeps {model.window[source]}"
            )
        found.append(source)
    return found


def _sizes(config: Config, layer: int) -> tuple[int, int, int]:
    return config.kv_heads[layer], config.key_sizes[layer], config.value_sizes[layer]
