"""Generated pictures of awkward sizes, encoders' settings, and a plain resampling to compare with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SIZES = [
    (1, 1), (1, 7), (3, 1000), (1000, 3), (17, 23), (223, 224), (335, 337), (336, 336), (337, 335), (672, 336),
    (336, 672), (500, 333), (640, 480), (480, 641), (719, 1280), (1000, 1000), (1009, 1013), (1344, 336), (336, 1344),
    (99, 2001), (2001, 99), (1500, 701), (769, 1537), (1120, 560), (1121, 561), (56, 56), (28, 27), (895, 897),
    (1300, 2000), (2000, 1301),
]  # fmt: skip
"""Height and width."""
FEW = [SIZES[place] for place in (0, 2, 4, 5, 11, 17, 19, 22, 24, 26)]

HALF = (0.5, 0.5, 0.5)
GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
SETTINGS: dict[str, dict[str, Any]] = {
    "llama4": {"projector": "llama4", "image_size": 336, "patch_size": 14, "merge": 2, "mean": HALF, "std": HALF},
    "mllama": {"projector": "mllama", "image_size": 560, "patch_size": 14, "max_tiles": 4},
    "muse-glimmer": {
        "projector": "muse-glimmer", "image_size": 448, "patch_size": 14, "merge": 2, "mean": HALF, "std": HALF,
    },
    "gemma3": {"projector": "gemma3", "image_size": 896, "patch_size": 14, "mean": HALF, "std": HALF},
    "gemma3-crops": {
        "projector": "gemma3", "image_size": 224, "patch_size": 14, "mean": HALF, "std": HALF, "max_crops": 4,
    },
    "idefics3": {
        "projector": "idefics3", "image_size": 364, "patch_size": 14, "merge": 2, "longest_edge": 1456, "mean": HALF,
        "std": HALF,
    },
    "smolvlm": {
        "projector": "idefics3", "image_size": 512, "patch_size": 16, "merge": 4, "longest_edge": 2048, "mean": HALF,
        "std": HALF,
    },
    "internvl": {"projector": "internvl", "image_size": 448, "patch_size": 14, "merge": 2},
    "llava": {"projector": "mlp", "image_size": 336, "patch_size": 14},
    "llava-next": {"projector": "mlp", "image_size": 336, "patch_size": 14, "grids": GRIDS},
    "qwen2-vl": {"projector": "qwen2vl_merger", "image_size": 560, "patch_size": 14, "merge": 2},
    "qwen3-vl": {
        "projector": "qwen3vl_merger", "image_size": 768, "patch_size": 16, "merge": 2, "mean": HALF, "std": HALF,
        "max_pixels": 1 << 24,
    },
    "pixtral": {"projector": "pixtral", "image_size": 1024, "patch_size": 16},
    "pixtral-merged": {"projector": "pixtral", "image_size": 1540, "patch_size": 14, "merge": 2},
}  # fmt: skip


def made(size: tuple[int, int]) -> np.ndarray:
    """A picture of waves of every length: uint8[height, width, 3]."""
    rows, columns = np.arange(size[0], dtype=np.int64)[:, None], np.arange(size[1], dtype=np.int64)
    channels = [
        (rows * rows * 3 + columns * columns * 5) >> 9,
        (rows * 7 + columns * columns * 2) >> 6,
        (rows * columns * 11) >> 8,
    ]
    return (np.stack(channels, -1) & 255).astype(np.uint8)


def places(tiles: int, height: int, width: int, count: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where to look at tiles: the corners of the first and the last one, and points in between."""
    steps = np.arange(count)
    return steps * 7 % tiles, steps * (height - 1) // (count - 1), steps * 5 * (width - 1) // (count - 1) % width


def gray_levels(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Normalized pixels on the scale from 0 to 255 again."""
    return (np.asarray(pixels, np.float64) * np.array(std) + np.array(mean)) * 255


def resampled(pixels: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    """Resizing by its definition: along rows, rounded to eight bits, then along columns."""
    wide = _along(pixels.transpose(1, 0, 2), size[1], kind).transpose(1, 0, 2)
    return _along(wide, size[0], kind)


def _along(pixels: np.ndarray, length: int, kind: str) -> np.ndarray:
    scale = len(pixels) / length
    stretch = max(scale, 1.0)
    reach = {"bilinear": 1, "bicubic": 2, "lanczos": 3}[kind] * stretch
    found = np.empty((length, *pixels.shape[1:]))
    for place in range(length):
        center = (place + 0.5) * scale
        taps = np.arange(max(0, int(center - reach + 0.5)), min(len(pixels), int(center + reach + 0.5)))
        weights = np.array([_weight(kind, (tap + 0.5 - center) / stretch) for tap in taps])
        found[place] = np.tensordot(weights / weights.sum(), pixels[taps].astype(np.float64), 1)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _weight(kind: str, x: float) -> float:
    x = abs(x)
    if kind == "bilinear":
        return max(0.0, 1 - x)
    if kind == "lanczos":
        return _sinc(x) * _sinc(x / 3) if x < 3 else 0.0
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)
