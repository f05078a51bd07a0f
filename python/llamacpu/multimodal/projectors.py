"""Which mmproj file belongs to a model: the one beside it whose name and size fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu import log
from llamacpu.engine.duty import duty_of
from llamacpu.errors import GGUFError, ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.store.entries import is_projector, quantization, stem_of

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.multimodal.vision import Vision

__all__ = ["has_vision", "projector_beside", "vision_of"]

_MARK = re.compile(r"(^|[-_.])mmproj(?=$|[-_.])", re.IGNORECASE)
_FILES = 1000


def projector_beside(model: Path, width: int) -> Path | None:
    """The vision encoder in the folder of a model; None if there is none, or none that fits.

    A file is named after the model, or just "mmproj" or "mmproj-model" with its type (mmproj-F16.gguf): then it belongs
    to the folder's only model. width: the model's embedding_length, which the encoder's output must have.
    """
    try:
        files = [file for file in sorted(model.parent.iterdir())[:_FILES] if file.suffix.lower() == ".gguf"]
    except OSError:
        return None
    own = _plain(stem_of(model))
    models = {_plain(stem_of(file)) for file in files if not is_projector(file.name)}
    named, unnamed = [], []
    for file in files:
        if not is_projector(file.name):
            continue
        name = _plain(_MARK.sub("", stem_of(file)))
        if name == own:
            named.append(file)
        elif name in ("", "model") and models <= {own}:
            unnamed.append(file)
    # The more exact ones of several types come first; encoders are small beside their models.
    for group in (named, unnamed):
        for file in sorted(group, key=lambda one: _order(one.name)):
            if _fits(file, width):
                return file
    return None


def has_vision(model: Path, metadata: Mapping[str, Any]) -> bool:
    """Whether a model has a vision encoder, in its own file or beside it: from its metadata and names, without opening
    the weights."""
    architecture = metadata.get("general.architecture")
    width = metadata.get(f"{architecture}.embedding_length")
    if architecture == "mllama" and "mllama.vision.image_size" in metadata:
        return True
    return isinstance(width, int) and projector_beside(model, width) is not None


def _plain(stem: str) -> str:
    """A name without its type and without what separates its words."""
    kind = quantization(stem)
    if kind:
        stem = stem[: -len(kind)]
    return re.sub(r"[-_. ]+", "-", stem.lower()).strip("-")


def _order(name: str) -> tuple[int, str]:
    kind = quantization(stem_of(Path(name))) or ""
    return {"F16": 0, "BF16": 1, "F32": 2}.get(kind, 3), name


def _fits(file: Path, width: int) -> bool:
    try:
        with GGUFFile(file) as opened:
            own = opened.metadata.scalar("clip.vision.projection_dim")
            return opened.metadata.scalar("general.architecture") == "clip" and own in (None, 0, width)
    except (GGUFError, OSError):
        return False


def vision_of(
    model: ModelLike,
    named: Path | None,
    mmproj: str | os.PathLike[str] | bool | None,
    max_tokens: int | None,
    threads: int | None,
    max_crops: int = 0,
) -> Vision | None:
    """The vision encoder of a model; None if it has none.

    named   the encoder that came with the model's name
    mmproj  the file to use, False for none, or None and True: the encoder that is there; with True there must be one

    Raises what `Vision` raises, for a file that was given; one that was only found is ignored if it cannot be used.
    """
    if mmproj is False:
        return None
    if isinstance(mmproj, (str, os.PathLike)):
        return _opened(_file_of(mmproj), model, max_tokens, threads, max_crops)
    path = Path(model.path)
    if model.config["architecture"] == "mllama" and "mllama.vision.image_size" in model.metadata:
        found: Path | None = path
    else:
        found = named or projector_beside(path, model.config["embedding_length"])
    if mmproj is True and found is None:
        raise ModelError(f"there is no vision encoder beside {path.name}; expected its mmproj file (mmproj=...)")
    if found is None:
        return None
    try:
        return _opened(found, model, max_tokens, threads, max_crops)
    except (GGUFError, ModelError) as error:
        if mmproj is True:
            raise
        log.warning("%s is not used, and the model sees no pictures: %s", found.name, error)
        return None


def _opened(path: Path, model: ModelLike, max_tokens: int | None, threads: int | None, max_crops: int) -> Vision:
    # Imported here: most models have no vision encoder.
    from llamacpu.multimodal.vision import Vision

    return Vision(
        path, model=model.config, threads=threads, max_tokens=max_tokens, max_crops=max_crops, duty=duty_of(model)
    )


def _file_of(mmproj: str | os.PathLike[str]) -> Path:
    """The file for a path, or for a name of the hub: hf:owner/repository, with :file after it if it has several."""
    if not isinstance(mmproj, str) or not mmproj.startswith("hf:") or Path(mmproj).exists():
        return Path(mmproj)
    from llamacpu.store.hub import download

    owner, _, rest = mmproj[3:].partition("/")
    repository, _, name = rest.partition(":")
    return Path(download(f"{owner}/{repository}", name or "*mmproj*"))
