"""The forward pass in NumPy and float64, by the switches of a configuration: the oracle of the model tests.

Written for reading next to the papers, not for speed: the whole sequence at once, no cache. It shares no code with the
package; files are read and dequantized by the `gguf` package. A configuration is a mapping with the names of
`llamacpu.families.config.Config`, whose docstrings say what the switches mean; what it lacks is as in Llama.

Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971), RoPE https://arxiv.org/abs/2104.09864, grouped queries
https://arxiv.org/abs/2305.13245, YaRN https://arxiv.org/abs/2309.00071, Mixtral https://arxiv.org/abs/2401.04088,
latent attention https://arxiv.org/abs/2405.04434, and those named in families/.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_attention import ReferenceAttention
from reference_functions import Array, soft_cap
from reference_recurrent import ReferenceRecurrent

Tokens = list[int] | NDArray[np.integer[Any]]


class ReferenceModel(ReferenceAttention, ReferenceRecurrent):
    """One model file and its configuration; call `logits(tokens)`."""

    behind: dict[int, Array] | None = None
    """What is added to the residual stream behind layers (rows of pictures, `picture_layers`)."""

    def logits(self, tokens: Tokens, context: int | None = None) -> Array:
        """float64[len(tokens), vocabulary]: the logits after every token of one sequence that starts at position 0.

        `context` is that of the session, on which some rotations depend.
        """
        logits = self.output(self.hidden(tokens, context)[-1]) * self.setting("logit_scale", 1.0)
        return soft_cap(logits, self.setting("logit_soft_cap"))

    def output(self, x: Array) -> Array:
        """The output matrix, or that of the embedding, of x[tokens, width]."""
        if self.weight("output.weight") is not None:
            return self.linear(x, "output")
        bias = self.weight("output.bias")
        logits = x @ self.matrix("token_embd.weight").T
        return logits if bias is None else logits + bias

    def hidden(self, tokens: Tokens, context: int | None = None) -> list[Array]:
        """The residual stream after every layer, and that after the last norm; float64[len(tokens), width] each."""
        states = []
        x = self.start(tokens)
        inputs = self.layer_inputs(x, tokens) if self.setting("per_layer_input") else []
        norms, residual = self.setting("norms", "before"), self.setting("residual_scale", 1.0)
        context = context or self.setting("context_length")
        epsilon = self.setting("output_norm_epsilon")
        for layer in range(self.setting("layers")):
            start = x
            recurrent = self.setting("recurrent_heads", layer=layer)
            if self.setting("heads", layer=layer) or recurrent:
                plain = norms == "behind" or (layer == 0 and not self.setting("first_attention_norm", True))
                inner = x if plain else self.attention_input(layer, x)
                branch = self.recurrent(layer, inner) if recurrent else self.attention(layer, inner, context)
                if norms != "before":
                    branch = self.norm(branch, f"blk.{layer}.post_attention_norm", epsilon=epsilon)
                x = x + residual * branch
            if self.setting("feed_forward", layer=layer):
                if self.setting("parallel", False):
                    kind = self.setting("attention_norm", "attn_norm")
                    if self.setting("parallel_norm", False):
                        kind = self.setting("feed_forward_norm", "ffn_norm")
                    inner = self.norm(start, f"blk.{layer}.{kind}")
                elif norms == "behind":
                    inner = x
                else:
                    inner = self.norm(x, f"blk.{layer}.{self.setting('feed_forward_norm', 'ffn_norm')}")
                branch = self.beside(layer, x, inner) if self.is_beside(layer) else self.feed_forward(layer, inner)
                if norms != "before":
                    branch = self.norm(branch, f"blk.{layer}.post_ffw_norm", epsilon=epsilon)
                x = x + residual * branch
            if inputs:
                branch = self.activate(self.linear(x, f"blk.{layer}.inp_gate"), inputs[layer])
                x = x + self.norm(self.linear(branch, f"blk.{layer}.proj"), f"blk.{layer}.post_norm")
            if self.setting("layer_scale", False, layer):
                x = x * self.matrix(f"blk.{layer}.layer_output_scale.weight")
            if self.behind and layer in self.behind:
                x = x + self.behind[layer]
            states.append(x)
        return [*states, self.norm(x, "output_norm")]

    def start(self, tokens: Tokens) -> Array:
        """What enters the first layer."""
        x = self.matrix("token_embd.weight")[np.asarray(tokens)] * self.setting("embedding_scale", 1.0)
        if self.setting("learned_positions", False):
            x = x + self.matrix("position_embd.weight")[: len(x)]
        if self.setting("embedding_norm", False):
            x = self.norm(x, "token_embd_norm" if self.setting("embedding_norm_weights", True) else None)
        return x

    def attention_input(self, layer: int, x: Array) -> Array:
        """What attention gets of the residual stream x."""
        return self.norm(x, f"blk.{layer}.{self.setting('attention_norm', 'attn_norm')}")

    def layer_inputs(self, x: Array, tokens: Tokens) -> list[Array]:
        """The second embeddings of the tokens, which enter the layers (Gemma 3n and 4); x are the first ones."""
        size, layers = self.setting("per_layer_input"), self.setting("layers")
        of_model = (self.linear(x, "per_layer_model_proj") * x.shape[1] ** -0.5).reshape(len(x), layers, size)
        table = self.matrix("per_layer_token_embd.weight")[np.asarray(tokens)].reshape(len(x), layers, size)
        both = (self.norm(of_model, "per_layer_proj_norm") + size**0.5 * table) / 2**0.5
        return [both[:, layer] for layer in range(layers)]


def is_exact(got: NDArray[np.float32], reference: ReferenceModel, tokens: Tokens) -> bool:
    """Whether these logits are those of the reference, as far as 32-bit arithmetic can tell.

    The limit is 1e-9 of the squares of the logits. Some random models cannot be computed so closely: where what two
    layers add nearly cancels, or where a width of two leaves a norm next to nothing to divide by, every rounding grows
    a thousandfold. How much is seen from the reference itself, whose weights are moved by about a rounding each. The
    limit is then a multiple of what that does to the logits: one draw of such disturbances is less than the sum of all
    roundings of a pass by up to a factor of 300.
    """
    exact = reference.logits(tokens)
    squares = float((exact**2).sum())
    error = float(((got - exact) ** 2).sum())
    if error <= 1e-9 * squares:
        return True
    reference.disturb(2.0**-23)
    return error <= 1000 * float(((reference.logits(tokens) - exact) ** 2).sum())
