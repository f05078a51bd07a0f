"""What `llamacpu info` says of drafters, and of layers for multi-token prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamacpu.families.config import Config
    from llamacpu.gguf.file import GGUFFile

__all__ = ["drafter_facts", "drafter_rows", "predictor_layers"]


def drafter_facts(file: GGUFFile) -> dict[str, Any] | None:
    """What a drafter is and what it fits; None for another file."""
    from llamacpu.errors import LlamaCpuError
    from llamacpu.families.drafters import drafter, is_drafter

    if not is_drafter(file):
        return None
    try:
        plan = drafter(file)
    except LlamaCpuError as error:
        return {"runs": False, "problem": str(error)}
    return {
        "runs": True,
        "kind": plan.kind,
        "block": plan.block,
        "reads_layers": list(dict.fromkeys(plan.places)),
        "model_embedding_length": plan.width,
        "model_vocab_size": plan.vocabulary,
        "model_least_layers": max(plan.places, default=0) + 1,
        "reads_keys_and_values": plan.borrows,
        "own_vocab_size": plan.config.vocab_size if plan.own_output else None,
        "shares": [
            name
            for name, own in (("token embeddings", plan.own_embedding), ("output matrix", plan.own_output))
            if not own
        ],
    }


def drafter_rows(facts: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The rows of the text."""
    if facts is None or not facts["runs"]:
        return []
    size = f", blocks of {facts['block']} tokens" if facts["block"] else ", token by token"
    layers = ", ".join(map(str, facts["reads_layers"]))
    reads = f"the states after layer {layers} of the model, counted from 0"
    if facts["reads_keys_and_values"]:
        reads = "the final states of the model, and the keys and values of its last layers with and without a window"
    shared = " and ".join(facts["shares"])
    rows = [
        ("drafter", f"{facts['kind']}{size}; llamacpu run MODEL --draft-model FILE"),
        (
            "fits",
            f"models with an embedding length of {facts['model_embedding_length']}, at least "
            f"{facts['model_least_layers']} layers, and the same {facts['model_vocab_size']:,} tokens",
        ),
        ("reads", reads),
    ]
    return [*rows, ("shares", f"{shared} of the model")] if shared else rows


def predictor_layers(file: GGUFFile, config: Config) -> int:
    """How many layers for multi-token prediction the file of a model has."""
    names = {tensor.name for tensor in file.tensors}
    count = 0
    while f"blk.{config.layers + count}.nextn.eh_proj.weight" in names:
        count += 1
    return count
