"""Gemma 4's vocabulary: merges of characters, with spaces as a letter of their own and bytes for what is unknown."""

from __future__ import annotations

import re

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import BYTE, CONTROL, NORMAL, USER_DEFINED
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.pieces import is_merged_pieces
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["set_character_pairs"]

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SCORE = -1000.0
# Written into texts, so that calls of tools and reasoning can be found in them.
_VISIBLE = (
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
)  # fmt: skip


def set_character_pairs(folder: TokenizerFolder, keys: Keys) -> None:
    """Set the keys of the vocabulary."""
    found = folder.model.get("vocab")
    if not is_merged_pieces(folder) or not isinstance(found, dict):
        raise CheckpointError("tokenizer.json: expected a BPE vocabulary of characters with a token for each byte")
    texts: dict[int, str] = {id: text for text, id in found.items() if type(id) is int}
    if sorted(texts) != list(range(len(found))):
        raise CheckpointError("tokenizer.json: `vocab` has gaps; expected an id for each number from 0 on")
    specials = _special_texts(folder)
    tokens, types = [], []
    for id in range(len(texts)):
        text = texts[id]
        tokens.append(text)
        types.append(BYTE if _BYTE.fullmatch(text) else CONTROL if text in specials else NORMAL)
    for id, added in folder.added.items():
        if id >= len(texts):
            tokens.append(added.text)
            types.append(CONTROL if added.text in specials else USER_DEFINED)
    types = [USER_DEFINED if text in _VISIBLE else kind for text, kind in zip(tokens, types, strict=True)]
    keys.add("tokenizer.ggml.model", "gemma4", "string")
    keys.add("tokenizer.ggml.tokens", tokens, "string")
    keys.add("tokenizer.ggml.scores", [_SCORE] * len(tokens), "float32")
    keys.add("tokenizer.ggml.token_type", types, "int32")
    SpecialTokens(folder, folder.checkpoint.config, merges=True).write(keys)
    keys.add("tokenizer.ggml.add_space_prefix", False, "bool")
    keys.add("tokenizer.ggml.add_bos_token", True, "bool")


def _special_texts(folder: TokenizerFolder) -> set[str]:
    """What tokenizer_config.json calls a special token, by whatever name."""
    entries = [value for key, value in folder.config.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = folder.config.get(key)
        entries += more.values() if isinstance(more, dict) else more if isinstance(more, list) else []
    texts = (entry.get("content") if isinstance(entry, dict) else entry for entry in entries)
    return {text for text in texts if isinstance(text, str)}
