"""Fill-in-the-middle prompts for models trained for infilling (Code Llama 7B and 13B, and others).

The pieces are ordered as in the Code Llama paper (Rozière et al., arXiv:2308.12950, section 2.3): prefix, suffix,
middle; or suffix first ("SPM").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.errors import ModelError

if TYPE_CHECKING:
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["can_infill", "infill_prompt"]

# Placeholders for names that are required but unknown.
_PROJECT = "project"
_FILE = "file"


def can_infill(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the tokens that infilling needs."""
    return {"prefix", "suffix", "middle"} <= set(tokenizer.fim)


def infill_prompt(
    tokenizer: Tokenizer,
    prefix: str,
    suffix: str,
    suffix_first: bool = False,
    files: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """The token ids of a prompt that makes the model write what belongs between `prefix` and `suffix`.

    The second of the two pieces continues a text, so no space is put before it. `files` are the names and texts of
    other files of the project. They precede both pieces, as in the Qwen2.5-Coder report (Hui et al., arXiv:2409.12186,
    section 3.2.1): each follows a separator token and its name if the vocabulary has that token. Raises ModelError if
    the vocabulary lacks the infilling tokens.
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
