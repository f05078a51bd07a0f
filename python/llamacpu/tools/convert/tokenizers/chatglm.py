"""The vocabularies of ChatGLM 2 and 3, a SentencePiece model followed by special tokens that are in its code, and of
GLM 4 in its own form: ranks, followed by the tokens in tokenizer_config.json. llama.cpp's converter has none for these.

Source: tokenization_chatglm.py of THUDM/chatglm3-6b. The code is not run.
"""

from __future__ import annotations

from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import CONTROL, NORMAL, UNUSED, USER_DEFINED
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.pieces import PieceVocabulary, has_pieces, piece_model
from llamacpu.tools.convert.tokenizers.ranks import MAX_FILE, has_ranks, merges_by_rank, read_ranks
from llamacpu.tools.convert.tokenizers.special import SpecialTokens
from llamacpu.tools.convert.tokenizers.tekken import text_of

__all__ = ["has_chatglm_pieces", "set_chatglm_pieces", "set_chatglm_ranks"]

_NAMES = ("<unk>", "<bos>", "<eos>")
_SPECIALS = (
    "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip


def has_chatglm_pieces(folder: TokenizerFolder) -> bool:
    """Whether the tokenizer is a SentencePiece model alone."""
    return not folder.json and has_pieces(folder) and not has_ranks(folder)


def set_chatglm_pieces(folder: TokenizerFolder, config: dict[str, Any], keys: Keys) -> None:
    """Set the keys of the vocabulary."""
    pieces = piece_model(folder).pieces
    size = config.get("padded_vocab_size", config.get("vocab_size"))
    count = max(size if isinstance(size, int) else 0, len(pieces) + len(_SPECIALS))
    found = PieceVocabulary(count)
    found.scores = [0.0] * count
    for id, piece in enumerate(pieces):
        text = _NAMES[id].encode() if id < len(_NAMES) else piece.text
        found.set(id, text, piece.score, NORMAL if piece.type == USER_DEFINED else piece.type)
    for place, special in enumerate(_SPECIALS):
        found.set(len(pieces) + place, special.encode(), 0.0, CONTROL)
    keys.add("tokenizer.ggml.model", "llama", "string")
    keys.add("tokenizer.ggml.pre", "chatglm-spm", "string")
    keys.add("tokenizer.ggml.tokens", found.tokens, "string")
    keys.add("tokenizer.ggml.scores", found.scores, "float32")
    keys.add("tokenizer.ggml.token_type", found.types, "int32")
    SpecialTokens(folder, folder.checkpoint.config, size=count).write(keys)


def set_chatglm_ranks(
    folder: TokenizerFolder, config: dict[str, Any], keys: Keys, specials: tuple[tuple[str, str], ...]
) -> None:
    """Set the keys of a vocabulary of ranks (tokenizer.model) and added tokens.

    specials: kinds of special tokens and their texts. Raises CheckpointError if the files do not fit together.
    """
    path = folder.checkpoint.file("tokenizer.model")
    if path is None or path.stat().st_size > MAX_FILE:
        raise CheckpointError(f"tokenizer.model is missing, or larger than {MAX_FILE} bytes")
    ranks = read_ranks(path.read_bytes(), "tokenizer.model")
    size = config.get("padded_vocab_size", config.get("vocab_size"))
    added, count = folder.configured, len(ranks)
    last = max(added, default=count - 1)
    if not isinstance(size, int) or max(count, last + 1) > size or min(added, default=count) < count:
        raise CheckpointError(
            f"tokenizer.model has {count} tokens and tokenizer_config.json ids up to {last}, but config.json a size of "
            f"{size!r:.30}; the files do not belong together"
        )
    texts = [*map(text_of, ranks), *(f"[PAD{id}]" for id in range(len(ranks), size))]
    types = [NORMAL] * len(ranks) + [UNUSED] * (size - len(ranks))
    for id, token in added.items():
        texts[id], types[id] = token.text, CONTROL if token.special else USER_DEFINED
    keys.add("tokenizer.ggml.model", "gpt2", "string")
    keys.add("tokenizer.ggml.pre", "chatglm-bpe", "string")
    keys.add("tokenizer.ggml.tokens", texts, "string")
    keys.add("tokenizer.ggml.token_type", types, "int32")
    special = SpecialTokens(folder, folder.checkpoint.config)
    special.merges = merges_by_rank(ranks)
    ids = {token.text: id for id, token in added.items()}
    for kind, text in specials:
        special.set(kind, ids.get(text))
    special.write(keys)
