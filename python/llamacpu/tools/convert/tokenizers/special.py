"""Special tokens, and what is added to texts: bos_token_id, add_bos_token, the chat template.

The rules are those of the gguf package, whose files these have to match.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["KINDS", "SpecialTokens"]

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_ID_KEYS = {
    kind: f"tokenizer.ggml.{name}_token_id"
    for kind, name in {
        "bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask",
        "eot": "eot", "eom": "eom",
    }.items()
}  # fmt: skip
_ADDED = ("bos", "eos", "sep")
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits)


class SpecialTokens:
    """The special tokens of a checkpoint.

    ids         kind ("bos", "eos", "eot" ...) to id
    adds        kind to whether it is put around texts
    merges      of a BPE vocabulary, as two tokens with a space between them
    template    chat template: text, or a list of named ones
    lowercase, strip_accents  of the normalizer; None if it does not say
    """

    def __init__(
        self,
        folder: TokenizerFolder,
        config: dict[str, Any],
        *,
        merges: bool = False,
        size: int | None = None,
        kinds: Iterable[str] = KINDS,
    ) -> None:
        self.ids: dict[str, int] = {}
        self.adds: dict[str, bool] = {}
        self.merges: list[str] = []
        self.template: Any = None
        self.lowercase: bool | None = None
        self.strip_accents: bool | None = None
        self._size = size
        self._kinds = list(kinds)
        if folder.json:
            if merges:
                self.merges = _merges(folder.model.get("merges"))
            self._read_normalizer(folder.json.get("normalizer"))
        settings = dict(folder.config)
        if folder.json:
            self._read_post_processor(folder.json.get("post_processor"), settings)
        if folder.config:
            self._read_settings(folder, settings)
        for kind in self._kinds:
            id = config.get(f"{kind}_token_id")
            nested = config.get("text_config")
            if id is None and isinstance(nested, dict):
                id = nested.get(f"{kind}_token_id")
            self.set(kind, id)
        if merges and not self.merges:
            self.merges = _merges_file(folder)

    def set(self, kind: str, id: Any) -> None:
        """Set a special token unless it is known or the id is out of range."""
        if isinstance(id, bool) or not isinstance(id, int):
            return
        if id < 0:
            raise CheckpointError(f"the id of the {kind} token is {id}; expected one from 0 on")
        if self._size is None or id < self._size:
            self.ids.setdefault(kind, id)

    def write(self, keys: Keys) -> None:
        """Set the keys of a file."""
        if self.merges:
            keys.add("tokenizer.ggml.merges", self.merges, "string")
        for kind, id in self.ids.items():
            if kind in _ID_KEYS:
                keys.add(_ID_KEYS[kind], id, "uint32")
        for kind, value in self.adds.items():
            if kind in _ADDED:
                keys.add(f"tokenizer.ggml.add_{kind}_token", value, "bool")
        self._write_template(keys)
        for name, flag in (("lowercase", self.lowercase), ("strip_accents", self.strip_accents)):
            if flag is not None:
                keys.add(f"tokenizer.ggml.normalizer.{name}", flag, "bool")

    def _write_template(self, keys: Keys) -> None:
        if isinstance(self.template, str):
            keys.add("tokenizer.chat_template", self.template, "string")
            return
        default, names = None, []
        for entry in self.template or []:
            given, text = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
            if not isinstance(given, str) or not isinstance(text, str):
                continue
            name = "".join(c if c in _NAME_CHARACTERS else "_" for c in given)
            if name == "default":
                default = text
            elif name:
                names.append(name)
                keys.add(f"tokenizer.chat_template.{name}", text, "string")
        keys.add("tokenizer.chat_templates", sorted(set(names)), "string")
        if default is not None:
            keys.add("tokenizer.chat_template", default, "string")

    def _read_normalizer(self, normalizer: Any) -> None:
        if not isinstance(normalizer, dict):
            return
        kind = normalizer.get("type")
        if kind == "Lowercase":
            self.lowercase = True
        elif kind == "StripAccents":
            self.strip_accents = True
        elif kind == "BertNormalizer":
            self.lowercase = normalizer.get("lowercase", self.lowercase)
            self.strip_accents = normalizer.get("strip_accents", self.strip_accents)
        elif kind == "Sequence":
            for each in _list(normalizer.get("normalizers")):
                self._read_normalizer(each)

    def _read_post_processor(self, processor: Any, settings: dict[str, Any]) -> None:
        """What is put around a text and between two, from the template of tokenizer.json."""
        if not settings.get("bos_token") and settings.get("cls_token"):
            settings["bos_token"] = settings["cls_token"]
        if not settings.get("eos_token") and settings.get("sep_token"):
            settings["eos_token"] = settings["sep_token"]
        if not isinstance(processor, dict):
            return
        known = bool(settings)
        for each in _list(processor.get("processors", [processor])):
            kind = each.get("type") if isinstance(each, dict) else None
            if kind == "ByteLevel":
                self.adds.setdefault("bos", False)
                self.adds.setdefault("eos", False)
            elif kind == "RobertaProcessing":
                self.adds.update(bos=True, eos=True, sep=True)
                for name, beside in (("cls", "bos"), ("sep", "eos")):
                    if not settings.get(f"{name}_token") and known:
                        given = each.get(name)
                        settings[f"{name}_token"] = given[0] if _list(given) else settings.get(f"{beside}_token")
            elif kind == "TemplateProcessing":
                self._read_template(_list(each.get("single")), _list(each.get("pair")), settings, known)

    def _read_template(self, single: list[Any], pair: list[Any], settings: dict[str, Any], known: bool) -> None:
        first = _special(single[0]) if len(single) > 1 else None
        last = _special(single[-1]) if len(single) > 1 else None
        if first:
            if not known:
                settings["bos_token"] = first
            elif first not in _texts(settings, "bos", "cls"):
                for kind in ("bos", "cls"):
                    if not settings.get(f"{kind}_token"):
                        settings[f"{kind}_token"] = first
            self.adds["bos"] = first in _texts(settings, "bos", "cls")
        if last:
            if not known:
                settings["eos_token"] = last
            elif last not in _texts(settings, "eos"):
                spare = next((kind for kind in ("eot", "eom") if kind not in self._kinds), None)
                if spare:
                    self._kinds.append(spare)
                    settings[f"{spare}_token"] = settings.get("eos_token")
                settings["eos_token"] = last
            self.adds["eos"] = True
        if pair:
            self._read_pair(pair, first, last, settings, known)

    def _read_pair(self, pair: list[Any], first: Any, last: Any, settings: dict[str, Any], known: bool) -> None:
        start = 1 if first and _special(pair[0]) == first else 0
        stop = -1 if last and _special(pair[-1]) == last else None
        pair = pair[start:stop]
        if not pair or (_sequence(pair[0]), _sequence(pair[-1])) != ("A", "B") or not pair[1:-1]:
            return
        between = [_special(entry) for entry in pair[1:-1]]
        ends = _texts(settings, "sep", "eos")
        adds = between[0] in ends and not last
        if len(between) == 2 and between[1] in ends:
            adds = True
        self.adds["sep"] = adds
        if adds and not settings.get("sep_token") and known:
            settings["sep_token"] = settings.get("eos_token")

    def _read_settings(self, folder: TokenizerFolder, settings: dict[str, Any]) -> None:
        template = settings.get("chat_template", _template_files(folder))
        if template is None or isinstance(template, (str, list)):
            self.template = template
        for kind in self._kinds:
            added = settings.get(f"add_{kind}_token")
            if isinstance(added, bool):
                self.adds.setdefault(kind, added)
            text = _text(settings.get(f"{kind}_token"))
            if text is not None:
                self.set(kind, next((token["id"] for token in folder.listed if token["content"] == text), None))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _special(entry: Any) -> str | None:
    found = entry.get("SpecialToken") if isinstance(entry, dict) else None
    return found.get("id") if isinstance(found, dict) else None


def _sequence(entry: Any) -> str | None:
    found = entry.get("Sequence") if isinstance(entry, dict) else None
    return found.get("id") if isinstance(found, dict) else None


def _text(entry: Any) -> str | None:
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _texts(settings: dict[str, Any], *kinds: str) -> list[Any]:
    # As they stand: a token given as an object is not equal to its text here, in the gguf package neither.
    return [settings.get(f"{kind}_token") for kind in kinds]


def _template_files(folder: TokenizerFolder) -> Any:
    checkpoint = folder.checkpoint
    path = checkpoint.file("chat_template.jinja")
    if path is None:
        return (checkpoint.json("chat_template.json") or {}).get("chat_template")
    text = path.read_text("utf-8")
    more = sorted((checkpoint.folder / "additional_chat_templates").glob("*.jinja"))
    if not more:
        return text
    return [{"name": "default", "template": text}, *({"name": p.stem, "template": p.read_text("utf-8")} for p in more)]


def _merges(merges: Any) -> list[str]:
    """Merges as pairs with a space between them; spaces within a token are written as the letter for that byte."""
    if not isinstance(merges, list) or not merges:
        return []
    if all(isinstance(merge, str) for merge in merges):
        return merges
    if all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair) for pair in merges):
        return [" ".join(part.replace(" ", "\u0120") for part in pair) for pair in merges]
    raise CheckpointError("tokenizer.json: `merges` is neither a list of texts nor one of pairs")


def _merges_file(folder: TokenizerFolder) -> list[str]:
    path = folder.checkpoint.file("merges.txt")
    if path is None:
        return []
    lines = path.read_text("utf-8").split("\n")
    pairs = [line.split() for line in (lines[1:] if lines[0].startswith("#") else lines)]
    return [" ".join(pair) for pair in pairs if len(pair) == 2]
