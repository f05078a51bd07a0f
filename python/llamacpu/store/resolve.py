"""From a name to a model on this machine: found where it is stored, or downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llamacpu.errors import StoreError
from llamacpu.store.entries import Entry
from llamacpu.store.known import did_you_mean
from llamacpu.store.local import find
from llamacpu.store.names import parse
from llamacpu.store.places import offline

if TYPE_CHECKING:
    from llamacpu.store.download import Progress
    from llamacpu.store.pull import Plan

__all__ = ["resolve"]


def resolve(
    name: str,
    *,
    context: int | None = None,
    kv_type: str = "f16",
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Progress | None = None,
) -> Entry:
    """Return the model for a name: a path, `hf:owner/repository[:QUANT or file]`, `llama3.2`, `llama3.1:8b`, ...

    A model that is not on this machine is downloaded if it fits; see `pull`. Raises StoreError if the name refers to
    nothing.
    """
    wanted = parse(name)
    found = find(name if isinstance(wanted, Path) else wanted)
    if found is not None:
        return found
    if Path(name).is_dir():
        # The error that this is a folder is raised when it is opened.
        return Entry(name, "folder", (Path(name),))
    if offline():
        raise StoreError(
            f"{name} is not on this machine, and the network is not to be used (HF_HUB_OFFLINE or LLAMACPU_OFFLINE); "
            f"`llamacpu list` shows what is here{did_you_mean(name)}"
        )
    from llamacpu.store.pull import pull

    return pull(name, context=context, kv_type=kv_type, on_plan=on_plan, on_progress=on_progress)
