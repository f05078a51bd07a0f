"""Makes the reference outputs in this folder: `python tests/golden/make.py`, with the `test` extra installed.

templates.json    our own chat templates and pieces of template, rendered by Hugging Face transformers
vocabulary.json   ids of texts by Hugging Face tokenizers: byte-level BPE under the expressions that the models publish,
                  and SentencePiece-style BPE with byte fallback, over the tiny vocabularies of the tests
logits.npz        logits of the tiny models by the NumPy reference, which computes in float64

Everything that goes in is of this project; no weights, vocabularies or templates of others.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent.parent / "python")]

from config_models import write_config_model  # noqa: E402
from family_shapes import SHAPES  # noqa: E402
from llamacpu.chat.builtin import BUILTINS, source_of  # noqa: E402
from reference_llama import ReferenceLlama  # noqa: E402
from reference_model import ReferenceModel  # noqa: E402
from template_cases import DAY, SNIPPETS  # noqa: E402
from test_templates import CONVERSATIONS, TOOLS  # noqa: E402
from tiny_models import VARIANTS, write_model  # noqa: E402
from tiny_tokenizers import spm_vocabulary  # noqa: E402

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HAN = r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"  # noqa: RUF001
EXPRESSIONS = {
    "gpt-2": [GPT2],
    "llama-bpe": [LLAMA3],
    "dbrx": [LLAMA3],
    "qwen2": [LLAMA3.replace("{1,3}", "")],
    "gpt-4o": [GPT4O],
    "tekken": [GPT4O.replace(CONTRACTIONS + "?", "").replace(r"\p{N}{1,3}", r"\p{N}")],
    "smollm": [r"\p{N}", GPT2],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+", DEEPSEEK_V3],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "bloom": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
    "seed-coder": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"],
}
WHOLE_WORDS = {"llama-bpe", "tekken"}
TEXTS = [
    "",
    " ",
    "once upon a time there was a little girl named lily",
    "  She LOVED to play, didn't she?\n\n\nYes:\tshe'd say I'LL!  ",
    "12345 1 23 4567.89 x1y22z333",
    "the park the parks theparK HTTPServer helloWorld's",
    "für é e\u0301 Ж日本語 かな 你好。 。、 २३ ²³ 🦙🦙",
    "a\u00a0b\u2028c\u3000d \r\n e\r f \n",
    "   leading, trailing   ",
    "def f(x):\n    return {'a': [1, 2]}  # <b>&\"`~^|$+=\n",
    "once\tupon\n a  time   one day",
    "''s 't'LL've \"quoted\" don’t…",  # noqa: RUF001
]


PROMPT = (np.arange(40) * 37 + 11) % 360


def templates() -> list[dict[str, Any]]:
    """(source name, conversation, tools, expected text or error) for the built-in templates and the pieces."""
    from transformers.utils.chat_template_utils import render_jinja_template

    cases = []
    chosen = ["one", "system", "turns", "reasoning", "tool call", "after a tool", "wrong order"]
    sources = {**{name: source_of(template) for name, template in BUILTINS.items()}, **SNIPPETS}
    for name, source in sources.items():
        for conversation in chosen if name in BUILTINS else ["after a tool"]:
            for tools in (False, True):
                case: dict[str, Any] = {"template": name, "conversation": conversation, "tools": tools}
                try:
                    texts, _ = render_jinja_template(
                        [CONVERSATIONS[conversation]],
                        chat_template=source,
                        tools=TOOLS if tools else None,
                        add_generation_prompt=True,
                        **SPECIAL,
                    )
                    case["text"] = texts[0].replace(str(date.today()), str(DAY.date()))
                except Exception as error:
                    case["error"] = str(error) if type(error).__module__.startswith("jinja2") else ""
                cases.append(case)
    return cases


def trained() -> tuple[list[str], list[str]]:
    """(tokens, merges) of a byte-level vocabulary that was trained on whole texts, so that merges cross every cut."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    trainee = Tokenizer(BPE())
    trainee.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = BpeTrainer(
        vocab_size=256 + 500, min_frequency=1, show_progress=False, initial_alphabet=sorted(ByteLevel.alphabet())
    )
    # Short pieces of the texts often enough that they are joined before long ones are.
    trainee.train_from_iterator([text[at : at + 6] for text in TEXTS for at in range(len(text))], trainer)
    model = json.loads(trainee.to_str())["model"]
    merges = [" ".join(merge) for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), merges


def byte_pairs(tokens: list[str], merges: list[str]) -> dict[str, list[list[int]]]:
    """The ids of every text under the rule of each name."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    found = {}
    for name, expressions in EXPRESSIONS.items():
        vocabulary = {text: number for number, text in enumerate(tokens)}
        pairs = [tuple(merge.split(" ")) for merge in merges]
        oracle = Tokenizer(BPE(vocabulary, pairs, ignore_merges=name in WHOLE_WORDS))
        cuts = [Split(Regex(expression), "isolated") for expression in expressions]
        oracle.pre_tokenizer = Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])
        found[name] = [oracle.encode(text).ids for text in TEXTS]
    return found


def pieces() -> list[list[int]]:
    """The ids of every text in a SentencePiece vocabulary: the pair whose piece has the best score is joined first."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.normalizers import Prepend, Replace, Sequence

    tokens = spm_vocabulary()
    ids = {text: number for number, (text, _, _) in enumerate(tokens)}
    merges = [
        (-score, (text[:cut], text[cut:]))
        for text, score, kind in tokens
        if kind == 1
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]
    model = BPE(ids, [pair for _, pair in sorted(merges)], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    oracle = Tokenizer(model)
    oracle.normalizer = Sequence([Prepend("▁"), Replace(" ", "▁")])
    return [oracle.encode(text).ids for text in TEXTS]


def logits() -> dict[str, Any]:
    """The last two rows of logits after 40 tokens, of each tiny model."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in VARIANTS.items():
            reference = ReferenceLlama(write_model(Path(folder) / f"{name}.gguf", shape))
            rows = reference.logits(PROMPT)
            found[name] = rows[[19, 39]].astype(np.float32)
    return found


def family_logits() -> dict[str, Any]:
    """The same of each configuration in the manner of another family."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in SHAPES.items():
            path = write_config_model(Path(folder) / "model.gguf", config, biases=True)
            rows = ReferenceModel(path, config).logits([token % config.vocab_size for token in PROMPT])
            found[name] = rows[[19, 39]].astype(np.float32)
    return found


def main() -> None:
    """Write the files."""
    # An item a line, so that a change shows what it changes.
    cases = ",\n".join(json.dumps(case) for case in templates())
    (FOLDER / "templates.json").write_text(f"[\n{cases}\n]\n", encoding="utf-8")
    tokens, merges = trained()
    rows = {"texts": TEXTS, "tokens": tokens, "merges": merges, "spm": pieces(), **byte_pairs(tokens, merges)}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in rows.items())
    (FOLDER / "vocabulary.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    np.savez_compressed(FOLDER / "logits.npz", **logits())
    np.savez_compressed(FOLDER / "family_logits.npz", **family_logits())


if __name__ == "__main__":
    main()
