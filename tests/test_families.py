"""Metadata to configuration: what every key becomes, its default, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

import raw_gguf as raw
from llamacpu.errors import ModelError
from llamacpu.families.config import Config
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile
from raw_gguf import array, gguf_bytes, info, pair, scalar
from tiny_models import VARIANTS

SMALLEST: dict[str, bytes] = {
    "general.architecture": scalar(raw.STRING, "llama"),
    "llama.context_length": scalar(raw.U32, 512),
    "llama.embedding_length": scalar(raw.U32, 64),
    "llama.block_count": scalar(raw.U32, 3),
    "llama.feed_forward_length": scalar(raw.U32, 96),
    "llama.attention.head_count": scalar(raw.U32, 4),
    "llama.attention.layer_norm_rms_epsilon": scalar(raw.F32, 2.0**-17),
    "tokenizer.ggml.tokens": array(raw.STRING, ["a", "b"]),
}
DEFAULTS: dict[str, Any] = {
    each.name: each.default_factory() if each.default_factory is not MISSING else each.default
    for each in fields(Config)
}
EXPECTED = DEFAULTS | {
    "architecture": "llama",
    "vocab_size": 2,
    "context_length": 512,
    "embedding_length": 64,
    "layers": 3,
    "feed_forward": [96, 96, 96],
    "heads": [4, 4, 4],
    "kv_heads": [4, 4, 4],
    "key_size": 16,
    "value_size": 16,
    "norm_epsilon": 2.0**-17,
    "rope_size": 16,
    "rope_original_context": 512,
    "window": [0, 0, 0],
}


def u32(value: int) -> bytes:
    return scalar(raw.U32, value)


def f32(value: float) -> bytes:
    return scalar(raw.F32, value)


def string(value: str) -> bytes:
    return scalar(raw.STRING, value)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`config({"llama.KEY": bytes or None})`: the configuration of the smallest file with these keys changed."""

    def read(changes: dict[str, bytes | None] | None = None, tensors: tuple[str, ...] = ("x",)) -> dict[str, Any]:
        pairs = [pair(key, value) for key, value in (SMALLEST | (changes or {})).items() if value is not None]
        infos = [info(name, [8], 0, 32 * index) for index, name in enumerate(tensors)]
        path = tmp_path / "model.gguf"
        path.write_bytes(gguf_bytes(pairs, infos, bytes(32 * len(tensors))))
        with GGUFFile(path) as file:
            return config_for(file)

    return read


