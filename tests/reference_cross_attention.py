"""A tiny model of Llama 3.2 Vision's text part: a file of random weights, and its logits in NumPy, in float64.

What a token sees is written out as a mask over all states, as the processor of transformers gives it for a whole
prompt: a picture is seen from its placeholder to that of the next one, and those whose placeholders are next to each
other as far as the last of them. Rows that see nothing pass the layers of cross-attention unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.engine.pictures import CrossStates, MixedTokens
from reference_functions import silu, softmax
from reference_vision import write

Array = NDArray[np.float64]
CONFIG: dict[str, int] = {
    "width": 48,
    "heads": 4,
    "kv_heads": 2,
    "head": 12,
    "inner": 64,
    "layers": 5,
    "vocabulary": 60,
    "context": 512,
}
CROSS = (1, 3)
PICTURE = CONFIG["vocabulary"]
"""Id of the placeholder: a row of the embedding behind the vocabulary."""
BASE, EPSILON = 10000.0, 1e-5


def write_model(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file and its weights."""
    random = np.random.default_rng(0)
    width, head, inner = CONFIG["width"], CONFIG["head"], CONFIG["inner"]
    queries, keys = CONFIG["heads"] * head, CONFIG["kv_heads"] * head
    values: dict[str, Any] = {
        "token_embd.weight": random.standard_normal((CONFIG["vocabulary"] + 8, width)),
        "output.weight": random.standard_normal((CONFIG["vocabulary"], width)) / width**0.5,
        "output_norm.weight": 1 + random.standard_normal(width) / 8,
    }
    for layer in range(CONFIG["layers"]):
        names = {"q": queries, "k": keys, "v": keys}
        shapes = {"ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
        if layer in CROSS:
            shapes |= {f"cross_attn_{part}_proj": (rows, width) for part, rows in names.items()}
            shapes["cross_attn_o_proj"] = (width, queries)
            for part in ("q", "k"):
                values[f"blk.{layer}.cross_attn_{part}_norm.weight"] = 1 + random.standard_normal(head) / 8
            for part in ("attn", "mlp"):
                values[f"blk.{layer}.cross_attn_{part}_gate"] = random.standard_normal(1)
        else:
            shapes |= {f"attn_{part}": (rows, width) for part, rows in names.items()}
            shapes["attn_output"] = (width, queries)
        for part, shape in shapes.items():
            values[f"blk.{layer}.{part}.weight"] = random.standard_normal(shape) / shape[1] ** 0.5
        for part in ("attn_norm", "ffn_norm"):
            values[f"blk.{layer}.{part}.weight"] = 1 + random.standard_normal(width) / 8
    values = {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}
    metadata: dict[str, Any] = {
        "mllama.block_count": CONFIG["layers"], "mllama.context_length": CONFIG["context"],
        "mllama.embedding_length": width, "mllama.feed_forward_length": inner,
        "mllama.attention.head_count": CONFIG["heads"], "mllama.attention.head_count_kv": CONFIG["kv_heads"],
        "mllama.rope.dimension_count": head, "mllama.rope.freq_base": BASE, "mllama.vocab_size": CONFIG["vocabulary"],
        "mllama.attention.layer_norm_rms_epsilon": EPSILON,
        "mllama.attention.cross_attention_layers": list(CROSS), "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{index}" for index in range(CONFIG["vocabulary"])],
        "tokenizer.ggml.merges": ["t 0"],
    }  # fmt: skip
    return write(path, values, metadata, "mllama"), values


def mask_of(given: MixedTokens) -> tuple[Array, NDArray[np.bool_]]:
    """The states of all pictures, and which of them each token sees."""
    pieces = [(at, piece) for at, piece in given.pieces if isinstance(piece, CrossStates)]
    states = np.concatenate([piece.states for _, piece in pieces]) if pieces else np.zeros((0, CONFIG["width"]))
    seen = np.zeros((len(given), len(states)), bool)
    ends = [at for at, _ in pieces[1:]] + [len(given)]
    last = len(given)
    for number in reversed(range(len(pieces))):
        if ends[number] == pieces[number][0] + 1:
            ends[number] = last
        last = ends[number]
    first = 0
    for (at, piece), end in zip(pieces, ends, strict=True):
        seen[at:end, first : first + len(piece.states)] = True
        first += len(piece.states)
    return states.astype(np.float64), seen


def reference(stored: dict[str, Any], given: MixedTokens) -> Array:
    """The logits of all tokens."""
    values = {name: value.astype(np.float64) for name, value in stored.items()}
    pictures = dict(given.pieces)
    ids = [getattr(pictures.get(at), "token", token) for at, token in enumerate(given)]
    states, seen = mask_of(given)
    x = values["token_embd.weight"][ids]
    causal = np.tril(np.ones((len(ids), len(ids)), bool))
    sighted = seen.any(1)

    def norm(x: Array, name: str) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * values[f"{name}.weight"]

    def heads(x: Array, name: str) -> Array:
        return (x @ values[f"{name}.weight"].T).reshape(len(x), -1, CONFIG["head"])

    def attend(q: Array, k: Array, v: Array, mask: Any) -> Array:
        k, v = (np.repeat(each, CONFIG["heads"] // CONFIG["kv_heads"], 1) for each in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / CONFIG["head"] ** 0.5
        weights = softmax(np.where(mask[None], scores, -np.inf))
        return np.einsum("hqk,khd->qhd", weights, v).reshape(len(q), -1)

    def network(x: Array, prefix: str) -> Array:
        gate, up = (x @ values[f"{prefix}.ffn_{part}.weight"].T for part in ("gate", "up"))
        return (silu(gate) * up) @ values[f"{prefix}.ffn_down.weight"].T

    for layer in range(CONFIG["layers"]):
        prefix = f"blk.{layer}"
        if layer not in CROSS:
            normed = norm(x, f"{prefix}.attn_norm")
            q, k, v = (heads(normed, f"{prefix}.attn_{part}") for part in "qkv")
            x = x + attend(turned(q), turned(k), v, causal) @ values[f"{prefix}.attn_output.weight"].T
            x = x + network(norm(x, f"{prefix}.ffn_norm"), prefix)
        elif sighted.any():
            own = x[sighted]
            q = norm(
                heads(norm(own, f"{prefix}.attn_norm"), f"{prefix}.cross_attn_q_proj"), f"{prefix}.cross_attn_q_norm"
            )
            k = norm(heads(states, f"{prefix}.cross_attn_k_proj"), f"{prefix}.cross_attn_k_norm")
            mixed = attend(q, k, heads(states, f"{prefix}.cross_attn_v_proj"), seen[sighted])
            attended = mixed @ values[f"{prefix}.cross_attn_o_proj.weight"].T
            own = own + np.tanh(values[f"{prefix}.cross_attn_attn_gate"]) * attended
            added = network(norm(own, f"{prefix}.ffn_norm"), prefix)
            x = x.copy()
            x[sighted] = own + np.tanh(values[f"{prefix}.cross_attn_mlp_gate"]) * added
    logits: Array = norm(x, "output_norm") @ values["output.weight"].T
    return logits


def turned(x: Array) -> Array:
    """Pairs of neighbours rotated by the position."""
    frequencies = BASE ** -(np.arange(0, x.shape[2], 2) / x.shape[2])
    angles = (np.arange(len(x))[:, None] * frequencies)[:, None]
    a, b = x[..., 0::2], x[..., 1::2]
    both = [a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)]
    return np.stack(both, -1).reshape(x.shape)
