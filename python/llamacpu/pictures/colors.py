"""Any kind of pixels to red, green and blue of eight bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from llamacpu.pictures.pillow import image_module

__all__ = ["as_rgb"]


def as_rgb(image: Any) -> Any:
    """The image in mode RGB; what is transparent is put on white, as transformers' processors do.

    Gray values of 16 bits are scaled (Pillow would cut them off at 255), floating-point ones taken to lie between 0
    and 1, or between 0 and 255 if one of them is above 1.
    """
    module = image_module()
    if image.mode.startswith("I") or image.mode == "F":
        return module.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = module.new("RGBA", image.size, (255, 255, 255, 255))
        return module.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: Any) -> Any:
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1e30, neginf=0.0)
        scaled = values * 255 if values.size == 0 or values.max() <= 1 else values
    else:
        scaled = values.astype(np.float64)
        if values.dtype.itemsize == 2 or values.max(initial=0) > 255:
            scaled = scaled * (255 / 65535)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
