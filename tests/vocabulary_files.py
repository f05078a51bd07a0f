"""Vocabulary-only GGUF files, well formed or not, and tokenizers of vocabularies that a test made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llamacpu import GGUFFile, Tokenizer, _native
from raw_gguf import BOOL, F32, I32, STRING, U32, array, gguf_bytes, pair, scalar, text
from tiny_tokenizers import byte_letters

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def vocabulary_pairs(
    model: str,
    tokens: Sequence[str | bytes],
    kinds: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    merges: Sequence[str | bytes] | None = None,
    **keys: bool | int | str,
) -> list[bytes]:
    """The metadata of a vocabulary; `keys` are further keys below `tokenizer.ggml.`."""
    pairs = {"model": scalar(STRING, model), "tokens": array(STRING, tokens)}
    if kinds is not None:
        pairs["token_type"] = array(I32, kinds)
    if scores is not None:
        pairs["scores"] = array(F32, scores)
    if merges is not None:
        pairs["merges"] = array(STRING, merges)
    for key, value in keys.items():
        pairs[key] = scalar(STRING if isinstance(value, str) else BOOL if isinstance(value, bool) else U32, value)
    return [pair(f"tokenizer.ggml.{key}", value) for key, value in pairs.items()]


def load(folder: Path, pairs: Sequence[bytes]) -> Tokenizer:
    """The tokenizer of a file with this metadata."""
    path = folder / "vocabulary.gguf"
    path.write_bytes(gguf_bytes(pairs))
    with GGUFFile(path) as file:
        return Tokenizer(file)


def spm(
    folder: Path, pieces: dict[str, float], special: Sequence[tuple[str, int]] = (), **keys: bool | int | str
) -> Tokenizer:
    """A SentencePiece tokenizer: unknown, BOS, EOS, 256 bytes, the pieces with their scores, then special tokens."""
    tokens = ["<unk>", "<s>", "</s>", *BYTE_TOKENS, *pieces, *(name for name, _ in special)]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces), *(kind for _, kind in special)]
    scores = [0.0] * 259 + list(pieces.values()) + [-1000.0] * len(special)
    return load(folder, vocabulary_pairs("llama", tokens, kinds, scores, **keys))


def bpe(
    folder: Path, merges: Sequence[str], special: Sequence[tuple[str, int]] = (), **keys: bool | int | str
) -> Tokenizer:
    """A byte-level tokenizer: 256 bytes, what the merges make, then special tokens; `pre` is "gpt-2" if not given."""
    made = list(dict.fromkeys(merge.replace(" ", "") for merge in merges))
    tokens = [*byte_letters(), *made, *(name for name, _ in special)]
    kinds = [NORMAL] * (256 + len(made)) + [kind for _, kind in special]
    return load(folder, vocabulary_pairs("gpt2", tokens, kinds, merges=merges, **{"pre": "gpt-2", **keys}))


def native_pieces(tokens: Sequence[str | bytes], scores: Sequence[float], unknown: int | None) -> _native.Tokenizer:
    """The native tokenizer without a file around it."""
    buffer = b"".join(map(text, tokens))
    values = np.array(scores, np.float32)
    return _native.Tokenizer.sentence_piece((buffer, len(tokens)), None, values, unknown, True, None)


def native_pairs(tokens: Sequence[str | bytes], merges: Sequence[str | bytes], pre: str) -> _native.Tokenizer:
    """The native tokenizer without a file around it."""
    first, second = b"".join(map(text, tokens)), b"".join(map(text, merges))
    return _native.Tokenizer.byte_pair((first, len(tokens)), None, (second, len(merges)), pre, None)
