"""The parts of a model's name: organization, base name, fine-tune, version, size, as the gguf package reads them."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ModelId", "parse_model_id", "size_label", "title"]

_VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_FORMAT = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = re.compile(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_TUNE = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
_VERSION_WORD = re.compile(r"(v\d+(?:\.\d+)*|\d.*)")


class ModelId(NamedTuple):
    """The parts of a model's name; None for what it does not say."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def title(text: str) -> str:
    """Words of a name with capital letters, but for versions: "tiny-llama-v2" is "Tiny Llama v2"."""
    words = text.strip().replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not _VERSION_WORD.fullmatch(word) else word for word in words)


def parse_model_id(model_id: str, parameters: int) -> ModelId:
    """The parts of a name like "meta-llama/Llama-3.2-1B-Instruct".

    parameters: of the model, 0 if unknown; a size in the name that differs widely is something else (the length of a
    context). Negative for an adapter: those of the matrices that it changes.
    """
    if " " in model_id:
        return ModelId(model_id)
    organization, slash, full = model_id.partition("/")
    if not slash:
        organization, full = "", model_id
    parts = [part for part in full.split("-") if part]
    kinds: list[set[str]] = [set() for _ in parts]
    for index, part in enumerate(parts):
        parts[index] = _classified(part, index, kinds[index], parameters)
    _drop_words_beside_numbers(parts, kinds)
    _mark_basename(parts, kinds)

    def joined(kind: str, without: str = "") -> str | None:
        found = [part for part, kind_ in zip(parts, kinds, strict=True) if kind in kind_ and without not in kind_]
        return "-".join(dict.fromkeys(found) if kind == "size_label" else found) or None

    basename, size, tune, version = (
        joined("basename"),
        joined("size_label"),
        joined("finetune"),
        joined("version", "basename"),
    )
    if size is None and tune is None and version is None:
        basename = None  # the whole name is no base name
    return ModelId(full, None if not slash or organization[:1] == "." else organization, basename, tune, version, size)


def _classified(part: str, index: int, kinds: set[str], parameters: int) -> str:
    if _VERSION.fullmatch(part):
        kinds.add("version")
    elif _FORMAT.fullmatch(part):
        kinds.add("type")
        return part.upper()
    elif index > 0 and _SIZE.fullmatch(part):
        return _size(part, kinds, parameters)
    elif index > 0 and _TUNE.fullmatch(part):
        kinds.add("type" if parameters < 0 and part.lower() == "lora" else "finetune")
    return part


def _is_other_size(named: float, parameters: int) -> bool:
    # An adapter need not change every layer.
    return named < -parameters // 8 if parameters < 0 else abs(named - parameters) > 7 * parameters // 8


def _size(part: str, kinds: set[str], parameters: int) -> str:
    part = part.replace("_", ".")
    if part[-1].isdecimal():  # "7b1" is 7.1 billion
        part = part[:-2] + "." + part[-1] + part[-2]
    if len(part) > 1 and part[-2].isdecimal() and part[-1] in "kmbt":
        part = part[:-1] + part[-1].upper()
    if parameters:
        try:
            named = float(part[:-1]) * 1000 ** " KMBT".find(part[-1])
        except ValueError:
            named = None
        if named is not None and _is_other_size(named, parameters):
            kinds.add("finetune")
            part = part[:-1] + part[-1].lower()
    if not kinds:
        kinds.add("size_label")
    return part


def _drop_words_beside_numbers(parts: list[str], kinds: list[set[str]]) -> None:
    sized = [index for index, kind in enumerate(kinds) if "size_label" in kind]
    if any(character.isdecimal() for index in sized for character in parts[index]):
        for index in sized:
            if parts[index].isalpha():
                kinds[index].remove("size_label")


def _mark_basename(parts: list[str], kinds: list[set[str]]) -> None:
    at_start = True
    for part, kind in zip(parts, kinds, strict=True):
        if at_start and ((not kind and part[0].isalpha()) or "version" in kind):
            kind.add("basename")
            continue
        at_start = False
        if not kind:
            kind.add("finetune")
    for kind in reversed(kinds):  # a version at the end does not belong to the base name
        if "basename" not in kind or len(kind) == 1:
            break
        kind.remove("basename")


def size_label(total: int, shared: int, expert: int, experts: int) -> str:
    """The size of a model in two digits: "1.2B", with experts "8x7B"."""
    return f"{experts}x{_rounded(shared + expert)}" if experts else _rounded(total)


def _rounded(count: int) -> str:
    scale, suffix = next(((s, t) for s, t in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if count > s), (1e3, "K"))
    scaled = count * {1e12: 1e-12, 1e9: 1e-9, 1e6: 1e-6, 1e3: 1e-3}[scale]
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{suffix}"
