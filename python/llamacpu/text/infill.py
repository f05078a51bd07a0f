"""Filling in the middle of a text, for models that were trained for it (Code Llama 7B and 13B and others).

The order of the pieces is that of the Code Llama paper (Rozière et al., arXiv:2308.12950, section 2.3): prefix, suffix,
middle; or suffix first ("SPM").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.errors import ModelError

if TYPE_CHECKING:
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["can_infill", "infill_prompt"]

# What stands where a name is wanted and none is known.
_PROJECT = "project"
_FILE = "file"


def can_infill(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the tokens for it."""
    return {"prefix", "suffix", "middle"} <= set(tokenizer.fim)


def infill_prompt(
    tokenizer: Tokenizer,
    prefix: str,
    suffix: str,
    suffix_first: bool = False,
    files: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """The token ids after which the model writes what belongs between `prefix` and `suffix`.

    The later of the two pieces continues a text and gets no space before it. `files` are names and texts of other files
    of the project, put before both as in the Qwen2.5-Coder report (Hui et al., arXiv:2409.12186, section 3.2.1): each
    behind a separator and its name where the vocabulary has that token. Raises ModelError for a vocabulary without the
    tokens for filling in.
    """
    if not can_infill(tokenizer):
        raise ModelError(
            "the model's vocabulary has no tokens for filling in the middle; expected a Code Llama 7B or 13B"
        )
    fim = tokenizer.fim

    def encode(text: str, space_prefix: bool) -> list[int]:
        return tokenizer.encode(text, add_special=False, space_prefix=space_prefix) if text else []

    start = [tokenizer.bos] if tokenizer.bos is not None and tokenizer.add_bos else []
    if files:
        start += _project(tokenizer, files)
    if suffix_first:
        middle = [fim["prefix"], fim["suffix"], *encode(suffix, False), fim["middle"], *encode(prefix, False)]
    else:
        middle = [fim["prefix"], *encode(prefix, True), fim["suffix"], *encode(suffix, False), fim["middle"]]
    return start + middle


def _project(tokenizer: Tokenizer, files: Sequence[tuple[str, str]]) -> list[int]:
    repository, separator = tokenizer.fim.get("repository"), tokenizer.fim.get("separator")

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False, space_prefix=False) if text else []

    if separator is None:
        return [id for _, text in files for id in encode(text + "\n")]
    ids = [] if repository is None else [repository, *encode(_PROJECT + "\n")]
    for name, text in (*files, (_FILE, "")):
        ids += [separator, *encode(name + "\n"), *encode(text)]
    return ids
