"""Shapes of this year's models, cut to a few layers: every metadata key, matrix and vector of their files.

Vocabularies and widths are the published ones. The layers kept are those of one period of the model, so that each kind
of layer occurs as often as it does in the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CURRENT", "Description"]


@dataclass(frozen=True)
class Description:
    """A file: metadata (keys without the architecture prefix), matrices (row length last), vectors and their value."""

    architecture: str
    layers: int
    vocabulary: int
    tied: bool
    metadata: dict[str, Any]
    matrices: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    vectors: list[tuple[str, int, float]] = field(default_factory=list)

    def norms(self, block: str, width: int, *names: str) -> None:
        """Add the norms of a block."""
        self.vectors.extend((f"{block}.{name}.weight", width, 1.0) for name in names)

    def network(self, block: str, width: int, inner: int, kind: str = "", *, experts: tuple[int, ...] = ()) -> None:
        """Add a gated network, or a stack of them."""
        for name, sizes in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
            self.matrices.append((f"{block}.ffn_{name}{kind}", (*experts, *sizes)))


def _description(
    architecture: str, layers: int, width: int, heads: int, vocabulary: int, tied: bool, more: dict[str, Any]
) -> Description:
    """Return the part that all of these files share."""
    metadata = {
        "context_length": 131072, "embedding_length": width, "block_count": layers, "attention.head_count": heads,
        "attention.layer_norm_rms_epsilon": 1e-6, "vocab_size": vocabulary,
    }  # fmt: skip
    made = Description(architecture, layers, vocabulary, tied, metadata | more)
    made.matrices.append(("token_embd", (vocabulary, width)))
    if not tied:
        made.matrices.append(("output", (vocabulary, width)))
    made.vectors.append(("output_norm.weight", width, 1.0))
    return made


def muse_glimmer() -> Description:
    """Return Muse Glimmer 30B: three layers with a window, then one without."""
    layers, width, heads, keys, size, inner = 4, 6656, 32, 2, 128, 19968
    more = {
        "feed_forward_length": inner, "attention.head_count_kv": keys, "attention.key_length": size,
        "attention.value_length": size, "rope.freq_base": 5e5, "final_logit_softcapping": 20.0, "logit_scale": 0.1961,
        "attention.sliding_window": 2048, "attention.sliding_window_pattern": [True, True, True, False],
    }  # fmt: skip
    made = _description("muse-glimmer", layers, width, heads, 202048, False, more)
    for layer in range(layers):
        block = f"blk.{layer}"
        made.norms(block, width, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        made.norms(block, size, "attn_k_norm")
        made.vectors.append((f"{block}.attn_q_norm.weight", size, 3.87))
        for name, rows in (("q", heads * size), ("k", keys * size), ("v", keys * size), ("gate", heads * size)):
            made.matrices.append((f"{block}.attn_{name}", (rows, width)))
        made.matrices.append((f"{block}.attn_output", (width, heads * size)))
        made.network(block, width, inner)
    return made


def _gemma(
    layers: int,
    width: int,
    heads: int,
    keys: tuple[int, int],
    inner: int,
    *,
    window: int = 1024,
    keys_as_values: bool = True,
    shared: int = 0,
    per_layer: int = 0,
    experts: tuple[int, int, int] | None = None,
) -> Description:
    """Return Gemma 4: one layer of five or six has no window, larger heads, and no values if `keys_as_values`.

    `keys` are the key heads of layers with a window and without, `experts` their number, those used and their width.
    """
    period, size, large = (5 if per_layer else 6), 256, 512
    near = [(layer + 1) % period != 0 for layer in range(layers)]
    inners = [inner * (2 if layer >= layers - shared else 1) for layer in range(layers)]
    more = {
        "feed_forward_length": inners if shared else inner,
        "attention.head_count_kv": [keys[not local] for local in near],
        "attention.key_length": large, "attention.key_length_swa": size, "rope.dimension_count": large,
        "attention.value_length": large, "attention.value_length_swa": size, "rope.dimension_count_swa": size,
        "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "final_logit_softcapping": 30.0,
        "attention.sliding_window": window, "attention.sliding_window_pattern": near,
        "attention.shared_kv_layers": shared, "embedding_length_per_layer_input": per_layer,
    }  # fmt: skip
    if experts:
        more |= {"expert_count": experts[0], "expert_used_count": experts[1], "expert_feed_forward_length": experts[2]}
    made = _description("gemma4", layers, width, heads, 262144, True, more)
    made.vectors.append(("rope_freqs.weight", large // 2, 1.0))
    if per_layer:
        made.matrices.append(("per_layer_token_embd", (262144, per_layer * layers)))
        made.matrices.append(("per_layer_model_proj", (per_layer * layers, width)))
        made.vectors.append(("per_layer_proj_norm.weight", per_layer, 1.0))
    for layer, local in enumerate(near):
        block, head = f"blk.{layer}", size if local else large
        made.norms(block, width, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        made.vectors.append((f"{block}.layer_output_scale.weight", 1, 1.0))
        made.norms(block, head, "attn_q_norm")
        made.matrices.append((f"{block}.attn_q", (heads * head, width)))
        made.matrices.append((f"{block}.attn_output", (width, heads * head)))
        if layer < layers - shared:
            made.norms(block, head, "attn_k_norm")
            made.matrices.append((f"{block}.attn_k", (keys[not local] * head, width)))
            if local or not keys_as_values:
                made.matrices.append((f"{block}.attn_v", (keys[not local] * head, width)))
        made.network(block, width, inners[layer])
        if per_layer:
            made.norms(block, width, "post_norm")
            made.matrices += [(f"{block}.inp_gate", (per_layer, width)), (f"{block}.proj", (width, per_layer))]
        if experts:
            count, _, small = experts
            made.norms(block, width, "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
            made.vectors += [(f"{block}.ffn_gate_inp.scale", width, 1.0), (f"{block}.ffn_down_exps.scale", count, 1.0)]
            made.matrices += [
                (f"{block}.ffn_gate_inp", (count, width)),
                (f"{block}.ffn_gate_up_exps", (count, 2 * small, width)),
                (f"{block}.ffn_down_exps", (count, width, small)),
            ]
    return made


def _qwen35(width: int, heads: int, keys: int, inner: int, experts: int = 0) -> Description:
    """Return Qwen 3.5: three recurrent layers, then one of gated attention; with experts of 512 elements, if any."""
    layers, size, state, key_heads, value_heads, small = 4, 256, 128, 16, 32, 512
    channels = (2 * key_heads + value_heads) * state
    more = {
        "feed_forward_length": inner, "attention.head_count_kv": keys, "attention.key_length": size,
        "attention.value_length": size, "rope.freq_base": 1e7, "rope.dimension_count": size // 4,
        "rope.dimension_sections": [11, 11, 10, 0], "ssm.conv_kernel": 4, "ssm.state_size": state,
        "ssm.group_count": key_heads, "ssm.time_step_rank": value_heads, "ssm.inner_size": value_heads * state,
        "full_attention_interval": 4, "attention.recurrent_layers": [True, True, True, False],
    }  # fmt: skip
    if experts:
        more |= {
            "expert_count": experts, "expert_used_count": 8, "expert_feed_forward_length": small,
            "expert_shared_feed_forward_length": small,
        }  # fmt: skip
    made = _description("qwen35moe" if experts else "qwen35", layers, width, heads, 248320, False, more)
    for layer in range(layers):
        block = f"blk.{layer}"
        made.norms(block, width, "attn_norm", "post_attention_norm")
        if layer < 3:
            made.matrices += [
                (f"{block}.attn_qkv", (channels, width)),
                (f"{block}.attn_gate", (value_heads * state, width)),
                (f"{block}.ssm_alpha", (value_heads, width)),
                (f"{block}.ssm_beta", (value_heads, width)),
                (f"{block}.ssm_conv1d", (channels, 4)),
                (f"{block}.ssm_out", (width, value_heads * state)),
            ]
            made.vectors += [(f"{block}.ssm_a", value_heads, -0.1), (f"{block}.ssm_dt.bias", value_heads, 0.5)]
            made.norms(block, state, "ssm_norm")
        else:
            made.norms(block, size, "attn_q_norm", "attn_k_norm")
            for name, rows in (("q", 2 * heads * size), ("k", keys * size), ("v", keys * size)):
                made.matrices.append((f"{block}.attn_{name}", (rows, width)))
            made.matrices.append((f"{block}.attn_output", (width, heads * size)))
        if experts:
            made.matrices.append((f"{block}.ffn_gate_inp", (experts, width)))
            made.vectors.append((f"{block}.ffn_gate_inp_shexp.weight", width, 0.01))
            made.network(block, width, small, "_exps", experts=(experts,))
            made.network(block, width, small, "_shexp")
        else:
            made.network(block, width, inner)
    return made


CURRENT: dict[str, Callable[[], Description]] = {
    "muse-glimmer-30b-4-layers": muse_glimmer,
    "gemma-4-31b-6-layers": lambda: _gemma(6, 5376, 32, (16, 4), 21504),
    "gemma-4-26b-a4b-6-layers": lambda: _gemma(6, 2816, 16, (8, 2), 2112, experts=(128, 8, 704)),
    "gemma-4-e2b-10-layers": lambda: _gemma(
        10, 1536, 8, (1, 1), 6144, window=512, keys_as_values=False, shared=5, per_layer=256
    ),
    "gemma-4-e4b-10-layers": lambda: _gemma(
        10, 2560, 8, (2, 2), 10240, window=512, keys_as_values=False, shared=5, per_layer=256
    ),
    "qwen3.5-9b-4-layers": lambda: _qwen35(4096, 16, 4, 12288),
    "qwen3.5-35b-a3b-4-layers": lambda: _qwen35(2048, 16, 2, 5632, experts=256),
}
"""Shapes by name. In Gemma 4 E2B and E4B only layers that share keys and values have networks of twice the width."""
