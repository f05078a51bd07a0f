"""BPE vocabularies (tokenizer.json): tokens, their types and merges, for tokenizer.ggml.model "gpt2"."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.pre_tokenizers import name_of_rule
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = [
    "BYTE",
    "CONTROL",
    "NORMAL",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "looks_special",
    "set_byte_pair",
    "vocabulary",
]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPECIAL_TEXTS = frozenset(("<pad>", "<mask>", "<2mass>", "[@BOS@]"))


def looks_special(text: str) -> bool:
    """Whether a token is a special one although its tokenizer does not say so."""
    return (
        text in _SPECIAL_TEXTS
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def vocabulary(folder: TokenizerFolder, size: Any) -> tuple[list[str], list[int]]:
    """The tokens by id and their types.

    size: that of the embedding, as the configuration has it; ids without a token are filled up.

    Raises CheckpointError if the tokenizer has ids beyond it.
    """
    texts = _texts(folder)
    count = size if isinstance(size, int) and not isinstance(size, bool) else max(texts, default=-1) + 1
    if not texts or max(texts) >= count:
        raise CheckpointError(
            f"the tokenizer has ids up to {max(texts, default=-1)}, but config.json a vocab_size of {count}; "
            "the files do not belong together"
        )
    tokens, types = [], []
    for id in range(count):
        text, kind = texts.get(id), NORMAL
        added = folder.added.get(id)
        if text is None:
            text, kind = f"[PAD{id}]", UNUSED
        elif added is not None:
            kind = CONTROL if added.special or looks_special(text) else USER_DEFINED
            text = text.replace("\u2581", " ") if kind == USER_DEFINED else text
        tokens.append(text)
        types.append(kind)
    return tokens, types


def _texts(folder: TokenizerFolder) -> dict[int, str]:
    found = folder.model.get("vocab")
    if not isinstance(found, dict) or not all(type(id) is int and id >= 0 for id in found.values()):
        raise CheckpointError("tokenizer.json: expected `vocab` of a model, an object of tokens and ids")
    texts = {id: text for text, id in found.items()}
    for id, added in folder.added.items():
        texts[id] = added.text
    return texts


def set_byte_pair(
    folder: TokenizerFolder, config: dict[str, Any], keys: Keys, special: SpecialTokens | None = None
) -> None:
    """Set the keys of a BPE vocabulary."""
    if not folder.json:
        raise CheckpointError(
            f"{folder.checkpoint.folder}: there is no tokenizer that is known; expected tokenizer.json"
        )
    tokens, types = vocabulary(folder, config.get("vocab_size"))
    special = special or SpecialTokens(folder, folder.checkpoint.config, merges=True)
    keys.add("tokenizer.ggml.model", "gpt2", "string")
    keys.add("tokenizer.ggml.pre", name_of_rule(folder, tokens, types, special), "string")
    keys.add("tokenizer.ggml.tokens", tokens, "string")
    keys.add("tokenizer.ggml.token_type", types, "int32")
    special.write(keys)
