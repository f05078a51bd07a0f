"""Images in the chat window: small copies to show, and messages with them."""

from __future__ import annotations

import base64
import tkinter as tk
from io import BytesIO
from pathlib import Path
from typing import Any

from llamacpu.errors import PictureError
from llamacpu.pictures import Picture, read_picture

__all__ = ["KINDS", "content_of", "opened", "thumbnail"]

KINDS = [("Images", "*.png *.jpg *.jpeg *.webp *.gif *.bmp *.tif *.tiff *.avif *.heic"), ("All files", "*")]
_SIDE = 160


def opened(path: Path) -> Picture:
    """The image in a file. Raises PictureError with words for people."""
    try:
        return read_picture(path)
    except ImportError as error:
        raise PictureError(str(error)) from None


def thumbnail(root: tk.Misc, picture: Picture) -> tk.PhotoImage:
    """A small copy. Raises PictureError for a damaged file."""
    from PIL import Image

    image = Image.fromarray(picture.pixels())
    image.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    image.save(file, "PNG")
    return tk.PhotoImage(master=root, data=base64.b64encode(file.getvalue()).decode())


def content_of(text: str, pictures: list[Picture]) -> str | list[dict[str, Any]]:
    """The content of a message: its text, or parts with the images before it."""
    if not pictures:
        return text
    parts: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in pictures]
    return [*parts, {"type": "text", "text": text}]
