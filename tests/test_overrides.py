"""Metadata in place of the file's: the model is the one that a file with these values would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from llamacpu.llama import Llama
from test_forward import tokens_for
from tiny_models import Shape

TinyModel = Callable[..., Path]
PLAIN = Shape(head_size=32)
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64}


def logits(path: Path, **settings: Any) -> Any:
    with Llama(path, n_ctx=0, logits_all=True, **settings) as found:
        return found.eval(tokens_for(found.model, 80)).copy()


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (replace(PLAIN, rope_base=5e5), {"rope_freq_base": 5e5}),
        (replace(PLAIN, extra={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}), {"rope_freq_scale": 0.25}),
        (replace(PLAIN, extra=YARN), {"rope_scaling_type": 2, "rope_freq_scale": 0.125, "yarn_orig_ctx": 64}),
        (
            replace(PLAIN, extra={**YARN, "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0}),
            {
                "rope_scaling_type": 2,
                "rope_freq_scale": 0.125,
                "yarn_orig_ctx": 64,
                "yarn_beta_fast": 16.0,
                "yarn_beta_slow": 2.0,
            },
        ),
        (replace(PLAIN, extra={"attention.scale": 0.3}), {"kv_overrides": {"llama.attention.scale": 0.3}}),
    ],
)
def test_arguments_are_as_good_as_metadata(tiny_model: TinyModel, shape: Shape, settings: dict[str, Any]) -> None:
    expected = logits(tiny_model(shape))
    assert np.array_equal(logits(tiny_model(PLAIN), **settings), expected)
    assert not np.array_equal(logits(tiny_model(PLAIN)), expected)


def test_scaling_can_be_switched_off(tiny_model: TinyModel) -> None:
    yarn = tiny_model(replace(PLAIN, extra=YARN))
    assert np.array_equal(logits(yarn, rope_scaling_type=0), logits(tiny_model(PLAIN)))


def test_defaults_leave_it_to_the_file(tiny_model: TinyModel) -> None:
    yarn = tiny_model(replace(PLAIN, extra={**YARN, "rope.scaling.yarn_beta_fast": 16.0}))
    expected = logits(yarn)
    same = {"yarn_beta_fast": 32.0, "rope_freq_base": 0.0, "rope_freq_scale": 1.0, "kv_overrides": {}}
    assert np.array_equal(logits(yarn, **same), expected)


def test_overrides_reach_the_tokenizer_and_the_fingerprint(tiny_model: TinyModel) -> None:
    path = tiny_model("mha")
    overrides = {"tokenizer.ggml.add_bos_token": False, ".attention.scale": 0.5}
    with llamacpu.Model(path) as plain, llamacpu.Model(path, overrides=overrides) as other:
        assert other.metadata["llama.attention.scale"] == 0.5
        assert plain.tokenizer.encode("once")[1:] == other.tokenizer.encode("once")
        assert plain.fingerprint != other.fingerprint
    with Llama(path, vocab_only=True, kv_overrides=overrides) as found:
        assert found.metadata["tokenizer.ggml.add_bos_token"] == "false"


def test_wrong_overrides_are_errors(tiny_model: TinyModel) -> None:
    path = tiny_model("mha")
    with pytest.raises(llamacpu.ModelError, match="freq_base"):
        llamacpu.Model(path, overrides={".rope.freq_base": "much"})
    with pytest.raises(llamacpu.ModelError, match="block_count"):
        llamacpu.Model(path, overrides={"llama.block_count": 10**9})
    with pytest.raises(llamacpu.ModelError):
        llamacpu.Model(path, overrides={".embedding_length": 128})
    with pytest.raises(TypeError, match="list"):
        llamacpu.Model(path, overrides={"llama.block_count": [1]})  # type: ignore[dict-item]
