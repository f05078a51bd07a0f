"""Paths of pictures in what was typed, as a terminal writes them when a file is dragged into it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["dragged_pictures"]

_SUFFIXES = frozenset(
    (
        ".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
        ".pgm", ".png", ".ppm", ".qoi", ".tif", ".tiff", ".webp",
    )
)  # fmt: skip
# In quotes, or up to the first space that has no backslash before it.
_WORD = re.compile(r"'(?P<single>[^'\n]+)'|\"(?P<double>[^\"\n]+)\"|(?P<plain>(?:\\.|[^\s'\"])+)")


def dragged_pictures(text: str) -> tuple[str, list[Path]]:
    """The text without the paths of pictures that exist, and these paths.

    A path is in quotes, or its spaces have backslashes before them, or it is a file: URL; on Windows it may be plain.
    """
    found: list[Path] = []

    def taken(match: re.Match[str]) -> str:
        path = _picture(match)
        if path is None:
            return match[0]
        found.append(path)
        return ""

    rest = _WORD.sub(taken, text)
    return (re.sub(r"[ \t]{2,}", " ", rest).strip() if found else text), found


def _picture(match: re.Match[str]) -> Path | None:
    written = match["single"] or match["double"]
    candidates = [written] if written else [re.sub(r"\\(.)", r"\1", match["plain"]), match["plain"]]
    for name in candidates:
        if name.startswith("file://"):
            name = unquote(urlsplit(name).path)
        try:
            path = Path(name).expanduser()
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                return path.absolute()
        except (OSError, ValueError, RuntimeError):
            continue
    return None
