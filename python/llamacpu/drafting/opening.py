"""The source of drafts in a file: a drafter, a smaller model, or the model's own layers for multi-token prediction."""

from __future__ import annotations

import os

from llamacpu.arguments import path as check_path
from llamacpu.drafting.draft import Draft
from llamacpu.drafting.learned import LearnedDraft
from llamacpu.drafting.model_draft import ModelDraft
from llamacpu.engine.interfaces import Load
from llamacpu.engine.model import EngineModel
from llamacpu.families.drafters import is_drafter
from llamacpu.files import is_file
from llamacpu.gguf.file import GGUFFile

__all__ = ["open_draft"]


def open_draft(
    model: EngineModel, path: str | os.PathLike[str] = "self", threads: int | None = None, load: Load = "map"
) -> Draft:
    """Open a source of drafts for a model; `Draft.close` releases what this opened.

    path  the file or the name of a drafter or of a smaller model, which `general.architecture` tells apart; "self" for
          the layers for multi-token prediction in the model's own file
    threads, load  as for a model, for the draft's own weights

    Raises GGUFError for a file that cannot be read, ModelError for one that does not fit the model.
    """
    check_path("path", path)
    if path == "self":
        return LearnedDraft(model, threads=threads)
    if isinstance(path, str) and path and not is_file(path):
        from llamacpu.store.resolve import resolve

        path = resolve(path).path
    with GGUFFile(path) as file:
        learned = is_drafter(file)
    if learned:
        return LearnedDraft(model, path, threads=threads)
    small = EngineModel(path, model.threads if threads is None else threads, load=load, duty=model.duty)
    try:
        draft = ModelDraft(small)
        draft.check(model.session(1))
    except BaseException:
        small.close()
        raise
    draft.owned = True
    return draft
