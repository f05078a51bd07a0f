"""Drafters: small networks that read the hidden states of a model and propose tokens to it.

Four kinds: DFlash (arXiv:2602.06036), which fills a block of masked positions at once; EAGLE-3 (arXiv:2503.01840), one
layer that continues its own states token by token; multi-token prediction (arXiv:2412.19437, section 2.2), whose layers
are the last ones in the file of the model itself; and Gemma 4's assistant, which sees the model's keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.assistant import assistant, assistant_names, lent_layers
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_LAYERS, MAX_WIDTH
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile

__all__ = ["AS_A_LAYER", "DRAFTERS", "Plan", "drafter", "fitted", "is_drafter", "predictor"]

MOST_STATES = 64
MOST_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a drafter is, and what it needs from the model it drafts for."""

    kind: str
    """its name in messages"""
    config: Config
    """the sizes of its own layers, as for a model"""
    names: Mapping[str, str] | None = None
    """the tensors that it uses, name in the file to name here; None for all, under their own names"""
    places: tuple[int, ...]
    """states of the model that it takes side by side, as `Model.step_hidden` counts them; one may occur twice"""
    width: int
    """width of the model"""
    vocabulary: int
    """tokens of the model"""
    own_embedding: bool
    """whether it has embeddings of its own"""
    own_output: bool
    """whether it has an output matrix of its own"""
    map: str | None = None
    """the tensor with the token of the model for each row of that matrix; None for the same vocabulary"""
    embedding_scale: float = 1.0
    """factor of the embeddings; 0 for that of the model, if it counts as a part of the embeddings"""
    block: int = 0
    """positions of a block, the last known token included; 0 for a drafter that proposes token by token"""
    mask: int = 0
    """token that stands for those to be found"""
    causal: bool = True
    """whether the positions of a block see only those before them"""
    next_state: Literal["layer", "norm"] = "layer"
    """which of its own states stands for that of the model when it continues its own tokens"""
    borrows: bool = False
    """whether it sees the keys and values of the model, whose final states it takes: `fitted` says of which layers"""


# Lists of indexers may lack these layers, which see all keys.
AS_A_LAYER: dict[str, bool | int | float | str] = {".nextn_predict_layers": 0, ".attention.indexer.types": False}
"""Metadata with which the layers for multi-token prediction count like the others, for `predictor`."""
DRAFTERS = ("dflash", "eagle3", "gemma4-assistant")
"""Names in general.architecture."""
_PARTS = {
    "markov_w1.weight": "a Markov head (DSpark)",
    "selector_hidden.weight": "a selector of candidates (DFlash 2)",
    "blk.0.hc_attn_fn.weight": "hyper-connections",
}


def is_drafter(file: GGUFFile) -> bool:
    """Whether the file says that it is a drafter, of a kind that runs here or not."""
    return file.metadata.scalar("general.architecture") in DRAFTERS


def drafter(file: GGUFFile) -> Plan:
    """The plan of a drafter with a file of its own.

    Raises ModelError for another architecture, and for metadata that is missing or out of range.
    """
    name = file.metadata.text("general.architecture")
    try:
        if name not in DRAFTERS:
            raise ModelError(f"the architecture {name[:60]!r} is no drafter; expected {' or '.join(DRAFTERS)}")
        if name == "gemma4-assistant":
            return _assistant(file, name)
        for tensor, what in _PARTS.items():
            if parts.has(file, tensor):
                raise ModelError(f"the drafter has {what} ({tensor}), which does not run here")
        return _dflash(file, name) if name == "dflash" else _eagle3(file, name)
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}") from None


def predictor(file: GGUFFile, model: Config) -> Plan:
    """The plan of the layers for multi-token prediction in the file of a model itself.

    file: with the metadata of the model, but the values in `AS_A_LAYER`. The first of these layers, which may be the
    only one, predicts the token after the next, and then continues its own states.

    Raises ModelError if there are none.
    """
    layer = model.layers
    start = f"blk.{layer}."
    if not parts.has(file, f"{start}nextn.eh_proj.weight"):
        raise ModelError(
            f"{file.path.name}: the file has no layers for multi-token prediction ({start}nextn.eh_proj.weight); give "
            "the file of a drafter or of a smaller model"
        )
    config = config_for(file)
    names = {tensor.name: found for tensor in file.tensors if (found := _renamed(tensor.name, start)) is not None}
    if "output_norm.weight" not in names.values():
        names["output_norm.weight"] = "output_norm.weight"
    own = set(names.values())
    return Plan(
        kind="multi-token prediction",
        config=_single(config, layer, "output.weight" in own),
        names=names,
        places=(layer,),
        width=model.embedding_length,
        vocabulary=model.vocab_size,
        own_embedding="token_embd.weight" in own,
        own_output="output.weight" in own,
        embedding_scale=config.embedding_scale,
        next_state="norm",
    )


