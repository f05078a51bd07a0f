"""The header of a model that has not been downloaded: only its first megabytes are fetched."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llamacpu.errors import GGUFError, StoreError
from llamacpu.gguf.file import GGUFFile
from llamacpu.store.facts import header_facts
from llamacpu.store.transfer import open_url, patiently

__all__ = ["remote_facts"]

_FIRST = 1 << 20
_MOST = 64 << 20


def remote_facts(
    url: str, size: int, headers: Mapping[str, str], context: int | None, kv_type: str, named: str | None
) -> dict[str, Any] | None:
    """Return `header_facts` of the file at `url`; None if the server does not send ranges or the model is split.

    Raises StoreError if the file is not a usable GGUF file.
    """
    folder = Path(tempfile.mkdtemp(prefix="llamacpu-"))
    try:
        path = folder / "model.gguf"
        with path.open("wb") as file:
            # As long as the whole file, because sizes are checked against its length; only what is written uses disk.
            file.truncate(size)
        here, wanted = 0, min(_FIRST, size)
        while True:
            data = _range(url, headers, here, wanted)
            if data is None:
                return None
            with path.open("r+b") as file:
                file.seek(here)
                file.write(data)
            here = wanted
            try:
                with GGUFFile(path) as opened:
                    if opened.header_length <= here:
                        return header_facts(opened, context, kv_type, named)
            except GGUFError as error:
                if "name ending in" in str(error):
                    return None  # one part of several, all of which would have to be fetched
                if here >= min(size, _MOST):
                    raise StoreError(
                        f"{urlsplit(url).path.rpartition('/')[2]} is no model that can be used: {error}"
                    ) from None
            wanted = min(2 * here, size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _range(url: str, headers: Mapping[str, str], first: int, end: int) -> bytes | None:
    data = bytearray()

    def go_on() -> bool:
        place = first + len(data)
        with open_url(url, headers, place, end - 1) as answer:
            whole = (place, end) == (0, int(answer.headers.get("Content-Length") or -1))
            if answer.status != 206 and not whole:
                return False
            while len(data) < end - first:
                block = answer.read(min(1 << 18, end - first - len(data)))
                if not block:
                    raise ConnectionError("the connection ended too early")
                data.extend(block)
        return True

    return bytes(data) if patiently(go_on, urlsplit(url).hostname or url, place=lambda: len(data)) else None
