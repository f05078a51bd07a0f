"""The processors of transformers, as they are published with the models: pixels as gray levels, tiles and sizes.

`python tests/transformers_pictures.py [KIND ...]` (with torch and torchvision) writes golden/pictures.json, which holds
a few of the pixels of each generated picture, for all kinds or some.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from picture_cases import SETTINGS, SIZES, gray_levels, made, places

STORED = Path(__file__).parent / "golden" / "pictures.json"


def shown(kind: str, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Gray levels float64[tiles, height, width, 3] of a generated picture, and rows and columns of its grid."""
    pixels, grid = _PROCESSORS[kind](kind, made(size))
    settings = SETTINGS[kind]
    mean, std = (np.array(settings.get(name, clip)) for name, clip in (("mean", _MEAN), ("std", _STD)))
    levels = gray_levels(np.moveaxis(pixels, -3, -1), tuple(mean), tuple(std))
    return levels, grid


_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _run(name: str, module: str, image: np.ndarray, **options: Any) -> Any:
    import importlib

    from PIL import Image

    processor = getattr(importlib.import_module(f"transformers.models.{module}"), name)(**options)
    return processor(Image.fromarray(image), return_tensors="np" if name.endswith("Pil") else "pt")


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _llama4(kind: str, image: np.ndarray) -> Any:
    found = _run("Llama4ImageProcessor", "llama4.image_processing_llama4", image, size=_square(336))
    rows, columns = (int(value) for value in found["aspect_ratios"][0])
    return found["pixel_values"].float().numpy(), (rows, columns)


def _mllama(kind: str, image: np.ndarray) -> Any:
    found = _run(
        "MllamaImageProcessorPil", "mllama.image_processing_pil_mllama", image, size=_square(560), max_image_tiles=4,
        image_mean=_MEAN, image_std=_STD,
    )  # fmt: skip
    number = int(found["aspect_ratio_ids"][0][0])
    grid = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)][number - 1]
    return found["pixel_values"][0][0][: grid[0] * grid[1]], grid


def _muse(kind: str, image: np.ndarray) -> Any:
    found = _run("MuseGlimmerImageProcessor", "muse_glimmer.image_processing_muse_glimmer", image)
    _, rows, columns = (int(value) for value in found["image_grid_thw"][0])
    patches = found["pixel_values"].numpy().reshape(rows, columns, 2, 3, 14, 14)[:, :, 0]
    return patches.transpose(2, 0, 3, 1, 4).reshape(1, 3, rows * 14, columns * 14), (1, 1)


def _gemma3(kind: str, image: np.ndarray) -> Any:
    crops = {
        "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    } if kind == "gemma3-crops" else {}  # fmt: skip
    size = _square(SETTINGS[kind]["image_size"])
    found = _run("Gemma3ImageProcessorPil", "gemma3.image_processing_pil_gemma3", image, size=size, **crops)
    return found["pixel_values"], (1, 1)


def _idefics3(kind: str, image: np.ndarray) -> Any:
    side, longest = SETTINGS[kind]["image_size"], SETTINGS[kind]["longest_edge"]
    found = _run(
        "Idefics3ImageProcessorPil", "idefics3.image_processing_pil_idefics3", image, size={"longest_edge": longest},
        max_image_size={"longest_edge": side}, return_row_col_info=True,
    )  # fmt: skip
    return found["pixel_values"][0], (int(found["rows"][0][0]) or 1, int(found["cols"][0][0]) or 1)


def _llava(kind: str, image: np.ndarray) -> Any:
    options: dict[str, Any] = {"size": {"shortest_edge": 336}, "crop_size": _square(336)}
    if kind == "llava":
        found = _run("LlavaImageProcessorPil", "llava.image_processing_pil_llava", image, **options)
        return found["pixel_values"], (1, 1)
    found = _run("LlavaNextImageProcessorPil", "llava_next.image_processing_pil_llava_next", image, **options)
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(image.shape[:2], [list(grid) for grid in SETTINGS[kind]["grids"]])
    return found["pixel_values"][0], (height // 336, width // 336)


def _qwen(kind: str, image: np.ndarray) -> Any:
    side, options = SETTINGS[kind]["patch_size"], {}
    if kind == "qwen3-vl":  # as its preprocessor_config.json says
        size = {"shortest_edge": 1 << 16, "longest_edge": 1 << 24}
        options = {"patch_size": side, "size": size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    found = _run("Qwen2VLImageProcessorPil", "qwen2_vl.image_processing_pil_qwen2_vl", image, **options)
    _, rows, columns = (int(value) for value in found["image_grid_thw"][0])
    patches = found["pixel_values"].reshape(rows // 2, columns // 2, 2, 2, 3, 2, side, side)[:, :, :, :, :, 0]
    return patches.transpose(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, rows * side, columns * side), (1, 1)


def _pixtral(kind: str, image: np.ndarray) -> Any:
    settings = SETTINGS[kind]
    patch = _square(settings["patch_size"] * settings.get("merge", 1))
    found = _run(
        "PixtralImageProcessorPil", "pixtral.image_processing_pil_pixtral", image, patch_size=patch,
        size={"longest_edge": settings["image_size"]},
    )  # fmt: skip
    return found["pixel_values"], (1, 1)


def _internvl(kind: str, image: np.ndarray) -> Any:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    found = _run(
        "GotOcr2ImageProcessorPil", "got_ocr2.image_processing_pil_got_ocr2", image, size=_square(448),
        crop_to_patches=True,
    )  # fmt: skip
    return found["pixel_values"], get_optimal_tiled_canvas(image.shape[:2], (448, 448), 1, 12)[::-1]


_PROCESSORS = {
    "llama4": _llama4, "mllama": _mllama, "muse-glimmer": _muse, "gemma3": _gemma3, "gemma3-crops": _gemma3,
    "idefics3": _idefics3,
    "smolvlm": _idefics3, "llava": _llava, "llava-next": _llava, "qwen2-vl": _qwen, "qwen3-vl": _qwen,
    "pixtral": _pixtral, "pixtral-merged": _pixtral, "internvl": _internvl,
}  # fmt: skip


def main() -> None:
    """Write the stored pixels."""
    before: dict[str, Any] = json.loads(STORED.read_text("utf-8"))
    stored: dict[str, Any] = {}
    for kind in SETTINGS:
        if sys.argv[1:] and kind not in sys.argv[1:]:
            stored[kind] = before[kind]
            continue
        rows = []
        for size in SIZES:
            try:
                levels, grid = shown(kind, size)
            except ValueError:  # a strip, to Qwen
                rows.append(None)
                continue
            looked = levels[places(*levels.shape[:3])]
            seen = np.clip(np.rint(looked), 0, 255).astype(np.uint8)
            rows.append([*levels.shape[:3], *grid, base64.b64encode(seen.tobytes()).decode()])
        stored[kind] = rows
    STORED.write_text(json.dumps(stored, separators=(",", ":")).replace("],[", "],\n[") + "\n", "utf-8")


if __name__ == "__main__":
    main()
