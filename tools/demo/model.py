"""The demo model in JAX, a small Llama with tied embeddings: initial weights, and logits of packed documents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from sizes import Sizes

Weights = dict[str, jax.Array]


def first_weights(sizes: Sizes, key: jax.Array) -> Weights:
    """Return random weights: matrices as (layers, inputs, outputs)."""
    query, kv = sizes.heads * sizes.head_size, sizes.kv_heads * sizes.head_size
    shapes = {
        "attn_q": (sizes.width, query),
        "attn_k": (sizes.width, kv),
        "attn_v": (sizes.width, kv),
        "attn_output": (query, sizes.width),
        "ffn_gate": (sizes.width, sizes.feed_forward),
        "ffn_up": (sizes.width, sizes.feed_forward),
        "ffn_down": (sizes.feed_forward, sizes.width),
    }
    keys = jax.random.split(key, len(shapes) + 1)
    weights = {"token_embd": jax.random.normal(keys[-1], (sizes.vocabulary, sizes.width)) * 0.02}
    for (name, (inputs, outputs)), one in zip(shapes.items(), keys[:-1], strict=True):
        spread = inputs**-0.5 * (0.3 if name in ("attn_output", "ffn_down") else 1.0)
        weights[name] = jax.random.normal(one, (sizes.layers, inputs, outputs)) * spread
    weights["attn_norm"] = jnp.ones((sizes.layers, sizes.width))
    weights["ffn_norm"] = jnp.ones((sizes.layers, sizes.width))
    weights["output_norm"] = jnp.ones((sizes.width,))
    return weights


def logits(weights: Weights, sizes: Sizes, tokens: jax.Array, documents: jax.Array) -> jax.Array:
    """Return (rows, length, vocabulary) logits; a token attends only to earlier tokens of its own document.

    The rotary embedding uses adjacent pairs, as GGUF files of the `llama` architecture expect. Positions are counted
    from the start of the row, since only differences of positions matter.
    """
    rows, length = tokens.shape
    pairs = sizes.head_size // 2
    angles = jnp.arange(length)[:, None] * sizes.rope_base ** (-jnp.arange(pairs) / pairs)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    visible = (documents[:, :, None] == documents[:, None, :]) & jnp.tril(jnp.ones((length, length), bool))
    bias = jnp.where(visible, 0.0, -1e9)[:, None, None]
    group = sizes.heads // sizes.kv_heads

    def rotate(x: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[:-1], pairs, 2)
        even, odd = x[..., 0], x[..., 1]
        return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(*x.shape[:-2], -1)

    def norm(x: jax.Array, weight: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + sizes.epsilon) * weight

    x = weights["token_embd"][tokens]
    for layer in range(sizes.layers):
        h = norm(x, weights["attn_norm"][layer])
        q = rotate((h @ weights["attn_q"][layer]).reshape(rows, length, sizes.heads, sizes.head_size))
        k = rotate((h @ weights["attn_k"][layer]).reshape(rows, length, sizes.kv_heads, sizes.head_size))
        v = (h @ weights["attn_v"][layer]).reshape(rows, length, sizes.kv_heads, sizes.head_size)
        q = q.reshape(rows, length, sizes.kv_heads, group, sizes.head_size)
        scores = jnp.einsum("bqkgd,bskd->bkgqs", q, k) * sizes.head_size**-0.5 + bias
        mixed = jnp.einsum("bkgqs,bskd->bqkgd", jax.nn.softmax(scores), v).reshape(rows, length, -1)
        x = x + mixed @ weights["attn_output"][layer]
        h = norm(x, weights["ffn_norm"][layer])
        x = (
            x
            + (jax.nn.silu(h @ weights["ffn_gate"][layer]) * (h @ weights["ffn_up"][layer]))
            @ weights["ffn_down"][layer]
        )
    return norm(x, weights["output_norm"]) @ weights["token_embd"].T
