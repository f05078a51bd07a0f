"""Which matrices of a model get an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from llamacpu.arguments import meant
from llamacpu.errors import TrainingError
from llamacpu.tools.train.hf_names import GGUF_NAMES

__all__ = ["chosen_targets"]


def chosen_targets(trainable: Sequence[tuple[str, int, int]], matrices: str | Sequence[str]) -> list[str]:
    """The names of the chosen matrices, in the order of the model.

    trainable: names ("blk.0.attn_q"), rows and columns. matrices: "all", "attention", "feed_forward", or a list of
    names, each of one matrix, of its kind in all layers ("attn_q"), or of Hugging Face's ("q_proj"); also as one text
    with commas. Raises TrainingError for a name that the model does not have.
    """
    names = [name for name, _, _ in trainable]
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in names)
    wanted = [part.strip() for part in matrices.split(",")] if isinstance(matrices, str) else list(matrices)
    chosen: set[str] = set()
    for name in wanted:
        found = {each for each in names if _belongs(each, name)}
        if not found:
            known = ["all", "attention", "feed_forward", *kinds]
            raise TrainingError(
                f"no matrix of the model is called {name!r:.60}{meant(name, [*known, *GGUF_NAMES])}; "
                f"expected {', '.join(known)}"
            )
        chosen |= found
    return [name for name in names if name in chosen]


def _belongs(target: str, name: str) -> bool:
    kind = target.rpartition(".")[2]
    if name == "all":
        return target.startswith("blk.")
    if name in ("attention", "feed_forward"):
        return kind.startswith("attn" if name == "attention" else "ffn")
    return name in (target, f"{target}.weight", kind) or GGUF_NAMES.get(name) == kind
