"""What the first bytes of an image file say before Pillow decodes it, or where Pillow does not say it."""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["icon_size", "stored_size", "what_is_missing"]

_PNG = b"\x89PNG\r\n\x1a\n"
_WIDTH, _HEIGHT = 0x0100, 0x0101
_HEIC = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))


def stored_size(image: Any) -> tuple[int, int]:
    """Width and height of the pixels of an opened image as they are stored, before it is turned upright."""
    if image.format == "TIFF":
        # Whether Pillow's size is that before or after turning depends on its version.
        return image.tag_v2.get(_WIDTH, image.width), image.tag_v2.get(_HEIGHT, image.height)
    return image.width, image.height


def icon_size(data: bytes) -> tuple[int, int]:
    """Width and height of the largest image in an icon (ICO); 0 and 0 for other files.

    The directory of an icon has a byte for each side; the images in it, PNG or BMP, have sizes of their own.
    """
    if data[:4] != b"\0\0\1\0" or len(data) < 6:
        return 0, 0
    found = (0, 0)
    for number in range(int.from_bytes(data[4:6], "little")):
        entry = data[6 + 16 * number : 22 + 16 * number]
        if len(entry) < 16:
            break
        start = int.from_bytes(entry[12:16], "little")
        head = data[start : start + 24]
        if len(head) == 24 and head.startswith(_PNG):
            size = struct.unpack(">II", head[16:])
        elif len(head) == 24:
            size = struct.unpack("<ii", head[4:12])
        else:
            continue
        found = max(found, (abs(size[0]), abs(size[1])), key=lambda sides: sides[0] * sides[1])
    return found


def what_is_missing(data: bytes) -> str:
    """What is needed for a file that this machine's Pillow cannot read but another could; empty for other files."""
    if data[4:8] != b"ftyp":
        return ""
    if data[8:12] in (b"avif", b"avis"):
        return "AVIF, which this version of Pillow cannot read; install a newer one (pip install -U pillow)"
    if data[8:12] in _HEIC:
        return "HEIC, which needs the package pillow-heif: pip install pillow-heif"
    return ""
