"""The reference outputs inside the repository (tests/golden): templates, vocabularies, logits; made by its make.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from family_shapes import SHAPES
from llamacpu import Model
from llamacpu.chat import ChatTemplate, fixed_time
from llamacpu.chat.builtin import BUILTINS, source_of
from llamacpu.errors import TemplateError
from template_cases import DAY, SNIPPETS
from test_templates import CONVERSATIONS, TOOLS
from tiny_models import VARIANTS
from tiny_tokenizers import spm_vocabulary
from vocabulary_files import native_pairs, native_pieces

FOLDER = Path(__file__).with_name("golden")
TEMPLATES: list[dict[str, Any]] = json.loads((FOLDER / "templates.json").read_text(encoding="utf-8"))
VOCABULARY: dict[str, Any] = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
TEXTS: list[str] = VOCABULARY["texts"]
RULES = sorted(VOCABULARY.keys() - {"texts", "tokens", "merges", "spm"})
LOGITS = np.load(FOLDER / "logits.npz")
FAMILY_LOGITS = np.load(FOLDER / "family_logits.npz")
SOURCES = {**{name: source_of(template) for name, template in BUILTINS.items()}, **SNIPPETS}


@pytest.mark.parametrize("name", SOURCES)
def test_templates_render_as_transformers_rendered_them(name: str) -> None:
    cases = [case for case in TEMPLATES if case["template"] == name]
    assert cases
    template = ChatTemplate(SOURCES[name], bos_token="<s>", eos_token="</s>")
    for case in cases:
        messages, tools = CONVERSATIONS[case["conversation"]], TOOLS if case["tools"] else None
        if "error" in case:
            with pytest.raises(TemplateError, match=re.escape(case["error"]) or None):
                template.render(messages, tools=tools, add_generation_prompt=True)
        else:
            with fixed_time(DAY):
                assert template.render(messages, tools=tools, add_generation_prompt=True) == case["text"]


@pytest.mark.parametrize("rule", RULES)
def test_byte_level_vocabularies_give_the_ids_of_the_tokenizers_package(rule: str) -> None:
    tokenizer = native_pairs(VOCABULARY["tokens"], VOCABULARY["merges"], rule)
    assert len(VOCABULARY[rule]) == len(TEXTS)
    for text, ids in zip(TEXTS, VOCABULARY[rule], strict=True):
        assert tokenizer.encode(text, False, True) == ids, text
        assert tokenizer.decode(ids, True, True).decode() == text


def test_rules_differ_in_their_ids() -> None:
    """The texts tell the rules apart, but for llama-bpe and dbrx, which differ in whole words only."""
    assert len({json.dumps(VOCABULARY[rule]) for rule in RULES}) >= len(RULES) - 1


def test_a_sentencepiece_vocabulary_gives_the_ids_of_the_tokenizers_package() -> None:
    tokens = spm_vocabulary()
    tokenizer = native_pieces([text for text, _, _ in tokens], [score for _, score, _ in tokens], 0)
    for text, ids in zip(TEXTS, VOCABULARY["spm"], strict=True):
        assert tokenizer.encode(text, False, True) == ids, text


@pytest.mark.instruction_set
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_logits_are_those_of_the_reference(tiny_model: Callable[..., Path], variant: str) -> None:
    prompt = ((np.arange(40) * 37 + 11) % 360).tolist()
    with Model(tiny_model(variant), threads=2) as model:
        rows = model.session(kv_type="f32").forward(prompt, logits="all")[[19, 39]]
    expected = LOGITS[variant].astype(np.float64)
    assert ((rows - expected) ** 2).sum() / (expected**2).sum() < 1e-10


@pytest.mark.instruction_set
@pytest.mark.parametrize("name", SHAPES)
def test_logits_of_other_families_are_those_of_the_reference(tmp_path: Path, name: str) -> None:
    config = SHAPES[name]
    path = write_config_model(tmp_path / "model.gguf", config, biases=True)
    prompt = ((np.arange(40) * 37 + 11) % 360 % config.vocab_size).tolist()
    with open_config_model(path, config) as model:
        rows = model.session(kv_type="f32").forward(prompt, logits="all")[[19, 39]]
    expected = FAMILY_LOGITS[name].astype(np.float64)
    assert ((rows - expected) ** 2).sum() / (expected**2).sum() < 1e-10


def test_every_variant_has_its_logits() -> None:
    assert set(LOGITS.files) == set(VARIANTS)
    assert set(FAMILY_LOGITS.files) == set(SHAPES)
