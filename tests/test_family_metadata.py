"""What metadata of other families becomes, where no reference output shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import raw_gguf as raw
from llamacpu.errors import ModelError
from llamacpu.families.memory import kv_bytes, kv_numbers
from llamacpu.families.registry import FAMILIES, config_for
from llamacpu.gguf.file import GGUFFile
from raw_gguf import array, gguf_bytes, info, pair, scalar
from test_families import SMALLEST, f32, string, u32

Read = Callable[..., Any]

LATENT = {"attention.kv_lora_rank": u32(8)}
INDEXER = {f"attention.indexer.{part}": u32(8) for part in ("head_count", "key_length", "top_k")}
STATES = {
    "ssm.conv_kernel": u32(4),
    "ssm.state_size": u32(8),
    "ssm.group_count": u32(2),
    "ssm.time_step_rank": u32(4),
    "ssm.inner_size": u32(64),
}
STREAMS = {
    "attention.head_count_kv": u32(1),
    "attention.output_group_count": u32(1),
    "attention.output_lora_rank": u32(8),
    "attention.sliding_window": u32(8),
    "attention.compress_rope_freq_base": f32(100.0),
    "expert_count": u32(2),
    "expert_used_count": u32(1),
    "expert_feed_forward_length": u32(16),
    "expert_gating_func": u32(4),
    "hash_layer_count": u32(3),
    "swiglu_clamp_exp": f32(1.0),
    "hyper_connection.count": u32(2),
    "hyper_connection.sinkhorn_iterations": u32(3),
    "hyper_connection.epsilon": f32(1e-6),
}
NEEDED = {
    "deberta-v2": {"attention.relative_positions_max": u32(8)},
    "qwen2vl": {"rope.dimension_sections": array(raw.I32, [2, 3, 3, 0])},
    "qwen3vl": {"rope.dimension_sections": array(raw.I32, [3, 3, 2, 0])},
    "qwen3vlmoe": {"rope.dimension_sections": array(raw.I32, [3, 3, 2, 0])},
    "deepseek2": LATENT,
    "mistral4": LATENT,
    "deepseek32": LATENT | INDEXER,
    "glm-dsa": LATENT | INDEXER,
    "deepseek4": STREAMS | {"attention.q_lora_rank": u32(8), "attention.compress_ratios": array(raw.I32, [0] * 3)},
    "gemma4": {"attention.sliding_window": u32(8)},
    "muse-glimmer": {"attention.sliding_window": u32(8), "logit_scale": f32(0.5)},
    "qwen35": STATES,
    "qwen35moe": STATES,
    "qwen3next": STATES,
}
"""Keys that a family cannot do without, besides those of all."""


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read("gemma3", {"KEY": bytes})`: the configuration of a small file of this architecture with these keys."""

    def config(name: str, changes: dict[str, bytes] | None = None, tensors: tuple[str, ...] = ("x",)) -> Any:
        keys = {key.removeprefix("llama."): value for key, value in SMALLEST.items() if key.startswith("llama.")}
        keys |= {"attention.layer_norm_epsilon": f32(1e-5)} | (changes or {})
        pairs = [pair("general.architecture", string(name))]
        pairs += [pair("tokenizer.ggml.tokens", SMALLEST["tokenizer.ggml.tokens"])]
        pairs += [pair(f"{name}.{key}", value) for key, value in keys.items()]
        path = tmp_path / "model.gguf"
        infos = [info(tensor, [8], 0, 32 * index) for index, tensor in enumerate(tensors)]
        path.write_bytes(gguf_bytes(pairs, infos, bytes(32 * len(tensors))))
        with GGUFFile(path) as file:
            return config_for(file)

    return config


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"mllama"}))
def test_the_least_metadata_is_enough(read: Read, name: str) -> None:
    assert read(name, NEEDED.get(name)).architecture == name


