"""A checkpoint to be converted: its configuration, completed and flattened, and the tensors in llama.cpp's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeGuard

from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.defaults import with_defaults
from llamacpu.tools.convert.keys import Keys

__all__ = ["Source", "Target"]

_LAYERS = ("n_layers", "num_hidden_layers", "n_layer", "num_layers", "num_transformer_layers")
_NESTED = ("text_config", "llm_config", "lm_config", "language_config")
_DRAFTERS_LAYER = "transformer_layer_config"
MAX_LAYERS = 10_000
MAX_VOCABULARY = 1 << 22
_LARGEST = 3.4028234663852886e38  # of the floats that a file has


class Target(NamedTuple):
    """The model that a drafter was made for.

    name            where it lies
    layers, width   numbers of layers and of elements of a hidden state
    vocabulary      number of tokens
    sections        whether positions have several parts, those in a picture among them
    prefix          the add_prefix_space of its tokenizer_config.json; None if that says nothing
    set_vocabulary  called with the keys of a file, sets those of its tokenizer
    """

    name: str
    layers: int
    width: int
    vocabulary: int
    sections: bool
    prefix: Any
    set_vocabulary: Callable[[Keys], None]


class Source:
    """What the converter knows about a checkpoint.

    checkpoint    the folder
    root          config.json as it is
    config        the same with the text model's values at the top and the defaults of transformers filled in
    architecture  the class of transformers ("LlamaForCausalLM")
    model_type    its name in transformers ("llama")
    layers        number of layers
    rope          parameters of the rotary position embedding: "rope_theta", "rope_type" ..., or one such table for
                  each kind of layer
    target        of a drafter, the model that it was made for, if it was given
    """

    def __init__(self, checkpoint: Checkpoint, target: Target | None = None) -> None:
        self.checkpoint = checkpoint
        self.target = target
        self.root: dict[str, Any] = checkpoint.config
        if not self.root:
            raise CheckpointError(f"{checkpoint.folder}: there is no config.json; get it from where the model is from")
        nested: dict[str, Any] = next((self.root[key] for key in _NESTED if isinstance(self.root.get(key), dict)), {})
        self.architecture: str = _architecture(nested) or _architecture(self.root)
        if not self.architecture:
            raise CheckpointError(
                "config.json: `architectures` does not name the model's class; expected a list of one"
            )
        self.model_type: str = str(nested.get("model_type") or self.root.get("model_type") or "")
        layer = self.root.get(_DRAFTERS_LAYER)  # of a drafter, whose class transformers does not know
        told = layer if isinstance(layer, dict) else with_defaults(nested or self.root, self.model_type)
        self.config: dict[str, Any] = {**self.root, **told}
        self.layers: int = self.integer(*_LAYERS, maximum=MAX_LAYERS)
        self.rope: dict[str, Any] = _rope_parameters(self.config)

    def find(self, *keys: str) -> Any:
        """The value of the first of these keys that the configuration has; None if there is none."""
        return next((self.config[key] for key in keys if key in self.config), None)

    def integer(self, *keys: str, maximum: int = 2**31 - 1) -> int:
        """The positive integer under the first of these keys that is there.

        Raises CheckpointError if it is missing or not such a number.
        """
        value = self.find(*keys)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= maximum:
            key = next((key for key in keys if key in self.config), keys[0])
            raise CheckpointError(f"config.json: {key} is {value!r:.60}; expected an integer from 1 to {maximum}")
        return value

    def number(self, *keys: str) -> float:
        """The number under the first of these keys that is there; CheckpointError if there is none."""
        value = self.find(*keys)
        if not _is_number(value):
            raise CheckpointError(f"config.json: {keys[0]} is {value!r:.60}; expected a number")
        return value

    @property
    def heads(self) -> int:
        """The number of attention heads."""
        return self.integer("num_attention_heads", "n_head", "n_heads")

    @property
    def key_value_heads(self) -> int:
        """The number of heads of keys and values."""
        return self.integer("num_key_value_heads", "n_kv_heads", "num_attention_heads", "n_head", "n_heads")

    @property
    def head_size(self) -> int:
        """The size of an attention head."""
        size = self.config.get("head_dim")
        return self.integer("head_dim") if size is not None else self.integer("hidden_size", "n_embd") // self.heads

    @property
    def global_rope(self) -> dict[str, Any]:
        """The rope parameters of layers that attend to everything."""
        return _table(self.rope.get("full_attention", self.rope))

    def rope_number(self, key: str, default: float | None = None) -> float:
        """A number of the rope parameters; CheckpointError if it is missing and has no default."""
        value = self.rope.get(key, default)
        if not _is_number(value):
            raise CheckpointError(f"config.json: {key} of the rope parameters is {value!r:.60}; expected a number")
        return value

    def check_vocabulary(self) -> None:
        """Raise CheckpointError for a vocabulary that is larger than every tensor: a list is made of it."""
        rows = max((tensor.shape[0] for tensor in self.checkpoint.tensors.values() if tensor.shape), default=0)
        for key in ("vocab_size", "padded_vocab_size"):
            size = self.config.get(key)
            if isinstance(size, int) and size > (rows or MAX_VOCABULARY):
                raise CheckpointError(
                    f"config.json: {key} is {size}, but no tensor has a row for each token; expected at most "
                    f"{rows or MAX_VOCABULARY}"
                )

    def tensors(self) -> Iterator[tuple[str, LazyTensor]]:
        """The tensors, file by file, by name within each."""
        yield from sorted(self.checkpoint.tensors.items(), key=_place)


def _place(item: tuple[str, LazyTensor]) -> tuple[str, str]:
    # Tensors that are computed from several stored ones follow those that lie in files as they are.
    source = getattr(item[1], "source", None)
    return (source.name if source is not None else "\uffff", item[0])


def _is_number(value: Any) -> TypeGuard[float]:
    # Integers of JSON may be too large for a float; comparisons are exact.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """The table that newer configurations have, made from the single keys of older ones where necessary."""
    theta = _first(
        config, "global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base"
    )
    local = _first(config, "local_rope_theta", "rope_local_base_freq", "swa_rope_theta", "rope_local")
    rope = dict(_table(config.get("rope_parameters")) or _table(config.get("rope_scaling")))
    if "full_attention" in rope or "sliding_attention" in rope:
        return rope
    if "type" in rope:
        rope.setdefault("rope_type", rope["type"])
    if local is not None:
        rope = {"rope_type": "default", **rope}
        return {
            "full_attention": {**rope, "rope_theta": theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        }
    if theta is not None:
        rope.setdefault("rope_theta", theta)
    original = config.get("original_max_position_embeddings")
    if original is not None:
        rope["original_max_position_embeddings"] = original
    elif rope.get("rope_type") in ("llama3", "yarn", "longrope"):
        rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    partial = _first(config, "partial_rotary_factor", "rope_pct", "rope_percent")
    if partial is not None:
        rope.setdefault("partial_rotary_factor", partial)
    return rope


def _first(config: dict[str, Any], *keys: str) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), None)
