"""Random sizes of DeepSeek V4's layers: the native forward pass against the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llamacpu
from config_models import open_config_model, write_config_model
from deepseek4_files import config
from llamacpu.families.config import Config
from reference_deepseek4 import ReferenceDeepseek4
from reference_model import is_exact
from split_logits import logits_of_any_split
from thorough import examples

pytestmark = pytest.mark.instruction_set


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Any sizes that fit together, and any ratios of compression."""
    layers = draw(st.integers(1, 3))
    compression = tuple(draw(st.sampled_from([0, 1, 2, 3, 4, 7, 16, 40])) for _ in range(layers))
    groups, turned = draw(st.integers(1, 3)), 2 * draw(st.integers(1, 6))
    size = turned + 2 * draw(st.integers(0, 20))
    chooses = [ratio > 0 and draw(st.booleans()) for ratio in compression]
    experts = draw(st.integers(2, 8))
    scaled = draw(st.booleans())
    fields: dict[str, Any] = {
        "embedding_length": 4 * draw(st.integers(2, 20)), "heads": [groups * draw(st.integers(1, 3))] * layers,
        "output_groups": groups, "output_rank": draw(st.integers(1, 40)), "rope_size": turned, "key_size": size,
        "value_size": size, "query_latent_size": draw(st.integers(2, 40)),
        "window": [draw(st.integers(1, 40))] * layers,
        "indexer": chooses if any(chooses) else [], "indexer_top": draw(st.integers(1, 8)),
        "indexer_heads": draw(st.integers(1, 20)), "indexer_size": turned + draw(st.integers(0, 20)),
        "streams": draw(st.integers(1, 5)), "stream_iterations": draw(st.integers(1, 20)),
        "hashed_layers": draw(st.integers(0, layers)), "experts": experts,
        "experts_used": draw(st.integers(1, experts)), "activation_limit": draw(st.sampled_from([0.3, 1.5, 10.0])),
        "expert_weights_norm": draw(st.booleans()), "shared_feed_forward": draw(st.sampled_from([20, 40])),
        "rope_scaling": "yarn" if scaled else "none", "rope_factor": 4.0 if scaled else 1.0,
        "yarn_ext_factor": 1.0 if scaled else 0.0, "yarn_log_multiplier": 1.0 if scaled else 0.0,
    }  # fmt: skip
    return config(compression, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@settings(max_examples=examples(60))
@given(config=configurations(), count=st.integers(1, 90), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_any_sizes_against_exact_arithmetic(
    folder: Path, config: Config, count: int, seed: int, data: st.DataObject
) -> None:
    path = write_config_model(folder / "model.gguf", config, seed)
    with open_config_model(path, config, data.draw(st.integers(1, 2))) as model:
        tokens, got = logits_of_any_split(model, count, seed, data)
    reference = ReferenceDeepseek4(path, config)
    # Another row or expert is seen where 32 bits cannot tell which of two is better.
    assert is_exact(got, reference, tokens) or reference.margin < 1e-5


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shared_rows": False, "indexer": []}, "expected none of them without shared_rows"),
        ({"output_groups": 3}, "a multiple of output_groups"),
        ({"compression": [0, 4, 2000, 4]}, "compression is 2000"),
        ({"indexer": [True, True, False, True]}, "expected compression above 0"),
        ({"window": [12, 0, 12, 12]}, "expected a window"),
        ({"kv_heads": [2] * 4}, "share one key of its own"),
        ({"value_size": 20}, "as large as the value"),
        ({"latent_size": 8}, "latent"),
        ({"query_latent_size": 0}, "query_latent_size"),
        ({"attention_soft_cap": 5.0}, "caps"),
        ({"streams": 17}, "streams"),
        ({"stream_iterations": 0}, "stream_iterations"),
        ({"parallel": True}, "streams"),
        ({"residual_scale": 0.5}, "streams"),
        ({"activation_limit": 0.0}, "activation_limit"),
        ({"activation": "silu"}, "activation_limit"),
        ({"hashed_layers": 5}, "hashed_layers"),
        ({"indexer_size": 4}, "indexer_size"),
    ],
)
def test_settings_that_mean_nothing_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = write_config_model(folder / "refused.gguf", config())
    with pytest.raises(llamacpu.ModelError, match=message):
        open_config_model(path, config(**changes))