def test_pruned_layers(read: Read) -> None:
    config = read(
        "deci",
        {
            "attention.head_count": array(raw.I32, [4, 4, 0]),
            "attention.head_count_kv": array(raw.I32, [2, 0, 0]),
            "feed_forward_length": array(raw.I32, [96, 0, 80]),
        },
    )
    assert (config.heads, config.kv_heads, config.feed_forward) == ([4, 4, 0], [2, 0, 0], [96, 0, 80])
    assert config.key_size == 16


def test_the_largest_gemmas_scale_scores_by_the_width(read: Read) -> None:
    sizes = {"attention.key_length": u32(32), "attention.value_length": u32(32)}
    for name, layers in (("gemma2", 46), ("gemma3", 62)):
        assert read(name, sizes | {"block_count": u32(layers)}).attention_scale == 0.25
        assert read(name, sizes).attention_scale == 0.0


def test_patterns_of_local_layers(read: Read) -> None:
    four = {"block_count": u32(4), "attention.sliding_window": u32(9)}
    assert read("cohere2", four).window == [9, 9, 9, 0]
    assert read("gemma3", four).window == [9, 9, 9, 9]
    assert read("gpt-oss", four).window == [9, 0, 9, 0]
    flags = array(raw.BOOL, [False, True, True, False])
    for given, expected in ((u32(2), [9, 0, 9, 0]), (flags, [0, 9, 9, 0])):
        assert read("gemma3", four | {"attention.sliding_window_pattern": given}).window == expected
    with pytest.raises(ModelError, match="sliding_window_pattern"):
        read("gemma3", four | {"attention.sliding_window_pattern": array(raw.BOOL, [True])})


def test_llama_4_without_a_window_rotates_everywhere(read: Read) -> None:
    config = read("llama4", {"block_count": u32(4), "attention.sliding_window": u32(0)})
    assert config.rotation == ["global"] * 4
    assert config.chunk == [0] * 4
    assert config.temperature == [0.0] * 4
    config = read("llama4", {"block_count": u32(4)})
    assert config.rotation == ["global"] * 3 + ["none"]
    assert config.chunk == [8192] * 3 + [0]


def test_tensors_say_what_metadata_does_not(read: Read) -> None:
    assert read("stablelm").parallel
    assert not read("stablelm", tensors=("blk.0.ffn_norm.weight",)).parallel
    assert read("command-r", tensors=("blk.1.attn_q_norm.weight",)).query_key_norm == ["none", "each_head", "none"]


def test_the_ramp_of_yarn_ends_between_pairs_in_published_models(read: Read) -> None:
    yarn = {"rope.scaling.type": string("yarn"), "rope.scaling.factor": f32(32)}
    published = yarn | {"rope.scaling.original_context_length": u32(4096)}
    assert read("gpt-oss", yarn).yarn_truncate
    assert not read("gpt-oss", published).yarn_truncate
    assert read("gpt-oss", published | {"rope.scaling.yarn_truncate": scalar(raw.BOOL, 1)}).yarn_truncate
    assert read("llama", published).yarn_truncate
    assert not read("llama", published | {"rope.scaling.yarn_truncate": scalar(raw.BOOL, 0)}).yarn_truncate


def test_full_layers_of_muse_glimmer(read: Read) -> None:
    """As the array says; a number n means every n-th; a base of the windowed layers' own is a local rotation."""
    least = NEEDED["muse-glimmer"] | {"block_count": u32(6)}
    flags = array(raw.BOOL, [True, False, True, True, True, False])
    config = read("muse-glimmer", least | {"attention.sliding_window_pattern": flags})
    assert config.window == [8, 0, 8, 8, 8, 0]
    assert config.rotation == ["global", "none", "global", "global", "global", "none"]
    config = read("muse-glimmer", least | {"attention.sliding_window_pattern": u32(3), "rope.freq_base_swa": f32(7.0)})
    assert config.window == [8, 8, 0, 8, 8, 0]
    assert (config.rotation, config.rope_local_base) == (["local", "local", "none"] * 2, 7.0)


