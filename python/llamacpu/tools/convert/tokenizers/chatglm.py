"""The vocabulary of ChatGLM 2 and 3: a SentencePiece model, followed by special tokens that are in its code.

Source: tokenization_chatglm.py of THUDM/chatglm3-6b. The code is not run.
"""

from __future__ import annotations

from typing import Any

from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import CONTROL, NORMAL, USER_DEFINED
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.pieces import PieceVocabulary, has_pieces, piece_model
from llamacpu.tools.convert.tokenizers.ranks import has_ranks
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["has_chatglm_pieces", "set_chatglm_pieces"]

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
