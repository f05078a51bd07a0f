"""Meta's tokenizer.model of Llama 3: lines of a token in base64 and its rank, as the tiktoken package reads them.

The special tokens are not in the file, but in Meta's code (tokenizer.py of llama3 and llama-models).
"""

from __future__ import annotations

import base64
import binascii
import itertools
from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.byte_pair import CONTROL, NORMAL
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.tekken import MAX_TOKEN_BYTES, MAX_TOKENS, merges_of, text_of

__all__ = ["MAX_FILE", "has_ranks", "merges_by_rank", "read_ranks", "set_ranks"]

MAX_FILE = 64 << 20
_FIRST = b"IQ== 0"  # "!", the first token
_SPECIALS = 256
# What is not reserved, by its place among the special tokens.
_LLAMA_3 = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"}
_LLAMA_3_1 = {**_LLAMA_3, 4: "finetune_right_pad_id", 8: "eom_id", 10: "python_tag"}


def has_ranks(folder: TokenizerFolder) -> bool:
    """Whether the tokenizer is a file of ranks, and nothing else."""
    path = folder.checkpoint.file("tokenizer.model")
    if path is None or folder.json:
        return False
    with path.open("rb") as file:
        return file.read(len(_FIRST)) == _FIRST


def set_ranks(folder: TokenizerFolder, config: dict[str, Any], keys: Keys) -> None:
    """Set the keys of the vocabulary; CheckpointError if the file is damaged or has another size than the embedding."""
    path = folder.checkpoint.file("tokenizer.model")
    if path is None or path.stat().st_size > MAX_FILE:
        raise CheckpointError(f"tokenizer.model is missing, or larger than {MAX_FILE} bytes")
    ranks = read_ranks(path.read_bytes(), "tokenizer.model")
    specials = _specials(_LLAMA_3_1 if config.get("rope_scaling") else _LLAMA_3)
    tokens = [*map(text_of, ranks), *specials]
    if config.get("vocab_size") != len(tokens):
        raise CheckpointError(
            f"tokenizer.model has {len(ranks)} tokens beside {len(specials)} special ones, but the embedding has "
            f"{config.get('vocab_size')} rows; the files do not belong together"
        )
    keys.add("tokenizer.ggml.model", "gpt2", "string")
    keys.add("tokenizer.ggml.pre", "llama-bpe", "string")
    keys.add("tokenizer.ggml.tokens", tokens, "string")
    keys.add("tokenizer.ggml.token_type", [NORMAL] * len(ranks) + [CONTROL] * len(specials), "int32")
    keys.add("tokenizer.ggml.merges", merges_of(ranks), "string")
    keys.add("tokenizer.ggml.bos_token_id", len(ranks), "uint32")
    keys.add("tokenizer.ggml.eos_token_id", len(ranks) + 1, "uint32")


def read_ranks(data: bytes, name: str, *, repeats: bool = False) -> dict[bytes, int]:
    """The ranks of the tokens in such a file.

    repeats: whether lines with a token that was there before are left out, and ranks counted without them.

    Raises CheckpointError naming `name` if the file is damaged.
    """
    ranks: dict[bytes, int] = {}
    for line in data.splitlines():
        text, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(text, validate=True)
        except binascii.Error:
            token = b""
        if repeats and token in ranks:
            continue
        if not (repeats or rank == str(len(ranks)).encode()) or not 0 < len(token) <= MAX_TOKEN_BYTES or token in ranks:
            raise CheckpointError(f"{name}: line {len(ranks) + 1} is not a new token and the rank {len(ranks)}")
        if len(ranks) == MAX_TOKENS:
            raise CheckpointError(f"{name}: more than {MAX_TOKENS} tokens")
        ranks[token] = len(ranks)
    missing = next((byte for byte in range(256) if bytes([byte]) not in ranks), None)
    if missing is not None:
        raise CheckpointError(f"{name}: there is no token for the byte {missing}; the file is not whole")
    return ranks


def merges_by_rank(ranks: dict[bytes, int]) -> list[str]:
    """The pair that each token is joined from, in the order of the ranks, as texts of a vocabulary of GPT-2's kind."""
    merges = []
    for token, rank in ranks.items():
        parts = [token[at : at + 1] for at in range(len(token))]
        while len(parts) > 2:
            pairs = (ranks.get(left + right, rank) for left, right in itertools.pairwise(parts))
            best, at = min((found, at) for at, found in enumerate(pairs))
            if best >= rank:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append(f"{text_of(parts[0])} {text_of(parts[1])}")
    return merges


def _specials(names: dict[int, str]) -> list[str]:
    reserved = 0
    result = []
    for place in range(_SPECIALS):
        if place in names:
            result.append(f"<|{names[place]}|>")
        else:
            result.append(f"<|reserved_special_token_{reserved}|>")
            reserved += 1
    return result