def fitted(plan: Plan, model: Config) -> Plan:
    """The plan for this model. Raises ModelError if the drafter sees keys and values that the model does not have."""
    if plan.borrows:
        config = replace(plan.config, lent_layers=lent_layers(plan.config, model))
        return replace(plan, places=(model.layers,), config=config)
    if not plan.embedding_scale:
        # The drafters of Gemma 3 and 4 were trained with embeddings that are scaled where they are looked up.
        scaled = model.architecture in ("gemma3", "gemma4") and not plan.own_embedding
        plan = replace(plan, embedding_scale=model.embedding_scale if scaled else 1.0)
    if model.architecture == "muse-glimmer":
        # transformers applies no window in this pass of its drafter, whatever the file says.
        plan = replace(plan, config=replace(plan.config, row_window=[]))
    return plan


def _assistant(file: GGUFFile, name: str) -> Plan:
    config = assistant(file, name)
    return Plan(
        kind="Gemma 4's assistant",
        config=config,
        names=assistant_names(file),
        places=(),
        width=config.next_width,
        vocabulary=config.vocab_size,
        own_embedding=False,
        own_output=True,
        embedding_scale=math.sqrt(config.next_width),
        next_state="norm",
        borrows=True,
    )


def _dflash(file: GGUFFile, name: str) -> Plan:
    metadata = file.metadata
    found = parts.common(file, name) | {"causal": True}
    width, layers, vocabulary = found["embedding_length"], found["layers"], found["vocab_size"]
    targets = _targets(file, name)
    block = metadata.integer(f"{name}.block_size", 16, minimum=2, maximum=MOST_BLOCK)
    mask = metadata.integer("tokenizer.ggml.mask_token_id", minimum=0, maximum=vocabulary - 1)
    shared = not parts.has(file, "blk.0.attn_v.weight")
    window = parts.window(file, name, 0)
    near = parts.local_layers(file, name, layers, 0) if window else [False] * layers
    found |= _output(file, found) | {
        "rope_style": "neox",
        "row_window": [window * local for local in near],
        "input": "rows",
        "states_width": len(targets) * width,
        "states_norm": "behind",
        "query_key_norm": ["head"] * layers,
        "norms": "both" if parts.has(file, "blk.0.post_attention_norm.weight") else "before",
        "keys_as_values": [shared] * layers,
        "value_norm": shared,
        "layer_scale": [parts.has(file, f"blk.{layer}.layer_output_scale.weight") for layer in range(layers)],
        "logit_scale": metadata.number(f"{name}.logit_scale", 0.0, minimum=0) or 1.0,
        "logit_soft_cap": metadata.number(f"{name}.final_logit_softcapping", 0.0, minimum=0),
        "activation": _activation(metadata.text(f"{name}.hidden_activation", "silu")),
    }
    if f"{name}.attention.value_scale" in metadata:
        raise ModelError(f"{name}.attention.value_scale: attention with scaled values does not run here")
    return Plan(
        kind="DFlash",
        config=Config(**found),
        places=targets,
        width=width,
        vocabulary=vocabulary,
        own_embedding=parts.has(file, "token_embd.weight"),
        own_output=found["output"],
        map=_map(file),
        embedding_scale=metadata.number(f"{name}.embedding_scale", 0.0, minimum=0),
        block=block,
        mask=mask,
        causal=metadata.flag(f"{name}.attention.causal", False),
    )


