"""Vision encoders in NumPy, in float64, from the definitions of their switches; and files of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

import reference_resampler
from llamacpu.vision.config import VisionConfig
from reference_functions import gelu, silu, softmax

Array = NDArray[np.float64]


def in_tile(config: VisionConfig) -> int:
    """Rows of a tile of a fixed size."""
    return (config.image_size // config.patch_size) ** 2 + (config.class_token != "none")


def merged(config: VisionConfig) -> int:
    """Width of what enters the projector."""
    own = config.embedding_length * (1 + len(config.kept_inputs))
    return own if config.merge_order == "average" else own * config.merge**2


def tensors(config: VisionConfig, seed: int = 0, table: int = 0, inner: int = 28) -> dict[str, Any]:
    """Every tensor that the configuration asks for; `table` is the side of a table that is resampled."""
    random = np.random.default_rng(seed)
    width, found = config.embedding_length, {}

    def matrix(name: str, rows: int, columns: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = random.standard_normal((rows, columns)) / columns**0.5
        if bias:
            found[f"{name}.bias"] = random.standard_normal(rows) / 4

    def norm(name: str, size: int = width, bias: bool = config.norm == "layer") -> None:
        found[f"{name}.weight"] = 1 + random.standard_normal(size) / 8
        if bias:
            found[f"{name}.bias"] = random.standard_normal(size) / 8

    patch = config.patch_size
    found["v.patch_embd.weight"] = random.standard_normal((width, 3, patch, patch)) / (3 * patch**2) ** 0.5
    found["v.patch_embd.bias"] = random.standard_normal(width) / 4
    if config.class_token != "none":
        found["v.class_embd"] = random.standard_normal(width)
    if config.positions != "none":
        rows = in_tile(config) if config.positions == "fixed" else table * table
        found["v.position_embd.weight"] = random.standard_normal((rows, width)) / 2
    if config.first_norm:
        norm("v.pre_ln")
    if config.last_norm:
        norm(config.last_norm_name)
    if config.joint_tiles:
        found["v.position_embd.gate"] = np.array([0.4])
        for name, rows in [("pre_tile", 1), ("tile", in_tile(config)), ("post_tile", 1)]:
            shape = (config.arrangements, config.joint_tiles * rows * width)
            found[f"v.{name}_position_embd.weight"] = random.standard_normal(shape) / 2
            found[f"v.{name}_position_embd.gate"] = random.standard_normal(1)
    for layer in [*range(config.layers), *(f"global.{at}" for at in range(config.global_layers))]:
        prefix = f"v.blk.{layer}" if isinstance(layer, int) else f"v.global.blk.{layer[7:]}"
        norm(f"{prefix}.{config.attention_norm}")
        norm(f"{prefix}.{config.feed_forward_norm}")
        for part in ("attn_q", "attn_k", "attn_v", config.attention_output):
            matrix(f"{prefix}.{part}", width, width)
        if config.layer_scale:
            norm(f"{prefix}.ls1", bias=False)
            norm(f"{prefix}.ls2", bias=False)
        if config.gated:
            matrix(f"{prefix}.ffn_gate", config.feed_forward, width)
        matrix(f"{prefix}.{config.feed_forward_up}", config.feed_forward, width)
        matrix(f"{prefix}.{config.feed_forward_down}", width, config.feed_forward)
        if not isinstance(layer, int):
            found[f"{prefix}.attn_gate"] = random.standard_normal(1)
            found[f"{prefix}.ffn_gate"] = random.standard_normal(1)
    columns = merged(config)
    if config.queries:
        found |= reference_resampler.tensors(random, columns, config.output_length, config.queries)
        columns = config.output_length
    if config.projector_norm:
        norm(config.projector_norm, columns, config.projector_norm_kind == "layer")
    if config.merger:
        matrix(config.merger, width, columns, False)
        columns = width
    for layer in config.deepstack:
        norm(f"v.deepstack.{layer}.norm", merged(config), True)
        matrix(f"v.deepstack.{layer}.fc1", inner, merged(config))
        matrix(f"v.deepstack.{layer}.fc2", config.output_length, inner)
    for at, name in enumerate(config.projector):
        last = at + 1 == len(config.projector)
        rows = config.output_length if last else inner
        matrix(name, rows, columns, not (last and config.projector_transposed))
        if last and config.projector_transposed:
            found[f"{name}.weight"] = found[f"{name}.weight"].T
        columns = rows
    return {name: np.ascontiguousarray(values, np.float32) for name, values in found.items()}


def write(
    path: Path, values: dict[str, Any], metadata: dict[str, Any] | None = None, architecture: str = "clip"
) -> Path:
    """A file with these tensors, and metadata by key."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (metadata or {}).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
            add(key, value)
    for name, tensor in values.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class ReferenceEncoder:
    """The encoder of a configuration with these weights."""

    def __init__(self, config: VisionConfig, values: dict[str, Any]) -> None:
        self.config = config
        self.values = {name: values[name].astype(np.float64) for name in values}

    def linear(self, x: Array, name: str) -> Array:
        y = x @ self.values[f"{name}.weight"].T
        return y + self.values.get(f"{name}.bias", 0.0)

    def norm(self, x: Array, name: str) -> Array:
        if self.config.norm == "layer":
            x = x - x.mean(-1, keepdims=True)
        y = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.config.norm_epsilon)
        return y * self.values[f"{name}.weight"] + self.values.get(f"{name}.bias", 0.0)

    def function(self, name: str, x: Array) -> Array:
        if name == "gelu_tanh":
            return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
        return gelu(x) if name == "gelu" else silu(x) if name == "silu" else x / (1 + np.exp(-1.702 * x))

    def encode(self, pixels: Any, arrangement: int = 0) -> Array:
        """The rows of all tiles, pixels[tiles, height, width, 3]."""
        config = self.config
        if config.joint_tiles:
            empty = np.zeros((config.joint_tiles - len(pixels), *pixels.shape[1:]))
            return self.together(np.concatenate([pixels, empty]), len(pixels), arrangement)
        return np.concatenate([self.together(tile[None], 1, 0) for tile in pixels])

    def together(self, pixels: Any, given: int, arrangement: int) -> Array:
        config, width, side = self.config, self.config.embedding_length, self.config.patch_size
        tiles, height, across = len(pixels), pixels.shape[1] // side, pixels.shape[2] // side
        cut = pixels[:, : height * side, : across * side].astype(np.float64)
        cut = cut.reshape(tiles, height, side, across, side, 3).transpose(0, 1, 3, 5, 2, 4)
        kernels = self.values["v.patch_embd.weight"].reshape(width, -1)
        states = cut.reshape(tiles, height * across, -1) @ kernels.T + self.values["v.patch_embd.bias"]
        rows, columns = (grid.ravel() for grid in np.mgrid[:height, :across])
        if config.joint_tiles:
            states += self.of_tiles("pre_tile", arrangement, 1)
        rows, columns = rows + config.rope_first, columns + config.rope_first
        if config.class_token != "none":
            own = np.broadcast_to(self.values["v.class_embd"], (tiles, 1, width))
            first = config.class_token == "first"
            states = np.concatenate([own, states] if first else [states, own], axis=1)
            rows, columns = (np.insert(at, 0 if first else len(at), 0) for at in (rows, columns))
        if config.positions != "none":
            gate = self.values["v.position_embd.gate"] if config.joint_tiles else 1.0
            states = states + gate * self.positions(height, across)
        if config.joint_tiles:
            states = states + self.of_tiles("tile", arrangement, states.shape[1])
        if config.first_norm:
            states = self.norm(states, "v.pre_ln")
        count = states.shape[1]
        padding = -count % config.row_multiple
        states = np.concatenate([states, np.zeros((tiles, padding, width))], axis=1)
        real = np.zeros((tiles, count + padding), bool)
        real[:given, :count] = True
        whole = real.ravel()[:, None] | real.ravel()[None, :]
        x, kept, deep = states.reshape(-1, width), [], []
        turns = [np.pad(np.tile(at, tiles), (0, tiles * padding)) for at in (rows, columns)]
        for layer in range(config.layers):
            if layer in config.kept_inputs:
                kept.append(x)
            seen, square = whole, config.window[layer] if config.window else 0
            if square:
                block = (rows - config.rope_first) // square * 10**6 + (columns - config.rope_first) // square
                seen = block[:, None] == block[None, :]
            x = self.layer(x, f"v.blk.{layer}", seen, turns, None)
            if layer in config.deepstack:
                deep.append(self.deep(x.reshape(tiles, count, width), f"v.deepstack.{layer}", height, across))
        if config.layers in config.kept_inputs:
            kept.append(x)
        if config.last_norm:
            x = self.norm(x, config.last_norm_name)
        if config.joint_tiles:
            after = self.of_tiles("post_tile", arrangement, 1)
            x = (x.reshape(tiles, -1, width) + after).reshape(-1, width)
        for layer in range(config.global_layers):
            x = self.layer(x, f"v.global.blk.{layer}", whole, turns, f"v.global.blk.{layer}")
        inputs = np.stack(kept, -1).reshape(len(x), -1) if kept else np.zeros((len(x), 0))
        out = np.concatenate([x, inputs], 1).reshape(tiles, count + padding, -1)[:given, :count]
        return np.concatenate([self.project(out, height, across), *deep], 1)

    def deep(self, x: Array, name: str, height: int, across: int) -> Array:
        """What the states behind a layer in the middle add to the rows."""
        squares = self.squares(x, height, across)
        squares = squares.reshape(-1, merged(self.config))
        squares = squares - squares.mean(-1, keepdims=True)
        squares = squares / np.sqrt((squares**2).mean(-1, keepdims=True) + self.config.norm_epsilon)
        squares = squares * self.values[f"{name}.norm.weight"] + self.values[f"{name}.norm.bias"]
        inner = self.function(self.config.projector_activation, self.linear(squares, f"{name}.fc1"))
        return self.linear(inner, f"{name}.fc2")

    def squares(self, x: Array, height: int, across: int) -> Array:
        """The patches of each square that is merged: tiles, squares, patches, width."""
        side = self.config.merge
        grid = x.reshape(len(x), height // side, side, across // side, side, -1).transpose(0, 1, 3, 2, 4, 5)
        return grid.reshape(len(x), (height // side) * (across // side), side * side, -1)

    def of_tiles(self, name: str, arrangement: int, rows: int) -> Array:
        """The embeddings of the places of tiles, times their gate."""
        table = self.values[f"v.{name}_position_embd.weight"][arrangement]
        shaped: Array = table.reshape(self.config.joint_tiles, rows, -1) * self.values[f"v.{name}_position_embd.gate"]
        return shaped

    def positions(self, height: int, across: int) -> Array:
        """The learned positions of the rows of a tile."""
        table = self.values["v.position_embd.weight"]
        if self.config.positions == "fixed":
            return table
        side = round(len(table) ** 0.5)
        if self.config.positions == "nearest":
            rows, columns = (np.arange(count) * side // count for count in (height, across))
            return table.reshape(side, side, -1)[rows[:, None], columns].reshape(height * across, -1)
        if self.config.positions == "corners":
            lines = self.between_corners(table.reshape(side, side, -1), height)
            return self.between_corners(lines.transpose(1, 0, 2), across).transpose(1, 0, 2).reshape(-1, table.shape[1])
        square = np.pad(table.reshape(side, side, -1), ((1, 1), (1, 1), (0, 0)))

        def along(values: Array, count: int) -> Array:
            at = (np.arange(count) + 0.5) * side / count - 0.5 + 1
            low = np.clip(np.floor(at).astype(int), 0, side)
            share = (at - low)[:, None, None]
            return values[low] * (1 - share) + values[low + 1] * share

        lines = along(square, across)  # as many rows as the picture has columns
        return along(lines.transpose(1, 0, 2), height).transpose(1, 0, 2).reshape(height * across, -1)

    @staticmethod
    def between_corners(values: Array, count: int) -> Array:
        """As many values as `count`, from the first to the last."""
        at = np.linspace(0, len(values) - 1, count)
        low = np.floor(at).astype(int)
        share = (at - low)[:, None, None]
        return values[low] * (1 - share) + values[np.minimum(low + 1, len(values) - 1)] * share

    def layer(self, x: Array, prefix: str, seen: Any, turns: list[Any], gates: str | None) -> Array:
        config, heads = self.config, self.config.heads
        normed = self.norm(x, f"{prefix}.{config.attention_norm}")
        q, k, v = (
            self.linear(normed, f"{prefix}.{part}").reshape(len(x), heads, -1)
            for part in ("attn_q", "attn_k", "attn_v")
        )
        q, k = self.turned(q, turns), self.turned(k, turns)
        scores = np.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5
        weights = softmax(np.where(seen[None], scores, -np.inf))
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1)
        attended = self.linear(mixed, f"{prefix}.{config.attention_output}")
        scales: list[Any] = [1.0, 1.0]
        if config.layer_scale:
            scales = [self.values[f"{prefix}.ls{at}.weight"] for at in (1, 2)]
        x = x + attended * scales[0] * (self.values[f"{gates}.attn_gate"] if gates else 1.0)
        normed = self.norm(x, f"{prefix}.{config.feed_forward_norm}")
        up = self.linear(normed, f"{prefix}.{config.feed_forward_up}")
        if config.gated:
            inner = self.function(config.activation, self.linear(normed, f"{prefix}.ffn_gate")) * up
        else:
            inner = self.function(config.activation, up)
        out = self.linear(inner, f"{prefix}.{config.feed_forward_down}")
        return x + out * scales[1] * (self.values[f"{gates}.ffn_gate"] if gates else 1.0)

    def turned(self, x: Array, turns: list[Any]) -> Array:
        """Queries or keys, rotated by the place of their patch."""
        config, size = self.config, x.shape[2]
        if config.rotation == "none":
            return x
        first, second = turns if config.rotation == "rows_first" else turns[::-1]
        exponents = np.arange(size // 4) * 4 / size
        between = 2 / size if config.rope_between else 0.0
        angles = np.concatenate(
            [
                first[:, None] * config.rope_base**-exponents,
                second[:, None] * config.rope_base ** -(exponents + between),
            ],
            1,
        )[:, None]
        pairs = (
            x.reshape(*x.shape[:2], -1, 2) if config.rope_style == "interleaved" else np.stack(np.split(x, 2, 2), -1)
        )
        a, b = pairs[..., 0], pairs[..., 1]
        turned = np.stack([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)], -1)
        return (
            turned.reshape(x.shape)
            if config.rope_style == "interleaved"
            else np.concatenate([turned[..., 0], turned[..., 1]], 2)
        )

    def project(self, x: Array, height: int, across: int) -> Array:
        """Merges patches, and multiplies by the matrices of the projector."""
        config = self.config
        if config.queries:
            x = np.concatenate([reference_resampler.resampled(self, tile, height, across) for tile in x])
        elif not config.class_output:
            first = int(config.class_token == "first")
            x = x[:, first : first + height * across]
            grid = self.squares(x, height, across)
            if config.merge_order == "average":
                x = grid.mean(2)
            else:
                grid = grid if config.merge_order == "patches" else grid.swapaxes(2, 3)
                x = grid.reshape(*grid.shape[:2], -1)
        x = x.reshape(-1, x.shape[-1])
        if config.projector_norm:
            if config.projector_norm_kind == "layer":
                x = x - x.mean(-1, keepdims=True)
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.projector_norm_epsilon)
            bias = self.values.get(f"{config.projector_norm}.bias", 0.0)
            x = x * self.values[f"{config.projector_norm}.weight"] + bias
        if config.merger:
            x = self.linear(x, config.merger)
        for at, name in enumerate(config.projector):
            if at:
                x = self.function(config.projector_activation, x)
            last = at + 1 == len(config.projector)
            x = x @ self.values[f"{name}.weight"] if last and config.projector_transposed else self.linear(x, name)
        return x
