"""Model files from the Hugging Face Hub, into the cache that other programs share."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import Any

__all__ = ["download"]


def download(
    repo_id: str,
    filename: str,
    additional_files: Sequence[str] = (),
    local_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> str:
    """Download the file of a repository that matches `filename`, a name or a pattern, and return its path.

    `additional_files` (names or patterns) are downloaded beside it: the further parts of a split model. Raises
    ValueError where a pattern fits no file or several, ImportError without huggingface_hub.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ImportError(
            "downloading from the Hugging Face Hub needs huggingface_hub; install it with: pip install llamacpu[hub]"
        ) from None
    hub: Any = huggingface_hub
    names = hub.list_repo_files(repo_id)
    paths = [
        hub.hf_hub_download(repo_id, _only(names, wanted, repo_id), local_dir=local_dir, cache_dir=cache_dir)
        for wanted in (filename, *additional_files)
    ]
    return str(paths[0])


def _only(names: Sequence[str], wanted: str, repo_id: str) -> str:
    found = [name for name in names if fnmatch.fnmatch(name, wanted)]
    if len(found) != 1:
        shown = ", ".join(found or [name for name in names if name.endswith(".gguf")] or names)
        kind = f"{len(found)} files" if found else "no file"
        raise ValueError(f"{repo_id} has {kind} for {wanted!r}; expected exactly one of: {shown}")
    return found[0]