def test_defaults(config: Callable[..., dict[str, Any]]) -> None:
    assert config() == EXPECTED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"llama.block_count": scalar(raw.I64, 3)}, {}),
        ({"llama.attention.layer_norm_rms_epsilon": scalar(raw.F64, 0.5)}, {"norm_epsilon": 0.5}),
        ({"llama.attention.head_count_kv": u32(2)}, {"kv_heads": [2, 2, 2]}),
        (
            {
                "llama.attention.head_count": array(raw.I32, [4, 8, 2]),
                "llama.attention.head_count_kv": array(raw.U32, [4, 2, 1]),
                "llama.feed_forward_length": array(raw.U64, [1, 2, 3]),
            },
            {"heads": [4, 8, 2], "kv_heads": [4, 2, 1], "feed_forward": [1, 2, 3]},
        ),
        ({"llama.attention.head_count": array(raw.I32, [4, 8, 2])}, {"heads": [4, 8, 2], "kv_heads": [4, 8, 2]}),
        ({"llama.attention.key_length": u32(32)}, {"key_size": 32, "rope_size": 32}),
        (
            {"llama.attention.key_length": u32(32), "llama.attention.value_length": u32(24)},
            {"key_size": 32, "rope_size": 32, "value_size": 24},
        ),
        ({"llama.rope.dimension_count": u32(8)}, {"rope_size": 8}),
        ({"llama.rope.freq_base": f32(5e5)}, {"rope_base": 5e5}),
        ({"llama.rope.freq_base": u32(1000000)}, {"rope_base": 1e6}),
        ({"llama.rope.scaling.factor": f32(4)}, {"rope_scaling": "linear", "rope_factor": 4.0}),
        ({"llama.rope.scale_linear": f32(2)}, {"rope_scaling": "linear", "rope_factor": 2.0}),
        ({"llama.rope.scaling.factor": f32(0)}, {}),
        ({"llama.rope.scaling.type": string("none"), "llama.rope.scaling.factor": f32(4)}, {}),
        (
            {
                "llama.rope.scaling.type": string("yarn"),
                "llama.rope.scaling.factor": f32(8),
                "llama.rope.scaling.original_context_length": u32(64),
                "llama.rope.scaling.attn_factor": f32(0.5),
                "llama.rope.scaling.yarn_beta_fast": f32(16),
            },
            {
                "rope_scaling": "yarn",
                "rope_factor": 8.0,
                "rope_original_context": 64,
                "yarn_ext_factor": 1.0,
                "yarn_attn_factor": 0.5,
                "yarn_beta_fast": 16.0,
            },
        ),
        ({"llama.attention.scale": f32(0.25)}, {"attention_scale": 0.25}),
        (
            {"llama.embedding_scale": f32(12), "llama.residual_scale": f32(0.5), "llama.logit_scale": f32(8)},
            {"embedding_scale": 12.0, "residual_scale": 0.5, "logit_scale": 0.125},
        ),
        (
            {"llama.expert_count": u32(8), "llama.expert_used_count": u32(2)},
            {"experts": 8, "experts_used": 2},
        ),
        (
            {
                "llama.expert_count": u32(8),
                "llama.expert_used_count": u32(3),
                "llama.expert_gating_func": u32(2),
                "llama.expert_weights_norm": scalar(raw.BOOL, 0),
                "llama.expert_weights_scale": f32(2.5),
            },
            {
                "experts": 8,
                "experts_used": 3,
                "expert_gating": "sigmoid",
                "expert_weights_norm": False,
                "expert_weights_scale": 2.5,
            },
        ),
        ({"llama.attention.sliding_window": u32(4096)}, {"window": [4096, 4096, 4096]}),
        ({"llama.tensor_data_layout": string("Meta")}, {}),
        (
            {"llama.rope.scaling.type": string("longrope"), "llama.rope.scaling.attn_factor": f32(1.25)},
            {"rope_scaling": "longrope", "yarn_attn_factor": 1.25},
        ),
        ({"llama.vocab_size": u32(7), "tokenizer.ggml.tokens": None}, {"vocab_size": 7}),
    ],
)
def test_keys(
    config: Callable[..., dict[str, Any]], changes: dict[str, bytes | None], expected: dict[str, Any]
) -> None:
    assert config(changes) == EXPECTED | expected


def test_yarn_multiplier(config: Callable[..., dict[str, Any]]) -> None:
    yarn = {"llama.rope.scaling.type": string("yarn"), "llama.rope.scaling.factor": f32(40)}
    found = config(yarn | {"llama.rope.scaling.yarn_log_multiplier": f32(1)})
    assert (found["yarn_attn_factor"], found["yarn_log_multiplier"]) == (1.0, 1.0)