def test_shared_keys_of_gemma_4_come_from_the_last_layer_of_the_kind(read: Read) -> None:
    keys = NEEDED["gemma4"] | {"block_count": u32(7), "attention.shared_kv_layers": u32(3)}
    flags = array(raw.BOOL, [False, True, False, True, True, False, True])
    config = read("gemma4", keys | {"attention.sliding_window_pattern": flags})
    assert config.kv_source == [0, 1, 2, 3, 3, 2, 3]
    assert kv_numbers(config, 5) == sum(5 * config.kv_heads[layer] * 2 * config.key_size for layer in range(4))
    flags = array(raw.BOOL, [True] * 4 + [False] * 3)
    with pytest.raises(ModelError, match="shared_kv_layers: layer 4 has no window, but none of the 4 layers"):
        read("gemma4", keys | {"attention.sliding_window_pattern": flags})


def test_layers_that_choose_keys(read: Read) -> None:
    """As the file says, without what it says of layers that predict further tokens; else those with the tensors."""
    keys = NEEDED["glm-dsa"] | {"block_count": u32(3), "nextn_predict_layers": u32(1)}
    types = array(raw.BOOL, [True, False, True])
    config = read("glm-dsa", keys | {"attention.indexer.types": types})
    assert (config.layers, config.indexer) == (2, [True, False])
    assert kv_numbers(config, 1) == 2 * (config.latent_size + config.rope_size)
    assert kv_bytes(config, 3, 2) == 3 * (4 * (config.latent_size + config.rope_size) + 4 * config.indexer_size)
    assert read("glm-dsa", keys, ("x", "blk.1.indexer.attn_k.weight")).indexer == [False, True]
    with pytest.raises(ModelError, match=r"indexer\.types"):
        read("glm-dsa", keys | {"attention.indexer.types": array(raw.BOOL, [True])})


def test_architectures_that_are_known_and_do_not_run(read: Read) -> None:
    for name, words in (("dflash", "a drafter"), ("eagle3", "a drafter")):
        with pytest.raises(ModelError, match=words):
            read(name)


def test_recurrent_layers(read: Read) -> None:
    """As the file lists them, with those that predict further tokens behind; or all but every n-th."""
    layers = {"block_count": u32(5), "nextn_predict_layers": u32(1)}
    listed = {"attention.recurrent_layers": array(raw.BOOL, [True, False, True, True, False])}
    config = read("qwen35", STATES | layers | listed)
    assert config.recurrent_heads == [4, 0, 4, 4]
    assert [bool(heads) for heads in config.heads] == [False, True, False, False]
    assert config.kv_heads[0] == config.kv_heads[2] == 0
    assert (config.recurrent_key_size, config.recurrent_value_size, config.convolution_size) == (8, 16, 4)
    assert config.ignored_tensors == ["blk.4."]
    assert read("qwen3next", STATES | {"block_count": u32(8)}).recurrent_heads == [4, 4, 4, 0] * 2
    every_second = read("qwen3next", STATES | {"block_count": u32(4), "full_attention_interval": u32(2)})
    assert every_second.recurrent_heads == [4, 0, 4, 0]
    assert read("qwen35", STATES).recurrent_head_order == "interleaved"
    assert read("qwen3next", STATES).recurrent_head_order == "grouped"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssm.time_step_rank": u32(3)}, "expected a multiple of the groups"),
        ({"ssm.inner_size": u32(63)}, "a divisor of the inner size"),
        ({"ssm.inner_size": u32(8000)}, "heads of at most 1024 elements"),
        ({"ssm.state_size": u32(2000)}, "ssm.state_size"),
        ({"ssm.conv_kernel": u32(0)}, "ssm.conv_kernel"),
        ({"ssm.group_count": u32(0)}, "ssm.group_count"),
        ({"attention.recurrent_layers": array(raw.BOOL, [True])}, "expected true or false for each of"),
        ({"attention.recurrent_layers": string("all")}, "expected true or false for each of"),
        ({"full_attention_interval": u32(0)}, "full_attention_interval"),
    ],
)
def test_recurrent_layers_that_mean_nothing_are_refused(read: Read, changes: dict[str, bytes], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read("qwen35", STATES | {"block_count": u32(3)} | changes)
