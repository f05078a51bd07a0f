"""What the blocks of the NumPy reference share: switches, tensors of the file, norms, matrices and rotations."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from reference_functions import Array


class ReferenceWeights:
    """One model file and its configuration."""

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        self.reader = gguf.GGUFReader(Path(path))
        self.config = config
        self._tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self._loaded: dict[str, Array | None] = {}
        self._disturbance = 0.0

    def setting(self, name: str, default: Any = 0, layer: int | None = None) -> Any:
        """A switch; with a layer, that layer's entry of it."""
        if layer is None:
            return self.config.get(name, default)
        return self.config[name][layer] if self.config.get(name) else default

    def disturb(self, size: float) -> None:
        """Multiplies every weight by a random number of this distance from 1, from now on."""
        self._disturbance = size
        self._loaded.clear()

    def weight(self, name: str) -> Array | None:
        """The tensor as float64 in NumPy's order (rows first), or None if the file has none of this name."""
        if name not in self._loaded:
            tensor = self._tensors.get(name)
            self._loaded[name] = None
            if tensor is not None:
                shape = tuple(int(size) for size in reversed(tensor.shape))
                table = tensor.tensor_type == gguf.GGMLQuantizationType.I32
                data = tensor.data if table else dequantize(tensor.data, tensor.tensor_type)
                loaded = data.astype(np.float64).reshape(shape)
                if self._disturbance and not table:
                    random = np.random.default_rng(zlib.crc32(name.encode()))
                    loaded *= 1 + self._disturbance * random.standard_normal(shape)
                self._loaded[name] = loaded
        return self._loaded[name]

    def matrix(self, name: str) -> Array:
        """A tensor that the file must have."""
        weight = self.weight(name)
        assert weight is not None, f"the file lacks {name}"
        return weight

    def norm(self, x: Array, name: str | None, weight: Array | None = None, *, epsilon: float = 0.0) -> Array:
        """Normalizes the last axis, with the weights of that name, with these, or without any."""
        layer = self.setting("norm", "rms") == "layer"
        centred = x - x.mean(axis=-1, keepdims=True) if layer else x
        y = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + (epsilon or self.setting("norm_epsilon")))
        if name is None or not self.setting("norm_weights", True):
            return y if weight is None else y * weight
        bias = self.weight(f"{name}.bias") if layer else None
        y = y * self.matrix(f"{name}.weight")
        return y if bias is None else y + bias

    def linear(self, x: Array, name: str) -> Array:
        """A matrix and its bias, if it has one."""
        y = x @ self.matrix(f"{name}.weight").T
        bias = self.weight(f"{name}.bias")
        return y if bias is None else y + bias

    def rotation(self, layer: int, positions: NDArray[np.integer[Any]], context: int) -> tuple[Array, Array]:
        """Cosine and sine of every pair of a head at every position: float64[positions, pairs], magnitude included."""
        kind = self.setting("rotation", "global", layer)
        size = 0 if kind == "none" else self.setting("rope_size")
        if kind == "local":
            size = self.setting("rope_local_size") or size
        base = self.setting("rope_base", 10000.0)
        if kind == "local":
            base = self.setting("rope_local_base") or base
        frequency = base ** (-2.0 * np.arange(size // 2) / max(size, 1))
        magnitude = 1.0
        if kind == "global":
            frequency, magnitude = self._scaled(frequency, base, size, context)
        angle = positions[:, None] * frequency
        return np.cos(angle) * magnitude, np.sin(angle) * magnitude

    def _scaled(self, frequency: Array, base: float, size: int, context: int) -> tuple[Array, float]:
        """Frequencies and magnitude of the global rotation."""
        kind, factor = self.setting("rope_scaling", "none"), self.setting("rope_factor", 1.0)
        long = context > self.setting("rope_original_context")
        divisors = self.weight("rope_freqs.weight")
        if kind == "longrope" and divisors is None:
            divisors = self.matrix(f"rope_factors_{'long' if long else 'short'}.weight")
        if divisors is not None:
            frequency = frequency / divisors
        if kind == "linear":
            return frequency / factor, 1.0
        if kind == "longrope":
            return frequency, self.setting("yarn_attn_factor", 1.0)
        return self._yarn(frequency, base, size, factor) if kind == "yarn" else (frequency, 1.0)

    def _yarn(self, frequency: Array, base: float, size: int, factor: float) -> tuple[Array, float]:
        """Slow pairs are interpolated by the factor, fast ones left alone, those between blended."""
        original = self.setting("rope_original_context")

        def pair_of(turns: float) -> float:
            """The pair that makes this many turns within the original context."""
            return size * math.log(original / (turns * 2 * np.pi)) / (2 * math.log(base))

        first, last = (
            pair_of(self.setting(f"yarn_beta_{end}", turns)) for end, turns in (("fast", 32.0), ("slow", 1.0))
        )
        if self.setting("yarn_truncate", True):
            first, last = np.floor(first), np.ceil(last)
        first, last = max(0.0, first), min(size - 1.0, last)
        kept = 1 - np.clip((np.arange(size // 2) - first) / max(0.001, last - first), 0, 1)
        extrapolated = self.setting("yarn_ext_factor", 0.0)
        kept *= extrapolated
        blended = frequency * kept + frequency / factor * (1 - kept)
        magnitude = self.setting("yarn_attn_factor", 1.0)
        if extrapolated:
            multiplier = self.setting("yarn_log_multiplier", 0.0)
            magnitude *= (1 + 0.1 * math.log(factor)) / (1 + 0.1 * multiplier * math.log(factor))
        return blended, magnitude
