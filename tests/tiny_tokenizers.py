"""Vocabularies of a few hundred tokens for the tiny model files: SentencePiece-style and byte-level BPE."""

from __future__ import annotations

from functools import cache

from gguf import GGUFWriter, TokenType

_TEXT = (
    "the and was to a once upon time there little girl named lily she loved play outside in park one day saw big tree "
    "with many leaves wanted climb it but too high her friend tom came help her"
)
_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPM_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
)
BPE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def _prefixes(words: list[str], mark: str) -> list[str]:
    """Every prefix of two or more characters of the marked words, in the order of first use."""
    pieces: dict[str, None] = {}
    for word in words:
        marked = mark + word
        for end in range(2, len(marked) + 1):
            pieces[marked[:end]] = None
    return list(pieces)


@cache
def spm_vocabulary() -> list[tuple[str, float, int]]:
    """(text, score, type): unknown, start, end, 256 bytes, pieces with falling scores, single characters."""
    tokens = [
        ("<unk>", 0.0, int(TokenType.UNKNOWN)),
        ("<s>", 0.0, int(TokenType.CONTROL)),
        ("</s>", 0.0, int(TokenType.CONTROL)),
    ]
    tokens += [(f"<0x{byte:02X}>", 0.0, int(TokenType.BYTE)) for byte in range(256)]
    pieces = _prefixes(_TEXT.split(), "▁") + ["▁" + "▁" * count for count in range(1, 4)]
    characters = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-", "é", "你"]
    texts = pieces + characters
    return tokens + [(text, -float(rank), int(TokenType.NORMAL)) for rank, text in enumerate(texts)]


@cache
def byte_letters() -> list[str]:
    """The visible character that stands for each byte in GPT-2's vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(0x100 + rank) for rank, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


@cache
def bpe_vocabulary() -> tuple[list[tuple[str, int]], list[str]]:
    """((text, type) of every token, merges): 256 bytes, the merged pieces, special tokens as in Llama 3."""
    letters = byte_letters()
    space = letters[0x20]
    pieces = _prefixes(_TEXT.split(), space)
    merges = [f"{piece[:-1]} {piece[-1]}" for piece in pieces]
    tokens = [(text, int(TokenType.NORMAL)) for text in letters + pieces]
    return tokens + [(text, int(TokenType.CONTROL)) for text in _SPECIAL], merges


def token_count(kind: str) -> int:
    """Number of tokens of the vocabulary `kind`: spm, bpe, or tiny (eight pieces, for sweeps over every byte)."""
    return {"spm": len(spm_vocabulary()), "bpe": len(bpe_vocabulary()[0]), "tiny": len(_TINY)}[kind]


_TINY = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab"]


def add_tokenizer(writer: GGUFWriter, kind: str) -> None:
    """Writes the tokenizer metadata."""
    if kind == "bpe":
        tokens, merges = bpe_vocabulary()
        texts = [text for text, _ in tokens]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(texts)
        writer.add_token_types([kind for _, kind in tokens])
        writer.add_token_merges(merges)
        writer.add_bos_token_id(texts.index("<|begin_of_text|>"))
        writer.add_eos_token_id(texts.index("<|eot_id|>"))
        writer.add_chat_template(BPE_TEMPLATE)
        return
    vocabulary = spm_vocabulary()
    if kind == "tiny":
        vocabulary = [(text, -float(rank), 1 + (rank == 0) + 2 * (rank in (1, 2))) for rank, text in enumerate(_TINY)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in vocabulary])
    writer.add_token_scores([score for _, score, _ in vocabulary])
    writer.add_token_types([kind for _, _, kind in vocabulary])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if kind == "spm":
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(True)
        writer.add_chat_template(SPM_TEMPLATE)
