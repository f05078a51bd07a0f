"""The tokenizer: text to token ids and back.

    with llamacpu.GGUFFile("model.gguf") as file:
        tokenizer = llamacpu.Tokenizer(file)
    ids = tokenizer.encode("Hello")
    tokenizer.decode(ids, skip_special=True)

The file may contain only a vocabulary. Everything is copied out of it, so it can be closed afterwards. This module
interprets the metadata; splitting, merging and decoding are done in native code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llamacpu import _native, log
from llamacpu.arguments import described
from llamacpu.text.checks import check_text
from llamacpu.text.vocabularies import KEY, default_id, kind_of, needs_bos, numbers

if TYPE_CHECKING:
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.gguf.metadata import Metadata

__all__ = ["StreamDecoder", "Tokenizer"]


# Texts of end-of-turn tokens, best first, used if no metadata key names the token.
_END_OF_TURN = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|eot|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<end_of_utterance>",
)

# Tokens for infilling: metadata keys, then texts, best first.
_FILL_IN = {
    "prefix": (
        ("fim_pre_token_id", "prefix_token_id"),
        ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>", "\u2581<PRE>"),
    ),
    "suffix": (
        ("fim_suf_token_id", "suffix_token_id"),
        ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>", "\u2581<SUF>"),
    ),
    "middle": (
        ("fim_mid_token_id", "middle_token_id"),
        ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>", "\u2581<MID>"),
    ),
    "padding": (("fim_pad_token_id",), ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>")),
    "repository": (("fim_rep_token_id",), ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    "separator": (("fim_sep_token_id",), ("<|file_sep|>",)),
}


# ggml's token types for tokens that are not plain text.
_CONTROL, _USER_DEFINED = 3, 4


class Tokenizer:
    """The tokenizer of a GGUF file: text to token ids and back.

    vocab_size          number of tokens
    bos, eos, eot, unk  ids of the tokens for beginning of text, end of text, end of turn and unknown text; None if
                        the vocabulary has no such token. For an encoder, beginning of text is [CLS]
    sep                 id of the token that separates or ends texts for an encoder, [SEP]; None if there is none
    eog                 all ids that end a generation
    fim                 ids of the infilling tokens that the vocabulary has: "prefix", "suffix", "middle", ...
    add_bos, add_eos, add_sep    whether `encode` adds the token to a text when asked to add special tokens

    Raises `ModelError` for a tokenizer that is not supported and `GGUFError` for arrays that contradict each other.
    A tokenizer is immutable, so threads may share it.
    """

    def __init__(self, file: GGUFFile) -> None:
        if not hasattr(file, "metadata"):
            raise TypeError(f"file is {described(file)}; expected a GGUFFile, as in Tokenizer(GGUFFile(path))")
        metadata = file.metadata
        kind = kind_of(metadata.text(KEY + "model"))
        self.vocab_size: int = metadata.strings(KEY + "tokens").count
        self.unk: int | None = self._id(metadata, "unknown_token_id", kind.ids.get("unk"))
        types = numbers(metadata, "token_type", "int32")
        self._native = kind.native(metadata, types, self.unk)
        self.bos: int | None = self._first_id(metadata, kind.keys_of("bos"), default_id(metadata, kind, "bos"))
        self.eos: int | None = self._first_id(metadata, kind.keys_of("eos"), kind.ids.get("eos"))
        self.sep: int | None = self._first_id(metadata, kind.keys_of("sep"), kind.ids.get("sep"))
        eot = self._id(metadata, "eot_token_id", None)
        self.eot: int | None = self._by_text(_END_OF_TURN) if eot is None else eot
        adds_bos = needs_bos(metadata) or metadata.flag(KEY + "add_bos_token", self._native.adds_bos)
        self.add_bos: bool = adds_bos and self.bos is not None
        self.add_eos: bool = metadata.flag(KEY + "add_eos_token", kind.add_eos) and self.eos is not None
        self.add_sep: bool = kind.framed and self.sep is not None
        self.fim: dict[str, int] = self._fill_in(metadata)
        # Some files mark these tokens as user-defined, but what tells the model about files must not come from text.
        plain = [id for id in self.fim.values() if types is not None and types[id] == _USER_DEFINED]
        if types is not None and plain:
            types = types.copy()
            types[plain] = _CONTROL
            self._native = kind.native(metadata, types, self.unk)
        self.eog: frozenset[int] = self._endings(metadata)

    def encode(
        self, text: str | bytes, add_special: bool = True, parse_special: bool = False, *, space_prefix: bool = True
    ) -> list[int]:
        """The token ids of `text`.

        add_special    put BOS ([CLS]) before the text and EOS ([SEP]) after it if the model expects them
        parse_special  convert names of control tokens in the text to these tokens. Leave it off for untrusted text:
                       only a prompt produced by a template may contain control tokens. Tokens that the vocabulary
                       declares user-defined are always matched.
        space_prefix   False keeps a SentencePiece vocabulary from putting a space before the text; use it for a text
                       that continues another one

        Raises ValueError for a lone surrogate in the text.
        """
        try:
            ids = self._native.encode(text, parse_special, space_prefix)
        except UnicodeEncodeError:
            check_text(str(text))
            raise
        if add_special:
            if self.add_bos and self.bos is not None:
                if ids and ids[0] == self.bos:
                    log.warning("the text already begins with BOS (token %d): now there are two", self.bos)
                ids.insert(0, self.bos)
            if self.add_eos and self.eos is not None:
                ids.append(self.eos)
            if self.add_sep and self.sep is not None:
                ids.append(self.sep)
        return ids

    def truncate(self, ids: list[int], length: int) -> list[int]:
        """The first `length` ids returned by `encode`, with the token that ends every text still in last place."""
        ending = self.sep if self.add_sep else self.eos if self.add_eos else None
        if len(ids) <= length or ending is None or ids[-1] != ending or length < 1:
            return ids[:length]
        return [*ids[: length - 1], ending]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids` as a text of its own, without the space that `encode` put before it.

        Control and unknown tokens are shown by name, or omitted if `skip_special` is set. Bytes that are not valid
        UTF-8 become U+FFFD. Spaces before punctuation are preserved.
        """
        return self._native.decode(_listed(ids), not skip_special, True).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The bytes of `ids` exactly as they continue a text: nothing is removed or replaced."""
        return self._native.decode(_listed(ids), not skip_special, False)

    def stream(self, skip_special: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one by one and continue a text."""
        return StreamDecoder(self._native.stream(not skip_special))

    def id_to_piece(self, id: int) -> str:
        """The text of a token as stored in the file, for instance 'Ġworld' or '▁world' for ' world'."""
        return self._native.piece(id)

    def token_to_id(self, text: str) -> int | None:
        """The id of the token whose text in the file is `text`, or None."""
        return self._native.token(text)

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocab_size} tokens>"

    def _id(self, metadata: Metadata, name: str, default: int | None) -> int | None:
        """The token id under a key, or `default` if the key is missing.

        None for an id outside the vocabulary, with a warning unless it is a common way to write "none".
        """
        if KEY + name not in metadata:
            return default if default is not None and default < self.vocab_size else None
        id = metadata.integer(KEY + name, minimum=-(2**63), maximum=2**64 - 1)
        if 0 <= id < self.vocab_size:
            return id
        if id not in (-1, 2**32 - 1):  # how converters write "none"
            log.warning("%s is %d, outside of the vocabulary of %d tokens: ignored", KEY + name, id, self.vocab_size)
        return None

    def _first_id(self, metadata: Metadata, names: tuple[str, ...], default: int | None) -> int | None:
        """The id under the first of these keys that is present."""
        return self._id(metadata, next((name for name in names if KEY + name in metadata), names[0]), default)

    def _by_text(self, texts: Iterable[str]) -> int | None:
        return next((found for found in map(self._native.token, texts) if found is not None), None)

    def _fill_in(self, metadata: Metadata) -> dict[str, int]:
        found = {}
        for part, (keys, texts) in _FILL_IN.items():
            ids = [id for key in keys if (id := self._id(metadata, key, None)) is not None]
            id = ids[0] if ids else self._by_text(texts)
            if id is not None:
                found[part] = id
        return found

    def _endings(self, metadata: Metadata) -> frozenset[int]:
        ids = {self.eot}
        eom = self._id(metadata, "eom_token_id", None)
        # Where messages have headers of their own, answers continue after the end of a message (Muse Glimmer).
        if eom is not None and not (self.id_to_piece(eom) == "<|eom|>" and self._by_text(("<|message|>",)) is not None):
            ids.add(eom)
        # If the file names no EOS, the default id counts only if its token is a control token.
        if self.eos is not None and (KEY + "eos_token_id" in metadata or self._native.is_control(self.eos)):
            ids.add(self.eos)
        ids.update(self.fim.get(part) for part in ("padding", "repository", "separator"))
        return frozenset(self._native.endings) | {id for id in ids if id is not None}


class StreamDecoder:
    """A decoder for ids that arrive one by one; the text it returns never ends inside a character."""

    def __init__(self, native: _native.StreamDecoder) -> None:
        self._native = native

    def push(self, id: int) -> str:
        """The text that this token completes; it may be empty."""
        return self._native.push(id)

    def flush(self) -> str:
        """The rest at the end of the text: U+FFFD if an incomplete character is left, else nothing."""
        return self._native.flush()


def _listed(ids: Iterable[int]) -> list[int]:
    return ids if isinstance(ids, list) else list(ids)
