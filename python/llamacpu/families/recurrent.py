"""Recurrent layers (gated delta networks) between those of attention, as Qwen3-Next and Qwen 3.5 have them."""

from __future__ import annotations

import numpy as np

from llamacpu.errors import ModelError
from llamacpu.families.limits import MAX_HEAD_SIZE, MAX_LAYERS, MAX_WIDTH
from llamacpu.families.parts import Fields
from llamacpu.gguf.file import GGUFFile

__all__ = ["recurrent"]

MAX_TAPS = 64
MAX_STATE = 1024
"""Elements of a head, with whose square a state grows."""


def recurrent(file: GGUFFile, name: str, fields: Fields, order: str) -> Fields:
    """The fields of the recurrent layers, and the heads of attention in the others.

    `order`: how key heads are shared by value heads, see `Config.recurrent_head_order`.
    """
    integer = file.metadata.integer
    layers = fields["layers"]
    key_heads = integer(f"{name}.ssm.group_count", minimum=1, maximum=MAX_HEAD_SIZE)
    heads = integer(f"{name}.ssm.time_step_rank", minimum=1, maximum=MAX_HEAD_SIZE)
    inner = integer(f"{name}.ssm.inner_size", minimum=1, maximum=MAX_WIDTH)
    if heads % key_heads or inner % heads or inner // heads > MAX_STATE:
        raise ModelError(
            f"{name}.ssm.time_step_rank is {heads} with {key_heads} groups ({name}.ssm.group_count) and an inner size "
            f"of {inner} ({name}.ssm.inner_size); expected a multiple of the groups, and a divisor of the inner size "
            f"that leaves heads of at most {MAX_STATE} elements"
        )
    linear = _linear_layers(file, name, layers)
    return {
        "heads": [0 if own else count for own, count in zip(linear, fields["heads"], strict=False)],
        "kv_heads": [0 if own else count for own, count in zip(linear, fields["kv_heads"], strict=False)],
        "recurrent_heads": [heads if own else 0 for own in linear],
        "recurrent_key_heads": key_heads,
        "recurrent_key_size": integer(f"{name}.ssm.state_size", minimum=1, maximum=MAX_STATE),
        "recurrent_value_size": inner // heads,
        "recurrent_head_order": order,
        "convolution_size": integer(f"{name}.ssm.conv_kernel", minimum=1, maximum=MAX_TAPS),
    }


def _linear_layers(file: GGUFFile, name: str, layers: int) -> list[bool]:
    """Which layers are recurrent: as the file lists them, or all but every n-th, as older files mean it.

    The list also has the layers that predict tokens further ahead, which come last.
    """
    key = f"{name}.attention.recurrent_layers"
    listed = file.metadata.get(key)
    if listed is None:
        period = file.metadata.integer(f"{name}.full_attention_interval", 4, minimum=1, maximum=MAX_LAYERS)
        return [(layer + 1) % period != 0 for layer in range(layers)]
    count = file.metadata.integer(f"{name}.block_count", minimum=1, maximum=MAX_LAYERS)
    if isinstance(listed, (bool, int)):
        return [bool(listed)] * layers
    if not isinstance(listed, np.ndarray) or len(listed) != count or listed.dtype.kind not in "biu":
        raise ModelError(f"{key} is {listed!r:.60}; expected true or false for each of {count} layers")
    return [bool(flag) for flag in listed[:layers]]
