"""Random configurations, all switches: the native forward pass against the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llamacpu
from config_models import open_config_model, write_config_model
from llamacpu.families.config import Config
from reference_model import ReferenceModel, is_exact
from split_logits import logits_of_any_split
from thorough import examples

pytestmark = pytest.mark.instruction_set

LATENT = {"latent_size": 8, "query_latent_size": 8, "rope_size": 4}
INDEXER = {"indexer_heads": 2, "indexer_size": 8, "indexer_top": 3}
RECURRENT: dict[str, Any] = {
    "recurrent_heads": [2],
    "recurrent_key_heads": 2,
    "recurrent_key_size": 4,
    "recurrent_value_size": 4,
    "convolution_size": 3,
}
KINDS_OF_NORMS = ["none", "head", "each_head", "width", "rotated_head", "unweighted"]


@st.composite
def layers_with_heads_of_their_own(
    draw: st.DrawFn, fields: dict[str, Any], heads: list[int], kv_heads: list[int], key_size: int
) -> dict[str, Any]:
    """Heads that differ between layers, values that are keys, and layers that share both; `kv_heads` are fitted."""
    layers = range(len(heads))
    keys = [key_size if fields["rotation"][layer] == "global" else 2 * draw(st.integers(4, 20)) for layer in layers]
    values = [draw(st.integers(1, 40)) for _ in layers]
    sources, same = list(layers), [draw(st.booleans()) for _ in layers]
    values = [keys[layer] if same[layer] else values[layer] for layer in layers]

    def sight(layer: int) -> tuple[int, int]:
        return fields["window"][layer], fields["chunk"][layer]

    for layer in layers:
        earlier = [at for at in range(layer) if sources[at] == at and kv_heads[at] and sight(at) == sight(layer)]
        if earlier and kv_heads[layer] and draw(st.booleans()):
            source = draw(st.sampled_from(earlier))
            if keys[source] < (key_size if fields["rotation"][layer] == "global" else 8):
                continue  # fewer elements than the layer rotates
            sources[layer], keys[layer], values[layer] = source, keys[source], values[source]
            heads[layer] = heads[layer] // kv_heads[layer] * kv_heads[source]
            kv_heads[layer], same[layer] = kv_heads[source], False
    turned = 2 * draw(st.integers(1, 4))
    return {
        "key_sizes": keys, "value_sizes": values, "kv_source": sources, "keys_as_values": same,
        "rope_local_size": turned,
    }  # fmt: skip


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Any sizes and any switches that fit together."""
    layers = draw(st.integers(1, 4))
    latent = draw(st.sampled_from([0, 0, 0, 8, 40]))
    key_size = 2 * draw(st.integers(2, 40))
    experts = draw(st.sampled_from([0, 0, 4, 6, 12]))

    def each(values: Any) -> list[Any]:
        return [draw(values) for _ in range(layers)]

    kv_heads = [1] * layers if latent else each(st.integers(1, 3))
    heads = [shared * draw(st.integers(1, 4)) for shared in kv_heads]
    gate = draw(st.sampled_from(["own", "own", "fused", "none"]))
    functions = ["silu", "gelu", "gelu_tanh", "tanh", "relu_squared"] + ["clamped_silu"] * (gate != "none")
    parallel = draw(st.booleans()) and draw(st.booleans())
    fields: dict[str, Any] = {
        "window": each(st.sampled_from([0, 5, 30])),
        "temperature": each(st.sampled_from([0.0, 0.1])),
        "temperature_length": draw(st.integers(3, 30)),
        "temperature_offset": draw(st.integers(0, 1)),
        "rotation": each(st.sampled_from(["global", "global", "local", "none"])),
        "query_key_norm": [] if latent else each(st.sampled_from(KINDS_OF_NORMS)),
    }
    fields["chunk"] = [0 if window else draw(st.sampled_from([0, 7])) for window in fields["window"]]
    if draw(st.booleans()):  # layers without parts, as pruned models have
        fate = draw(st.integers(0, 2))
        if not latent and fate == 0:
            kv_heads[-1] = 0
        elif fate == 1:
            heads[-1] = kv_heads[-1] = 0
    if draw(st.booleans()) and draw(st.booleans()):
        key_heads = draw(st.integers(1, 3))
        fields |= {
            "recurrent_heads": [draw(st.sampled_from([0, 1, 1, 2])) * key_heads for _ in range(layers)],
            "recurrent_key_heads": key_heads,
            "recurrent_key_size": draw(st.integers(1, 40)),
            "recurrent_value_size": draw(st.integers(1, 40)),
            "recurrent_head_order": draw(st.sampled_from(["grouped", "interleaved"])),
            "convolution_size": draw(st.integers(1, 5)),
        }
        for layer, recurrent in enumerate(fields["recurrent_heads"]):
            if recurrent:
                heads[layer] = kv_heads[layer] = 0
    # Recurrent layers have no keys that others could share.
    if not latent and draw(st.booleans()):
        fields |= draw(layers_with_heads_of_their_own(fields, heads, kv_heads, key_size))
    feed_forward = each(st.integers(1, 70))
    if draw(st.booleans()) and draw(st.booleans()):
        feed_forward[-1] = 0
    if experts:
        groups = draw(st.sampled_from([0, 2]))
        fields |= {
            "experts": experts,
            "experts_used": draw(st.integers(1, experts // 2)),
            "expert_feed_forward": draw(st.integers(1, 40)),
            "shared_feed_forward": draw(st.sampled_from([0, 24])),
            "expert_weights_norm": draw(st.booleans()),
            "expert_weights_scale": draw(st.sampled_from([1.0, 2.5])),
            "expert_weights_on_input": draw(st.booleans()),
            "expert_gating": draw(st.sampled_from(["softmax", "sigmoid", "softmax_selected", "sparse_mixer"])),
            "expert_groups": groups,
            "expert_groups_used": 1 if groups else 0,
            "expert_group_score": draw(st.sampled_from(["best", "two_best"])),
        }
    rope_size = 2 * draw(st.integers(1, key_size // 2 - 1))
    between = draw(st.sampled_from([0, 12])) if latent else 0
    if between and any(heads) and draw(st.booleans()):
        # The first layer with attention chooses keys; later ones may reuse its choice.
        first = next(layer for layer in range(layers) if heads[layer])
        chooses = [layer == first or (bool(heads[layer]) and draw(st.booleans())) for layer in range(layers)]
        fields |= {
            "window": [], "chunk": [], "indexer": chooses,
            "indexer_heads": draw(st.integers(1, 9)), "indexer_size": rope_size + draw(st.integers(0, 40)),
            "indexer_top": draw(st.integers(1, 30)),
            "indexer_rope_style": draw(st.sampled_from(["interleaved", "neox"])),
        }  # fmt: skip
    return Config(
        architecture="test",
        vocab_size=50,
        context_length=200,
        embedding_length=draw(st.integers(16, 80)),
        layers=layers,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=kv_heads,
        key_size=key_size,
        value_size=draw(st.integers(1, 70)),
        latent_size=latent,
        query_latent_size=between,
        norm=draw(st.sampled_from(["rms", "layer"])),
        norm_epsilon=1e-5,
        norms="before" if parallel else draw(st.sampled_from(["before", "behind", "both"])),
        norm_weights=draw(st.sampled_from([True, True, False])),
        parallel=parallel,
        parallel_norm=parallel and draw(st.booleans()),
        attention_norm=draw(st.sampled_from(["attn_norm", "attn_norm_2"])),
        alibi=0.0 if latent else draw(st.sampled_from([0.0, 0.0, 8.0, 5.5])),
        query_key_value_limit=0.0 if latent else draw(st.sampled_from([0.0, 0.0, 0.7])),
        feed_forward_norm=draw(st.sampled_from(["ffn_norm", "spare_norm"])),
        rope_size=rope_size,
        rope_base=draw(st.sampled_from([100.0, 1e4])),
        rope_local_base=draw(st.sampled_from([0.0, 300.0])),
        rope_style=draw(st.sampled_from(["interleaved", "neox"])),
        rope_scaling=draw(st.sampled_from(["none", "linear", "yarn", "longrope"])),
        rope_factor=draw(st.sampled_from([1.5, 8.0])),
        rope_original_context=draw(st.sampled_from([32, 400])),
        yarn_ext_factor=1.0,
        yarn_truncate=draw(st.booleans()),
        yarn_attn_factor=draw(st.sampled_from([1.0, 1.25])),
        attention_scale=draw(st.sampled_from([0.0, 0.2])),
        attention_soft_cap=draw(st.sampled_from([0.0, 3.0])),
        logit_soft_cap=draw(st.sampled_from([0.0, 4.0])),
        logit_scale=draw(st.sampled_from([1.0, 0.25])),
        embedding_scale=draw(st.sampled_from([1.0, 5.0])),
        residual_scale=draw(st.sampled_from([1.0, 0.5])),
        embedding_norm=draw(st.booleans()),
        embedding_norm_weights=draw(st.booleans()),
        output_norm_epsilon=draw(st.sampled_from([0.0, 0.1])),
        attention_gate="none" if latent else draw(st.sampled_from(["none", "own", "query"])),
        value_norm=not latent and draw(st.booleans()),
        per_layer_input=draw(st.sampled_from([0, 0, 6])),
        layer_scale=draw(st.sampled_from([[], [True] * layers, [layer % 2 == 0 for layer in range(layers)]])),
        experts_beside=experts > 0 and draw(st.booleans()),
        gate=gate,
        activation=draw(st.sampled_from(functions)),
        **fields,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@settings(max_examples=examples(120))
@given(
    config=configurations(),
    count=st.integers(1, 80),
    seed=st.integers(0, 2**32 - 1),
    biases=st.booleans(),
    tied=st.booleans(),
    data=st.data(),
)
def test_any_configuration_against_exact_arithmetic(
    folder: Path, config: Config, count: int, seed: int, biases: bool, tied: bool, data: st.DataObject
) -> None:
    path = write_config_model(folder / "model.gguf", config, seed, biases, tied)
    with open_config_model(path, config, data.draw(st.integers(1, 2))) as model:
        tokens, got = logits_of_any_split(model, count, seed, data)
    reference = ReferenceModel(path, config)
    # Another key is seen where 32 bits cannot tell which of two is better.
    assert is_exact(got, reference, tokens) or reference.margin < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "swish"}, r"\"activation\" cannot be \"swish\": expected one of \"silu\""),
        ({"norms": "beside"}, "norms"),
        ({"query_key_norm": ["heads"]}, "query_key_norm"),
        ({"rotation": ["global", "global"]}, "rotation has 2 entries for 1 layers"),
        ({"window": [4], "chunk": [4]}, "a window of 4 and chunks of 4"),
        ({"gate": "none", "activation": "clamped_silu"}, "gate"),
        ({"temperature": [0.1]}, "temperature_length is 0"),
        ({"experts": 6, "experts_used": 4, "expert_groups": 3, "expert_groups_used": 1}, "groups"),
        ({"heads": [0]}, "0 query heads"),
        ({"alibi": -1.0}, "alibi is -1"),
        ({"alibi": 8.0, "latent_size": 8, "rope_size": 4}, "latent_size"),
        ({"parallel_norm": True}, "parallel_norm"),
        ({"key_sizes": [6], "rope_size": 8}, "layer 0 rotates 8 elements of heads that have 6"),
        ({"key_sizes": [7], "rotation": ["none"]}, "even number"),
        ({"indexer": [True], **INDEXER}, "latent attention"),
        ({"indexer": [False], **INDEXER, **LATENT}, "false for the first layer"),
        ({"indexer": [True], **INDEXER, **LATENT, "window": [4]}, "neither windows nor chunks"),
        ({"indexer": [True], **INDEXER, **LATENT, "indexer_top": 0}, "indexer_top is 0"),
        ({"indexer": [True], **INDEXER, **LATENT, "indexer_size": 2}, "indexer_size is 2"),
        ({"kv_source": [1]}, "expected an earlier layer"),
        ({"keys_as_values": [True], "value_sizes": [5]}, "keys of 8 elements and values of 5"),
        ({"key_sizes": [8], "latent_size": 8, "rope_size": 4}, "heads of one size"),
        ({"attention_gate": "own", "latent_size": 8, "rope_size": 4}, "attention_gate"),
        (
            {"attention_gate": "other"},
            r"\"attention_gate\" cannot be \"other\": expected one of \"none\", \"own\", \"query\"",
        ),
        ({"recurrent_heads": [2]}, "recurrent_key_heads is 0"),
        (RECURRENT | {"recurrent_heads": [3], "heads": [0], "kv_heads": [0]}, "3 recurrent heads for 2 key heads"),
        (RECURRENT, "1 heads of attention and 2 recurrent heads: expected one of the two"),
        (RECURRENT | {"heads": [0], "kv_heads": [0], "convolution_size": 65}, "convolution_size is 65"),
        (RECURRENT | {"heads": [0], "kv_heads": [0], "causal": False}, "causal is false"),
        (RECURRENT | {"recurrent_heads": [2, 2]}, "recurrent_heads has 2 entries for 1 layers"),
        ({"output_norm_epsilon": -1.0}, "output_norm_epsilon is -1"),
        ({"second_attention_norm": True}, "second_attention_norm"),
        ({"lent_layers": [0]}, "lent_layers"),
        ({"input": "rows", "states_width": 16, "next_width": 8}, "lent_layers"),
        ({"input": "rows", "states_width": 16, "next_width": 8, "lent_layers": [0, 1]}, "lent_layers"),
        ({"input": "rows", "states_width": 16, "next_width": 8, "lent_layers": [0], "alibi": 8.0}, "lent_layers"),
        ({"input": "rows", "states_width": 16, "next_width": 8, "lent_layers": [0], "chunk": [4]}, "windows"),
        ({"input": "rows", "window": [4]}, "windows"),
        ({"row_window": [4]}, "row_window"),
        ({"input": "rows", "row_window": [4, 4]}, "row_window has 2 entries"),
        ({"ignored_tensors": ["blk"], "norm_epsilon": 0.0}, "norm_epsilon"),
    ],
)
def test_switches_that_mean_nothing_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = dict(
        architecture="test", vocab_size=50, context_length=200, embedding_length=16, layers=1, feed_forward=[8],
        heads=[1], kv_heads=[1], key_size=8, value_size=8, norm_epsilon=1e-5, rope_size=8, rope_original_context=200,
    )  # fmt: skip
    path = write_config_model(folder / "refused.gguf", Config(**fields))
    with pytest.raises(llamacpu.ModelError, match=message):
        open_config_model(path, Config(**fields | changes))