@pytest.mark.parametrize("key", [key for key in SMALLEST if key != "tokenizer.ggml.tokens"])
def test_required_keys(config: Callable[..., dict[str, Any]], key: str) -> None:
    with pytest.raises(ModelError, match=rf"model\.gguf: metadata key '{key}' is missing"):
        config({key: None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.block_count": u32(0)}, "from 1 to 512"),
        ({"llama.block_count": u32(513)}, "from 1 to 512"),
        ({"llama.block_count": string("3")}, "expected an integer"),
        ({"llama.context_length": scalar(raw.I32, -1)}, "context_length"),
        ({"llama.embedding_length": scalar(raw.U64, 2**40)}, "embedding_length"),
        ({"llama.embedding_length": u32(63)}, "no multiple of 4 heads"),
        ({"llama.embedding_length": u32(60)}, "even number"),
        ({"llama.feed_forward_length": array(raw.U32, [1, 2])}, "or 3 of them"),
        ({"llama.feed_forward_length": array(raw.U32, [1, 0, 2])}, "feed_forward_length"),
        ({"llama.feed_forward_length": array(raw.F32, [1, 2, 3])}, "feed_forward_length"),
        ({"llama.attention.head_count": u32(0)}, "head_count"),
        ({"llama.attention.head_count_kv": u32(3)}, "expected a divisor"),
        ({"llama.attention.head_count_kv": u32(8)}, "expected a divisor"),
        ({"llama.attention.head_count_kv": u32(0)}, "head_count_kv"),
        ({"llama.attention.key_length": u32(15)}, "even number"),
        ({"llama.attention.key_length": u32(0)}, "key_length"),
        ({"llama.attention.layer_norm_rms_epsilon": f32(0)}, "greater than 0"),
        ({"llama.attention.layer_norm_rms_epsilon": f32(float("nan"))}, "finite"),
        ({"llama.rope.freq_base": f32(-1)}, "greater than 0"),
        ({"llama.rope.freq_base": f32(float("inf"))}, "finite"),
        ({"llama.rope.dimension_count": u32(18)}, "dimension_count"),
        ({"llama.rope.dimension_count": u32(7)}, "even number"),
        ({"llama.rope.scaling.type": string("dynamic")}, "runs none, linear, yarn and longrope"),
        ({"llama.attention.sliding_window": scalar(raw.I32, -1)}, "sliding_window"),
        ({"llama.rope.scaling.factor": f32(-2)}, "at least 0"),
        ({"llama.rope.scaling.type": string("yarn"), "llama.rope.scaling.factor": f32(0.5)}, "at least 1"),
        ({"llama.rope.scaling.type": string("yarn"), "llama.rope.freq_base": f32(1)}, "more than 1"),
        ({"llama.expert_count": u32(1025)}, "from 0 to 1024"),
        ({"llama.expert_count": u32(4)}, "expert_used_count"),
        ({"llama.expert_count": u32(4), "llama.expert_used_count": u32(5)}, "from 1 to 4"),
        ({"llama.expert_gating_func": u32(9)}, "expert_gating_func"),
        ({"tokenizer.ggml.tokens": array(raw.STRING, [])}, "empty"),
        ({"tokenizer.ggml.tokens": None, "llama.vocab_size": u32(0)}, "vocab_size"),
        ({"general.architecture": string("mamba")}, "'mamba' is not supported; supported are: arcee, "),
        ({"general.architecture": string("clip")}, "vision part"),
        ({"general.architecture": u32(3)}, "expected a string"),
        ({"general.type": string("adapter")}, "LoRA adapter"),
        ({"general.type": string("imatrix")}, "importance matrix"),
        ({"general.type": string("mmproj")}, "vision part"),
        ({"general.type": u32(1)}, "expected a string"),
    ],
)
def test_refused(config: Callable[..., dict[str, Any]], changes: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        config(changes)
    assert str(caught.value).startswith("model.gguf: ")
    assert "\n" not in str(caught.value)


def test_vocabulary_only(config: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match=r"a vocabulary and no weights; open it with llamacpu\.Tokenizer"):
        config(tensors=())


def test_embedding_must_have_one_row_a_token(config: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match=r"2 tokens, but token_embd\.weight has the shape \(8,\)"):
        config(tensors=("token_embd.weight",))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_a_configuration(tiny_model: Callable[..., Path], variant: str) -> None:
    shape = VARIANTS[variant]
    with GGUFFile(tiny_model(variant)) as file:
        found = config_for(file)
    assert found.keys() == EXPECTED.keys()
    assert (found["layers"], found["embedding_length"], found["experts"]) == (shape.layers, shape.width, shape.experts)


@pytest.fixture
def warnings_of(config: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    def read(changes: dict[str, bytes | None], tensors: tuple[str, ...] = ("x",)) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "llamacpu"):
            config(changes, tensors)
        return [record.getMessage() for record in caplog.records]

    return read


def test_warns_about_early_files_of_llama_3_1(warnings_of: Callable[..., list[str]]) -> None:
    early: dict[str, bytes | None] = {"llama.context_length": u32(131072), "llama.rope.freq_base": f32(5e5)}
    assert any("rope_freqs.weight" in message for message in warnings_of(early))
    assert warnings_of(early, ("rope_freqs.weight",)) == []
    assert warnings_of({}) == []


def test_a_configuration_is_fields_and_a_mapping(config: Callable[..., Any]) -> None:
    found = config()
    assert found.layers == found["layers"] == 3
    assert dict(found) == {**found} == EXPECTED
    with pytest.raises(KeyError):
        found["colour"]
    with pytest.raises(AttributeError):
        found.layers = 4