def _eagle3(file: GGUFFile, name: str) -> Plan:
    metadata = file.metadata
    found = parts.common(file, name)
    vocabulary = found["vocab_size"]
    if found["layers"] != 1:
        raise ModelError(f"{name}.block_count is {found['layers']}; expected 1")
    targets = _targets(file, name)
    width = metadata.integer(f"{name}.target_hidden_size", minimum=1, maximum=MAX_WIDTH)
    before = metadata.flag(f"{name}.norm_before_fc", False)
    own = parts.has(file, "token_embd.weight")
    if not own and width != found["embedding_length"]:
        raise ModelError(
            f"{name}.embedding_length is {found['embedding_length']} and {name}.target_hidden_size {width}; expected "
            "the same, or embeddings in the file (token_embd.weight)"
        )
    # Unlike in models, the embedding is no output matrix.
    output = _output(file, found) if parts.has(file, "output.weight") else {"output": False}
    found |= output | {
        "input": "pairs",
        "states_width": len(targets) * width,
        "states_norm": "before" if before else "none",
        "normed_pairs": metadata.flag(f"{name}.norm_before_residual", False),
    }
    return Plan(
        kind="EAGLE-3",
        config=Config(**found),
        places=targets,
        width=width,
        vocabulary=vocabulary,
        own_embedding=own,
        own_output=found["output"],
        map=_map(file),
    )


_SHARED = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
_NEXTN = {
    "nextn.shared_head_norm.weight": "output_norm.weight",
    "nextn.shared_head_head.weight": "output.weight",
    "nextn.embed_tokens.weight": "token_embd.weight",
}


def _renamed(name: str, start: str) -> str | None:
    """The name, in a model of one layer, of a tensor of the layer whose tensors begin with `start`; None for others."""
    if not name.startswith(start):
        return name if name in _SHARED else None
    rest = name[len(start) :]
    if rest.startswith("indexer."):
        return None
    return _NEXTN.get(rest, rest if rest.startswith("nextn.") else f"blk.0.{rest}")


def _single(config: Config, layer: int, output: bool) -> Config:
    """The configuration of one layer of a model, which takes pairs of an embedding and a state."""
    lists: dict[str, Any] = {
        each.name: [value[layer]]
        for each in fields(config)
        if isinstance(value := getattr(config, each.name), list) and len(value) == config.layers
    }
    if lists.get("window", [0])[0] or lists.get("chunk", [0])[0]:
        raise ModelError("the layers for multi-token prediction see a window, which does not run here")
    if lists.get("recurrent_heads", [0])[0]:
        # Older files do not list which layers are recurrent; these never are.
        lists |= {"heads": [max(config.heads)], "kv_heads": [max(config.kv_heads)]}
        lists |= {"query_key_norm": [next((kind for kind in config.query_key_norm if kind != "none"), "none")]}
    return replace(
        config,
        **lists
        | {
            "layers": 1,
            "input": "projected_pairs",
            "output": output,
            "kv_source": [],
            "recurrent_heads": [],
            "indexer": [],
            "indexer_heads": 0,
            "indexer_size": 0,
            "indexer_top": 0,
            "rope_sections": [],
            "ignored_tensors": [],
        },
    )


def _targets(file: GGUFFile, name: str) -> tuple[int, ...]:
    """The states that it reads: the file names layers whose input is taken, counted from 0."""
    key = f"{name}.target_layers"
    listed = file.metadata.get(key)
    if not isinstance(listed, np.ndarray) or listed.dtype.kind not in "iu" or not 1 <= len(listed) <= MOST_STATES:
        raise ModelError(f"{key} is {listed!r:.60}; expected the numbers of 1 to {MOST_STATES} layers of the model")
    layers = [int(layer) for layer in listed]
    if min(layers) < 1 or max(layers) > MAX_LAYERS:
        raise ModelError(f"{key} is {layers}; expected layers, numbered from 1, whose input is the state that is read")
    return tuple(layer - 1 for layer in layers)


def _output(file: GGUFFile, found: dict[str, Any]) -> dict[str, Any]:
    """Whether there is an output matrix, and its rows; the embedding serves as one, too."""
    if not parts.has(file, "output.weight") and not parts.has(file, "token_embd.weight"):
        return {"output": False}
    rows = next((tensor.shape[0] for tensor in file.tensors if tensor.name == "d2t" and tensor.shape), None)
    vocabulary = found["vocab_size"]
    if rows is None:
        return {"output": True}
    if rows > vocabulary or not parts.has(file, "output.weight"):
        raise ModelError(f"d2t has {rows} entries; expected an output matrix with as many rows, at most {vocabulary}")
    return {"output": True, "vocab_size": rows, "extra_embeddings": vocabulary - rows}


def _map(file: GGUFFile) -> str | None:
    return "d2t" if parts.has(file, "d2t") else None


def _activation(name: str) -> str:
    known = {"silu": "silu", "gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
    if name not in known:
        raise ModelError(f"dflash.hidden_activation is {name!r:.60}; expected one of {', '.join(known)}")
    return known[name]
