"""The kinds of vocabulary in GGUF files (tokenizer.ggml.model).

For each kind, the native tokenizer built from it and the default ids of special tokens, which are llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llamacpu import _native, log
from llamacpu.errors import GGUFError, ModelError

if TYPE_CHECKING:
    import numpy.typing

    from llamacpu.gguf.metadata import Metadata

    Types = numpy.typing.NDArray[Any] | None

__all__ = ["KEY", "Kind", "default_id", "kind_of", "needs_bos", "numbers"]


KEY = "tokenizer.ggml."


@dataclass(frozen=True)
class Kind:
    """A kind of vocabulary.

    describes   description for error messages
    native      builds the tokenizer from a file's metadata, its token types and the id of the unknown token
    ids         default ids of special tokens for which the file has no key
    keys        keys of a special token, of which the first that is present counts; unlisted tokens have one key
    add_eos     whether a text ends with EOS if the file does not say
    framed      whether a text is always enclosed in BOS and the separator ([CLS] and [SEP])
    """

    describes: str
    native: Callable[[Metadata, Types, int | None], _native.Tokenizer]
    ids: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    add_eos: bool = False
    framed: bool = False

    def keys_of(self, name: str) -> tuple[str, ...]:
        """The keys of a special token, without their common prefix."""
        return self.keys.get(name, _KEYS.get(name, (f"{name}_token_id",)))


def kind_of(model: str) -> Kind:
    """The kind that tokenizer.ggml.model names. Raises ModelError for one that is not supported."""
    found = _KINDS.get(model)
    if found is None:
        supported = ", ".join(f"{name!r} ({kind.describes})" for name, kind in _KINDS.items())
        raise ModelError(f"tokenizer model {model[:60]!r} is not supported; supported are {supported}")
    return found


def default_id(metadata: Metadata, kind: Kind, name: str) -> int | None:
    """The default id of a special token that the file does not name."""
    # ChatGLM has no BOS, although its kind of vocabulary usually does.
    if name == "bos" and metadata.get(KEY + "pre") in ("glm4", "chatglm-bpe"):
        return None
    return kind.ids.get(name)


def needs_bos(metadata: Metadata) -> bool:
    """Whether texts begin with BOS regardless of the file: encoders require it, and files of Gemma 4 wrongly deny it
    (llama.cpp overrides both)."""
    model, pre = metadata.get(KEY + "model"), metadata.get(KEY + "pre")
    return model in ("bert", "gemma4") or pre in ("gemma4", "granite-embed-multi-311m")


def numbers(metadata: Metadata, name: str, type_name: str) -> numpy.typing.NDArray[Any] | None:
    """The array under a key, of any numeric type in the file, contiguous and converted to `type_name`.

    None if the key is missing. Raises GGUFError if it is not an array of numbers.
    """
    import numpy

    array = metadata.get(KEY + name)
    if array is None:
        return None
    if not isinstance(array, numpy.ndarray) or array.dtype.kind not in "iuf":
        raise GGUFError(f"metadata key {KEY + name!r} is no array of numbers; one number for each token is needed")
    with numpy.errstate(all="ignore"):
        return numpy.ascontiguousarray(array, type_name)


def _pieces(metadata: Metadata, types: Types, unknown: int | None) -> _native.Tokenizer:
    tokens = metadata.strings(KEY + "tokens")
    return _native.Tokenizer.sentence_piece(
        (tokens.data(), tokens.count),
        types,
        numbers(metadata, "scores", "float32"),
        unknown,
        metadata.flag(KEY + "add_space_prefix", True),
        _keeps_space(metadata),
    )


def _pairs(metadata: Metadata, types: Types, unknown: int | None) -> _native.Tokenizer:
    pre = metadata.text(KEY + "pre", "")
    if not pre:
        log.warning(
            "the file does not say how text is cut into words (%spre): the default rule is used, and answers may be "
            "worse than the model's; convert the model again to get a file that says it",
            KEY,
        )
    return _merged(metadata, types, pre, "kept")


def _lines(metadata: Metadata, types: Types, unknown: int | None) -> _native.Tokenizer:
    return _merged(metadata, types, "gemma4", "kept")


def _between_spaces(metadata: Metadata, types: Types, unknown: int | None) -> _native.Tokenizer:
    pre = metadata.text(KEY + "pre", "whitespace")
    lowercase = metadata.flag(KEY + "normalizer.lowercase", pre != "whitespace")
    return _merged(metadata, types, pre, "dropped, lowercase" if lowercase else "dropped")


def _merged(
    metadata: Metadata, types: Types, pre: str, white_space: Literal["kept", "dropped", "dropped, lowercase"]
) -> _native.Tokenizer:
    tokens, merges = metadata.strings(KEY + "tokens"), metadata.strings(KEY + "merges")
    return _native.Tokenizer.byte_pair(
        (tokens.data(), tokens.count), types, (merges.data(), merges.count), pre, _keeps_space(metadata), white_space
    )


def _word_pieces(metadata: Metadata, types: Types, unknown: int | None) -> _native.Tokenizer:
    tokens = metadata.strings(KEY + "tokens")
    lowercase = metadata.flag(KEY + "normalizer.lowercase", True)
    return _native.Tokenizer.word_piece(
        (tokens.data(), tokens.count),
        types,
        unknown,
        lowercase,
        metadata.flag(KEY + "normalizer.strip_accents", lowercase),
    )


def _unigrams(metadata: Metadata, types: Types, unknown: int | None) -> _native.Tokenizer:
    import numpy

    tokens = metadata.strings(KEY + "tokens")
    charsmap = metadata.get(KEY + "precompiled_charsmap")
    if charsmap is not None and not (isinstance(charsmap, numpy.ndarray) and charsmap.dtype.itemsize == 1):
        raise GGUFError(f"metadata key {KEY}precompiled_charsmap is no array of bytes (int8 or uint8)")
    return _native.Tokenizer.unigram(
        (tokens.data(), tokens.count),
        types,
        numbers(metadata, "scores", "float32"),
        unknown,
        None if charsmap is None or charsmap.size == 0 else charsmap.tobytes(),
        metadata.flag(KEY + "add_space_prefix", False),
        metadata.flag(KEY + "remove_extra_whitespaces", False),
    )


def _keeps_space(metadata: Metadata) -> list[str] | None:
    """The special tokens after which Phi-3 does not drop white space; only the model's name identifies it, no key."""
    name = metadata.get("general.name")
    is_phi = isinstance(name, str) and any(part in name.lower() for part in ("phi-3", "phi3"))
    return ["<unk>", "<s>", "<|endoftext|>"] if is_phi else None


# The first spelling (sic) is GGUF's.
_SEPARATOR = ("seperator_token_id", "separator_token_id")
_BOS_OR_CLS = ("bos_token_id", "cls_token_id")
_KEYS = {"sep": _SEPARATOR}
_KINDS = {
    "llama": Kind("SentencePiece", _pieces, {"bos": 1, "eos": 2, "unk": 0}),
    "gpt2": Kind("byte-level BPE", _pairs, {"bos": 11, "eos": 11}),
    "gemma4": Kind("BPE of characters", _lines),
    "whitespace": Kind("BPE of words between white space", _between_spaces, {"bos": 11, "eos": 11}),
    "bert": Kind("WordPiece", _word_pieces, {"bos": 101, "sep": 102, "unk": 100}, {"bos": _BOS_OR_CLS}, framed=True),
    "t5": Kind(
        "Unigram",
        _unigrams,
        {"eos": 1, "unk": 2},
        # XLM-R writes <s> and </s>, DeBERTa [CLS] and [SEP].
        {"bos": _BOS_OR_CLS, "eos": ("eos_token_id", *_SEPARATOR)},
        add_eos=True,
    ),
}
