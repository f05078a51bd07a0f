"""Where a picture comes from: bytes, a path, a data URL, an address on the web, or an image in memory."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from llamacpu.arguments import described
from llamacpu.errors import PictureError
from llamacpu.pictures.in_memory import file_of_image, is_image_in_memory
from llamacpu.pictures.picture import Picture, PictureLimits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["PictureAccess", "PictureSource", "check_media_type", "from_base64", "read_picture"]

PictureSource: TypeAlias = (
    "Picture | bytes | bytearray | memoryview | os.PathLike[str] | str | Image | NDArray[np.uint8]"
)
"""A picture, the bytes of its file, a path, a text (a data URL, a path or an address), an image of Pillow's, or an
array uint8[height, width, 3]."""


@dataclass(frozen=True)
class PictureAccess:
    """What texts in messages may name, besides data URLs.

    Bytes, `Path`s and images in memory, which no client can send, are always read.

    files      paths and file: URLs of this machine
    addresses  http: and https: URLs; those of this machine and its network are refused in any case
    """

    files: bool = False
    addresses: bool = False


def read_picture(source: object, access: PictureAccess | None = None, limits: PictureLimits | None = None) -> Picture:
    """Open a picture.

    Raises PictureError if it is not a picture that can be read, is too large, or is named in a way that `access` does
    not allow; TypeError for anything that cannot be a picture; ImportError without Pillow.
    """
    access, limits = access or PictureAccess(), limits or PictureLimits()
    if isinstance(source, Picture):
        return source
    if is_image_in_memory(source):
        return Picture(file_of_image(source, limits), limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Picture(bytes(source), limits)
    if isinstance(source, os.PathLike):
        return Picture(_file(Path(source), limits), limits, Path(source).name)
    if not isinstance(source, str):
        raise TypeError(
            f"a picture is {described(source)}; expected bytes, a path, a data URL, an address, or an image of Pillow's"
        )
    if not source.strip():
        raise PictureError("a picture's address is empty; expected a data URL (data:image/jpeg;base64,...)")
    scheme = source[:8].partition(":")[0].lower() if ":" in source[:8] else ""
    if scheme == "data":
        return Picture(_data(source, limits), limits)
    if scheme in ("http", "https"):
        if not access.addresses:
            raise PictureError(
                f"pictures at addresses ({_short(source)}) are not allowed here; send a data URL, or allow addresses "
                "(serve --image-addresses)"
            )
        from llamacpu.pictures.address import fetch

        return Picture(fetch(source, limits), limits, _short(source))
    if "://" in source[:20] and scheme != "file":
        raise PictureError(f"{_short(source)} is no address that is read; expected data:, http:, https: or file:")
    if not access.files:
        raise PictureError(
            f"pictures in files ({_short(source)}) are not allowed here; send a data URL (data:image/jpeg;base64,...), "
            "or allow files (serve --image-files)"
        )
    path = Path(url2pathname(urlsplit(source).path)) if scheme == "file" else Path(source)
    return Picture(_file(path, limits), limits, path.name)


def from_base64(text: str, limits: PictureLimits | None = None) -> Picture:
    """A picture from its file in base64, without the head of a data URL. Raises PictureError."""
    limits = limits or PictureLimits()
    return Picture(_decoded(text, limits), limits)


def check_media_type(name: str) -> None:
    """Raise PictureError for the media type of something else; none, or that of any bytes, may be a picture."""
    if "/" in name and name.lower() != "application/octet-stream" and not name.lower().startswith("image/"):
        raise PictureError(f"a picture has the media type {_short(name)}; expected image/png, image/jpeg, ...")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _data(url: str, limits: PictureLimits) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise PictureError(f"a picture's data URL ({_short(url)}) has no comma; expected data:image/png;base64,...")
    check_media_type(unquote_to_bytes(head[5:].partition(";")[0]).decode("latin-1"))
    if head.lower().endswith(";base64"):
        return _decoded(body, limits)
    limits.check_bytes(len(body) // 3)
    return unquote_to_bytes(body)


def _decoded(text: str, limits: PictureLimits) -> bytes:
    limits.check_bytes(len(text) * 3 // 4 - 2)
    if "%" in text:
        text = unquote_to_bytes(text).decode("latin-1")
    if not text.isascii() or any(character.isspace() for character in text):
        text = "".join(text.split())
    if "-" in text or "_" in text:
        text = text.translate({ord("-"): "+", ord("_"): "/"})
    text = text.rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError(f"a picture is not valid base64 ({error}); expected the bytes of its file") from None


def _file(path: Path, limits: PictureLimits) -> bytes:
    try:
        # A pipe without a writer would block the opening.
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError(f"{path} is not a file; expected a picture")
        with path.open("rb") as file:
            limits.check_bytes(os.fstat(file.fileno()).st_size)
            return file.read(limits.bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, PictureError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError(f"cannot read the picture {path}: {reason}") from None
