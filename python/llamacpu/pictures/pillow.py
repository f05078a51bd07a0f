"""Pillow, which decodes and resizes pictures: imported at first use, with a message for those who do not have it."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["FORMATS", "image_module"]

FORMATS: tuple[str, ...] = (
    "PNG",
    "JPEG",
    "MPO",
    "GIF",
    "WEBP",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "JPEG2000",
    "ICO",
    "AVIF",
    "HEIF",
    "QOI",
)
"""The formats that are read. Others stay closed: EPS, for one, would run Ghostscript."""


@functools.cache
def image_module() -> Any:
    """The module `PIL.Image`. With the package pillow-heif installed, it reads HEIC.

    Raises ImportError with what to install.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('pictures need Pillow: pip install "llamacpu[pictures]"') from None
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.init()
    return Image
