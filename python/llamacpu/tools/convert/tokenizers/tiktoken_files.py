"""Tokenizers whose ranks are in a file and whose special tokens are in the code that published checkpoints bring along.

Sources: tokenization_qwen.py of Qwen, tokenization_hy.py of Hunyuan. The code is not run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import CONTROL, NORMAL, UNUSED
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.ranks import MAX_FILE, merges_by_rank, read_ranks
from llamacpu.tools.convert.tokenizers.special import SpecialTokens
from llamacpu.tools.convert.tokenizers.tekken import text_of

__all__ = ["has_coded_ranks", "set_coded_ranks"]


class _Kind(NamedTuple):
    file: str
    rule: str
    """the name of the rule that cuts text into words"""
    specials: str
    extras: int
    """number of further special tokens, <|extra_0|> ..."""


_KINDS = {
    "qwen": _Kind("qwen.tiktoken", "qwen2", "endoftext im_start im_end", 205),
    "hunyuan": _Kind("hy.tiktoken", "hunyuan", "endoftext startoftext bos eos pad", 205),
}


def has_coded_ranks(folder: TokenizerFolder, kind: str) -> bool:
    """Whether the checkpoint has the file of ranks of a kind of tokenizer ("qwen", "hunyuan")."""
    return folder.checkpoint.file(_KINDS[kind].file) is not None


def set_coded_ranks(folder: TokenizerFolder, config: dict[str, Any], keys: Keys, kind: str) -> dict[str, int]:
    """Set the keys of the vocabulary; return the ids of its special tokens.

    Raises CheckpointError if the file is missing or damaged, or has more tokens than the embedding.
    """
    known = _KINDS[kind]
    path = folder.checkpoint.file(known.file)
    if path is None or path.stat().st_size > MAX_FILE:
        raise CheckpointError(
            f"{folder.checkpoint.folder}: {known.file} is missing, or larger than {MAX_FILE} bytes; the tokenizer of "
            "this model is in it"
        )
    ranks = read_ranks(path.read_bytes(), known.file, repeats=kind == "hunyuan")
    names = [*known.specials.split(), *(f"extra_{number}" for number in range(known.extras))]
    specials = {f"<|{name}|>": len(ranks) + place for place, name in enumerate(names)}
    size = config.get("vocab_size")
    if not isinstance(size, int) or size < len(ranks) + len(specials):
        raise CheckpointError(
            f"{known.file} has {len(ranks)} tokens beside {len(specials)} special ones, but the embedding has "
            f"{size!r:.30} rows; the files do not belong together"
        )
    unused = [f"[PAD{id}]" for id in range(len(ranks) + len(specials), size)]
    keys.add("tokenizer.ggml.model", "gpt2", "string")
    keys.add("tokenizer.ggml.pre", known.rule, "string")
    keys.add("tokenizer.ggml.tokens", [*map(text_of, ranks), *specials, *unused], "string")
    types = [NORMAL] * len(ranks) + [CONTROL] * len(specials) + [UNUSED] * len(unused)
    keys.add("tokenizer.ggml.token_type", types, "int32")
    special = SpecialTokens(folder, folder.checkpoint.config)
    special.merges = merges_by_rank(ranks)
    if kind == "qwen":
        if not special.ids:
            special.set("bos", specials["<|endoftext|>"])
            special.set("eos", specials["<|endoftext|>"])
        special.set("unk", specials["<|endoftext|>"])
    special.write(keys)
    return specials
