"""Mistral's tekken.json: tokens as bytes, in the order of their ranks, from which the merges follow."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import CONTROL, NORMAL
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["MAX_TOKENS", "MAX_TOKEN_BYTES", "has_tekken", "merges_of", "set_tekken", "text_of"]

MAX_TOKENS = 1 << 20
MAX_TOKEN_BYTES = 1 << 10
_TEMPLATES = {"v3": "mistral-v3-tekken", "v7": "mistral-v7-tekken"}
"""Versions of the tokenizer to names of chat templates that runtimes know."""
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_LETTERS = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(b for b in range(256) if b not in _PRINTABLE)
}
"""The letter that stands for each byte in a vocabulary of GPT-2's kind."""


def has_tekken(folder: TokenizerFolder) -> bool:
    """Whether the tokenizer is in tekken.json alone."""
    return folder.checkpoint.file("tekken.json") is not None and not folder.json


def set_tekken(folder: TokenizerFolder, keys: Keys) -> None:
    """Set the keys of the vocabulary of tekken.json."""
    found = folder.checkpoint.json("tekken.json") or {}
    specials, ranks = _read(found)
    tokens = [*specials, *(text_of(token) for token in ranks)]
    ids = {token: id for id, token in enumerate(specials)}
    keys.add("tokenizer.ggml.model", "gpt2", "string")
    keys.add("tokenizer.ggml.pre", "tekken", "string")
    keys.add("tokenizer.ggml.merges", merges_of(ranks), "string")
    for name, text in (("bos", "<s>"), ("eos", "</s>"), ("unknown", "<unk>")):
        if text in ids:
            keys.add(f"tokenizer.ggml.{name}_token_id", ids[text], "uint32")
    pad = ids.get("<pad>", ids.get("</s>"))
    if pad is not None:
        keys.add("tokenizer.ggml.padding_token_id", pad, "uint32")
    keys.add("tokenizer.ggml.tokens", tokens, "string")
    keys.add("tokenizer.ggml.scores", [0] * len(tokens), "int32")
    keys.add("tokenizer.ggml.token_type", [CONTROL] * len(specials) + [NORMAL] * len(ranks), "int32")
    keys.set("vocab_size", len(tokens))
    keys.add("tokenizer.ggml.add_bos_token", True, "bool")
    keys.add("tokenizer.ggml.add_eos_token", False, "bool")
    template = folder.checkpoint.file("chat_template.jinja")
    settings = found.get("config")
    known = _TEMPLATES.get(str(settings.get("version")) if isinstance(settings, dict) else "")
    if template is not None:
        keys.add("tokenizer.chat_template", template.read_text("utf-8"), "string")
    elif known is not None:
        keys.add("tokenizer.chat_template", known, "string")


def _read(found: dict[str, Any]) -> tuple[list[str], dict[bytes, int]]:
    """The special tokens by id and the ranks of the others."""
    settings, entries = found.get("config"), found.get("vocab")
    if not isinstance(settings, dict) or not isinstance(entries, list):
        raise CheckpointError("tekken.json: expected `config` and `vocab`")
    size, reserved = settings.get("default_vocab_size"), settings.get("default_num_special_tokens")
    if not isinstance(size, int) or not isinstance(reserved, int) or not 0 <= reserved < size <= MAX_TOKENS:
        raise CheckpointError(f"tekken.json: {size!r:.30} tokens of which {reserved!r:.30} are special is impossible")
    names: dict[Any, str] = {
        entry["rank"]: entry["token_str"]
        for entry in list(found.get("special_tokens") or _DEFAULT_SPECIALS)
        if isinstance(entry, dict) and isinstance(entry.get("token_str"), str) and isinstance(entry.get("rank"), int)
    }
    specials = [names.get(id, f"<SPECIAL_{id}>") for id in range(reserved)]
    ranks: dict[bytes, int] = {}
    for entry in entries[: size - reserved]:
        try:
            token = base64.b64decode(entry["token_bytes"], validate=True)
        except (TypeError, KeyError, binascii.Error) as error:
            raise CheckpointError(f"tekken.json: token {len(ranks)} has no valid token_bytes: {error!r:.80}") from None
        if not 0 < len(token) <= MAX_TOKEN_BYTES or token in ranks:
            raise CheckpointError(f"tekken.json: token {len(ranks)} is empty, too long or there twice")
        ranks[token] = len(ranks)
    if len(ranks) != size - reserved:
        raise CheckpointError(f"tekken.json: {len(ranks)} tokens; its `config` says {size - reserved}")
    return specials, ranks


_DEFAULT_SPECIALS: list[dict[str, Any]] = [
    {"rank": rank, "token_str": text}
    for rank, text in enumerate(
        (
            "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
            "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
        )
    )
]  # fmt: skip


def text_of(token: bytes) -> str:
    """A token in the letters that vocabularies of GPT-2's kind have for bytes."""
    return "".join(_LETTERS[byte] for byte in token)


def merges_of(ranks: dict[bytes, int]) -> list[str]:
    """The pairs that are joined, in the order of the ranks: each token is cut everywhere into two tokens."""
    merges: list[str] = []
    for token in ranks:
        pairs = [
            (ranks[token[:cut]], ranks[token[cut:]], cut)
            for cut in range(1, len(token))
            if token[:cut] in ranks and token[cut:] in ranks
        ]
        merges.extend(f"{text_of(token[:cut])} {text_of(token[cut:])}" for _, _, cut in sorted(pairs))
    return merges
