"""Vocabularies of SentencePiece (tokenizer.model), and those of tokenizer.json that were made from one."""

from __future__ import annotations

import re
from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, looks_special
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.protobuf import PieceModel, read_piece_model
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = [
    "has_pieces",
    "is_merged_pieces",
    "piece_model",
    "piece_vocabulary",
    "set_any_pieces",
    "set_merged_pieces",
    "set_pieces",
    "write_pieces",
]

MAX_MODEL_BYTES = 256 << 20
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10000.0


def has_pieces(folder: TokenizerFolder) -> bool:
    """Whether the checkpoint has a tokenizer.model."""
    return folder.checkpoint.file("tokenizer.model") is not None


def piece_model(folder: TokenizerFolder, name: str = "tokenizer.model") -> PieceModel:
    """The SentencePiece model of a checkpoint; CheckpointError if it is missing or damaged."""
    path = folder.checkpoint.file(name)
    if path is None:
        raise CheckpointError(f"{folder.checkpoint.folder}: there is no {name}; the tokenizer of this model is in it")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise CheckpointError(f"{name}: {path.stat().st_size} bytes; expected at most {MAX_MODEL_BYTES}")
    return read_piece_model(path.read_bytes(), name)


class PieceVocabulary:
    """Tokens, scores and types by id; ids without a token are unused."""

    def __init__(self, size: int) -> None:
        self.tokens: list[bytes] = [f"[PAD{id}]".encode() for id in range(size)]
        self.scores: list[float] = [_UNUSED_SCORE] * size
        self.types: list[int] = [UNUSED] * size

    def set(self, id: int, token: bytes, score: float, kind: int) -> None:
        """Set a token, unless its id is beyond the embedding."""
        if 0 <= id < len(self.tokens):
            self.tokens[id], self.scores[id], self.types[id] = token, score, kind

    def set_model(self, model: PieceModel) -> None:
        """Set the tokens of a SentencePiece model."""
        for id, piece in enumerate(model.pieces):
            self.set(id, piece.text, piece.score, NORMAL if piece.type == USER_DEFINED else piece.type)


def piece_vocabulary(
    folder: TokenizerFolder, size: Any, *, spaces: bool = True, listed: bool = False
) -> PieceVocabulary:
    """The vocabulary of tokenizer.model with the tokens that were added to it.

    size: that of the embedding. spaces: whether marks of spaces in added tokens become spaces. listed: whether
    tokenizer.json's added tokens count, too.
    """
    model = piece_model(folder)
    result = PieceVocabulary(size if isinstance(size, int) and size > 0 else len(model.pieces))
    result.set_model(model)
    for text, id in folder.ids_of("added_tokens.json").items():
        result.set(id, text.encode(), _ADDED_SCORE, USER_DEFINED)
    added = list(folder.configured.items())
    if listed:
        added += [(token["id"], folder.added[token["id"]]) for token in folder.listed]
    for id, token in added:
        if token.special or (spaces and looks_special(token.text)):
            result.set(id, token.text.encode(), _ADDED_SCORE, CONTROL)
        else:
            text = token.text.replace("\u2581", " ") if spaces else token.text
            result.set(id, text.encode(), _ADDED_SCORE, USER_DEFINED)
    return result


def write_pieces(vocabulary: PieceVocabulary, keys: Keys) -> None:
    """Set the keys of such a vocabulary."""
    keys.add("tokenizer.ggml.model", "llama", "string")
    keys.add("tokenizer.ggml.pre", "default", "string")
    keys.add("tokenizer.ggml.tokens", vocabulary.tokens, "string")
    keys.add("tokenizer.ggml.scores", vocabulary.scores, "float32")
    keys.add("tokenizer.ggml.token_type", vocabulary.types, "int32")


def set_pieces(folder: TokenizerFolder, config: dict[str, Any], keys: Keys, **options: bool) -> None:
    """Set the keys of the vocabulary of tokenizer.model."""
    vocabulary = piece_vocabulary(folder, config.get("vocab_size"), **options)
    write_pieces(vocabulary, keys)
    SpecialTokens(folder, folder.checkpoint.config, size=len(vocabulary.tokens)).write(keys)


def is_merged_pieces(folder: TokenizerFolder) -> bool:
    """Whether tokenizer.json holds a SentencePiece vocabulary written as BPE, with a token for each byte."""
    decoder = folder.json.get("decoder")
    return (
        folder.kind == "BPE"
        and bool(folder.model.get("byte_fallback"))
        and isinstance(decoder, dict)
        and decoder.get("type") == "Sequence"
    )


def set_merged_pieces(folder: TokenizerFolder, config: dict[str, Any], keys: Keys) -> None:
    """Set the keys of a SentencePiece vocabulary that tokenizer.json holds as BPE.

    Scores are the order of the merges, so that the same merges win; with equal scores, as llama.cpp's converter writes
    them, others would.
    """
    found = folder.model.get("vocab")
    if not isinstance(found, dict) or not all(type(id) is int and id >= 0 for id in found.values()):
        raise CheckpointError("tokenizer.json: expected `vocab` of a model, an object of tokens and ids")
    special = SpecialTokens(folder, folder.checkpoint.config, merges=True)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(special.merges):
        ranks.setdefault(merge.replace(" ", "", 1), rank + 1)
    count = max([*found.values(), *folder.added], default=-1) + 1
    size = config.get("vocab_size")
    vocabulary = PieceVocabulary(max(count, size if isinstance(size, int) else 0))
    specials = _special_texts(folder)
    for text, id in found.items():
        kind = BYTE if _BYTE.fullmatch(text) else CONTROL if text in specials else NORMAL
        vocabulary.set(id, text.encode(), 0.0 - ranks.get(text, 0), kind)
    for id, token in folder.added.items():
        if token.special or token.text in specials:
            vocabulary.set(id, token.text.encode(), _ADDED_SCORE, CONTROL)
        else:
            vocabulary.set(id, token.text.encode(), _ADDED_SCORE, USER_DEFINED)
    write_pieces(vocabulary, keys)
    SpecialTokens(folder, folder.checkpoint.config, size=len(vocabulary.tokens)).write(keys)


def set_any_pieces(folder: TokenizerFolder, config: dict[str, Any], keys: Keys) -> None:
    """Set the keys of a SentencePiece vocabulary, wherever it is."""
    if not has_pieces(folder) and is_merged_pieces(folder):
        set_merged_pieces(folder, config, keys)
    else:
        set_pieces(folder, config, keys)


def _special_texts(folder: TokenizerFolder) -> set[str]:
    named = [folder.config.get(f"{kind}_token") for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
    named += folder.config.get("additional_special_tokens") or []
    texts = (entry.get("content") if isinstance(entry, dict) else entry for entry in named)
    return {text for text in texts if isinstance(text, str)}
