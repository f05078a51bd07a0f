"""Vocabularies of encoders: WordPiece (BERT) and Unigram (XLM-RoBERTa)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from llamacpu import _native
from llamacpu.errors import CheckpointError
from llamacpu.gguf.values import packed_string
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, vocabulary
from llamacpu.tools.convert.tokenizers.checksums import TEXT, known_tokenizer
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.pieces import PieceVocabulary, piece_model
from llamacpu.tools.convert.tokenizers.pre_tokenizers import frame
from llamacpu.tools.convert.tokenizers.protobuf import UNIGRAM
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["set_unigrams", "set_word_pieces"]

_WORD_START = "\u2581"


def set_word_pieces(folder: TokenizerFolder, config: dict[str, Any], keys: Keys) -> None:
    """Set the keys of a WordPiece vocabulary, in which a mark stands at the beginning of words instead of inside."""
    if folder.kind != "WordPiece":
        raise CheckpointError(f"tokenizer.json: the vocabulary is of the kind {folder.kind!r:.30}; expected WordPiece")
    tokens, types = vocabulary(folder, config.get("vocab_size"))
    keys.add("tokenizer.ggml.token_type_count", config.get("type_vocab_size", 1), "uint32")
    tokens = [_marked(token, kind) for token, kind in zip(tokens, types, strict=True)]
    special = SpecialTokens(folder, folder.checkpoint.config, size=len(tokens))
    keys.add("tokenizer.ggml.model", "bert", "string")
    keys.add("tokenizer.ggml.pre", _name(folder, tokens, types, special), "string")
    keys.add("tokenizer.ggml.tokens", tokens, "string")
    keys.add("tokenizer.ggml.token_type", types, "int32")
    special.write(keys)


def _marked(token: str, kind: int) -> str:
    if kind == CONTROL:
        return token
    return token[2:] if token.startswith("##") else _WORD_START + token


def _name(folder: TokenizerFolder, tokens: list[str], types: list[int], special: SpecialTokens) -> str:
    """The name that llama.cpp has for the vocabulary; it does not change how text is cut, so any other is "default"."""
    lowercase = special.lowercase is not False
    array = b"".join(map(packed_string, tokens)), len(tokens)
    strips = lowercase if special.strip_accents is None else special.strip_accents
    native = _native.Tokenizer.word_piece(array, np.array(types, np.int32), special.ids.get("unk"), lowercase, strips)
    before, after = frame(folder)
    return known_tokenizer([*before, *native.encode(TEXT, False, False), *after]) or "default"


def set_unigrams(folder: TokenizerFolder, config: dict[str, Any], keys: Keys, plain: str = "") -> None:
    """Set the keys of a Unigram vocabulary: sentencepiece.bpe.model, or tokenizer.json without it.

    plain: the name of a SentencePiece model whose ids are those of the tokenizer, which counts if there is neither.
    """
    if plain and not folder.json and folder.checkpoint.file(plain) is not None:
        vocabulary, prefix, remove, charsmap = _from_plain_model(folder, config, plain)
    elif folder.checkpoint.file("sentencepiece.bpe.model") is not None:
        vocabulary, prefix, remove, charsmap = _from_model(folder, config)
    else:
        vocabulary, prefix, remove, charsmap = _from_json(folder, config)
    keys.add("tokenizer.ggml.model", "t5", "string")
    keys.add("tokenizer.ggml.pre", "default", "string")
    keys.add("tokenizer.ggml.tokens", vocabulary.tokens, "string")
    keys.add("tokenizer.ggml.scores", vocabulary.scores, "float32")
    keys.add("tokenizer.ggml.token_type", vocabulary.types, "int32")
    keys.add("tokenizer.ggml.add_space_prefix", prefix, "bool")
    keys.add("tokenizer.ggml.token_type_count", config.get("type_vocab_size", 1), "uint32")
    keys.add("tokenizer.ggml.remove_extra_whitespaces", remove, "bool")
    keys.add("tokenizer.ggml.precompiled_charsmap", list(charsmap), "uint8")
    SpecialTokens(folder, folder.checkpoint.config, size=len(vocabulary.tokens)).write(keys)


_Parts = tuple[PieceVocabulary, bool, bool, bytes]


def _size(config: dict[str, Any], count: int) -> int:
    size = config.get("vocab_size")
    return max(size if isinstance(size, int) else 0, count)


def _from_model(folder: TokenizerFolder, config: dict[str, Any]) -> _Parts:
    model = piece_model(folder, "sentencepiece.bpe.model")
    if model.model_type != UNIGRAM:
        raise CheckpointError("sentencepiece.bpe.model: not a Unigram vocabulary; expected one")
    found = PieceVocabulary(_size(config, len(model.pieces)))
    found.set_model(model)
    # The ids of the model are those of fairseq: four special tokens in front, one piece less at the end.
    found.tokens = [b"<s>", b"<pad>", b"</s>", b"<unk>", *found.tokens[3:-1]]
    found.scores = [0.0] * 4 + found.scores[3:-1]
    found.types = [CONTROL, CONTROL, CONTROL, UNKNOWN, *found.types[3:-1]]
    return found, model.add_dummy_prefix, model.remove_extra_whitespaces, model.charsmap


def _from_plain_model(folder: TokenizerFolder, config: dict[str, Any], name: str) -> _Parts:
    model = piece_model(folder, name)
    if model.model_type != UNIGRAM:
        raise CheckpointError(f"{name}: not a Unigram vocabulary; expected one")
    found = PieceVocabulary(_size(config, len(model.pieces)))
    found.set_model(model)
    added = {**{id: token.text for id, token in folder.added.items()}, **_texts_by_id(folder, "added_tokens.json")}
    for id, text in added.items():
        if id >= len(model.pieces):
            found.set(id, text.encode(), 0.0, CONTROL)
    return found, model.add_dummy_prefix, model.remove_extra_whitespaces, model.charsmap


def _texts_by_id(folder: TokenizerFolder, name: str) -> dict[int, str]:
    return {id: text for text, id in folder.ids_of(name).items()}


def _from_json(folder: TokenizerFolder, config: dict[str, Any]) -> _Parts:
    entries = folder.model.get("vocab")
    if folder.kind != "Unigram" or not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise CheckpointError("tokenizer.json: expected a Unigram `vocab`, a list of tokens and scores")
    found = PieceVocabulary(_size(config, len(entries)))
    texts = {added.text: id for id, added in folder.added.items()}
    unknown = texts.get(folder.config.get("unk_token", ""), folder.model.get("unk_id", 3))
    for id, (text, score) in enumerate(entries):
        added = folder.added.get(id)
        kind = NORMAL
        if id == unknown:
            kind = UNKNOWN
        elif added is not None:
            kind = CONTROL if added.special else USER_DEFINED
        found.set(id, text.encode(), float(score), kind)
    for id, added in folder.added.items():
        if id >= len(entries):
            found.set(id, added.text.encode(), 0.0, CONTROL if added.special else USER_DEFINED)
    return (
        found,
        _adds_prefix(folder),
        bool(folder.config.get("clean_up_tokenization_spaces", False)),
        _charsmap(folder),
    )


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], (int, float))
    )


def _adds_prefix(folder: TokenizerFolder) -> bool:
    step = folder.json.get("pre_tokenizer")
    steps = step.get("pretokenizers", [step]) if isinstance(step, dict) else []
    return any(
        each.get("type") == "Metaspace" and each.get("prepend_scheme", "always") != "never"
        for each in steps
        if isinstance(each, dict)
    )


def _charsmap(folder: TokenizerFolder) -> bytes:
    normalizer = folder.json.get("normalizer")
    steps = normalizer.get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    for step in steps:
        found = step.get("precompiled_charsmap") if isinstance(step, dict) else None
        if isinstance(found, str):
            try:
                return base64.b64decode(found, validate=True)
            except binascii.Error as error:
                raise CheckpointError(f"tokenizer.json: precompiled_charsmap is damaged: {error}") from None
    return b""
