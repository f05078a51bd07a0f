"""The rule by which a BPE tokenizer cuts text into words, as its name in tokenizer.ggml.pre.

First the structure of `pre_tokenizer` in tokenizer.json is looked up, then the ids of one text: models that cut text in
the same way have names of their own, and a rule that is written in another way gives the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from llamacpu import _native
from llamacpu.errors import CheckpointError, LlamaCpuError
from llamacpu.gguf.values import packed_string
from llamacpu.tools.convert.tokenizers.checksums import TEXT, known_tokenizer
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["frame", "name_of_rule"]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _words(digits: str) -> str:
    return (
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )  # fmt: skip


def _cased(contraction: str, digits: str) -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{start}{_UPPER}*{_LOWER}+{contraction}|{start}{_UPPER}+{_LOWER}*{contraction}"
        + rf"|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_DEEPSEEK_3 = (
    _PUNCTUATION + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES, _GPT_2 = "bytes", "bytes of words"
# The steps of a pre-tokenizer (expressions whose matches become words, in order) to the name of the rule.
_STRUCTURES: dict[tuple[str, ...], str] = {
    (_GPT_2,): "gpt-2",
    (_words("{1,3}"), _BYTES): "llama-bpe",
    (_words(""), _BYTES): "qwen2",
    ("digits", _GPT_2): "smollm",
    (_cased(_CONTRACTIONS + "?", "{1,3}"), _BYTES): "gpt-4o",
    (_cased("", ""), _BYTES): "tekken",
    (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_3, _BYTES): "deepseek-v3",
}
# One name of each rule of the native tokenizer; those that are likeliest first.
_RULES = (
    "llama-bpe", "qwen2", "gpt-2", "gpt-4o", "tekken", "deepseek-v3", "smollm", "smaug-bpe", "deepseek-llm",
    "deepseek-coder", "falcon", "qwen35", "kimi-k2", "command-r", "bloom", "poro-chat", "viking", "gemma4",
    "exaone-moe", "superbpe", "seed-coder", "youtu", "afmoe", "minicpm5", "laguna", "jais-2", "tiny_aya", "chameleon",
    "spark2_5", "ufakzeka", "bailingmoe", "granite-embed-multi-97m", "granite-embed-multi-311m", "sarvam-moe",
    "gpt3-finnish",
)  # fmt: skip


def name_of_rule(folder: TokenizerFolder, tokens: Sequence[str], types: Sequence[int], special: SpecialTokens) -> str:
    """The name of the rule; CheckpointError if it is not one that is known."""
    before, after = frame(folder)
    expected = _STRUCTURES.get(_steps(folder.json.get("pre_tokenizer")))
    if expected == "llama-bpe" and not folder.model.get("ignore_merges"):
        expected = "smaug-bpe"
    arrays = _array(tokens), np.array(types, np.int32), _array(special.merges)
    for rule in (expected,) if expected else _RULES:
        try:
            native = _native.Tokenizer.byte_pair(*arrays, rule, None)
        except LlamaCpuError as error:
            if expected:
                raise CheckpointError(f"tokenizer.json cannot be used: {error}") from None
            continue
        name = known_tokenizer([*before, *native.encode(TEXT, False, False), *after])
        if name:
            return name
    if expected:
        return expected
    shown = json.dumps(folder.json.get("pre_tokenizer"))
    raise CheckpointError(
        f"tokenizer.json: text is cut into words in a way that is not known (pre_tokenizer {shown:.200}); "
        "expected the rule of a published model"
    )


def frame(folder: TokenizerFolder) -> tuple[list[int], list[int]]:
    """The ids that the post-processor of tokenizer.json puts before and after a text."""
    processor = folder.json.get("post_processor")
    if not isinstance(processor, dict):
        return [], []
    before: list[int] = []
    after: list[int] = []
    for each in processor.get("processors", [processor]):
        if not isinstance(each, dict):
            continue
        if each.get("type") in ("RobertaProcessing", "BertProcessing"):
            before, after = _second(each.get("cls")), _second(each.get("sep"))
        if each.get("type") == "TemplateProcessing":
            before, after = _template_ids(each)
    return before, after


def _template_ids(template: dict[str, Any]) -> tuple[list[int], list[int]]:
    sides: tuple[list[int], list[int]] = ([], [])
    side = 0
    for entry in template.get("single", ()):
        if "Sequence" in entry:
            side = 1
            continue
        known = template.get("special_tokens", {}).get(entry.get("SpecialToken", {}).get("id"), {})
        sides[side].extend(id for id in known.get("ids", []) if isinstance(id, int))
    return sides


def _second(pair: Any) -> list[int]:
    return [pair[1]] if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int) else []


def _array(texts: Sequence[str]) -> tuple[bytes, int]:
    return b"".join(map(packed_string, texts)), len(texts)


def _steps(pre_tokenizer: Any) -> tuple[str, ...]:
    """A pre-tokenizer as the expressions that it applies; ("unknown",) if it does something else."""
    if not isinstance(pre_tokenizer, dict):
        return ("unknown",)
    steps: list[str] = []
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "ByteLevel" and not step.get("add_prefix_space"):
            steps.append(_GPT_2 if step.get("use_regex", True) else _BYTES)
        elif kind == "Digits" and step.get("individual_digits"):
            steps.append("digits")
        elif kind == "Split" and (step.get("behavior"), bool(step.get("invert"))) in _MATCHES:
            pattern = step.get("pattern")
            expression = pattern.get("Regex") if isinstance(pattern, dict) else None
            steps.append(expression if isinstance(expression, str) else "unknown")
        else:
            return ("unknown",)
    return tuple(steps)


_MATCHES = {("Isolated", False), ("Removed", True)}
