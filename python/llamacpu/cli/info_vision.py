"""What `llamacpu info` says about the vision encoder of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.errors import LlamaCpuError, PictureError
from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llamacpu.families.config import Config
    from llamacpu.gguf.file import GGUFFile

__all__ = ["require_encoder", "vision_facts", "vision_rows"]

# Height and width of pictures as they are met: of a screen, and of a telephone.
_SIZES = ((720, 1280), (3000, 4000))


def vision_facts(
    file: GGUFFile,
    config: Config | None,
    mmproj: str | None,
    max_tokens: int | None,
    named: Path | None = None,
    *,
    max_crops: int = 0,
    images: Iterable[Path] = (),
) -> dict[str, Any] | None:
    """The vision encoder of a model, and what pictures of some sizes cost; None if there is no encoder.

    config: of the model; None for a file that is itself an encoder. named: the encoder that came with the model's
    name. images: files of pictures to count, too.
    """
    from llamacpu.multimodal.projectors import projector_beside
    from llamacpu.multimodal.vision import Vision
    from llamacpu.pictures import read_picture

    path = Path(file.path)
    own = file.metadata.scalar("general.architecture") == "mllama" and "mllama.vision.image_size" in file.metadata
    if mmproj:
        found: Path | None = Path(mmproj)
    elif config is None or own:
        found = path
    else:
        found = named or projector_beside(path, config["embedding_length"])
    if found is None:
        return None
    try:
        vision = Vision(found, model=config, max_tokens=max_tokens, max_crops=max_crops)
    except LlamaCpuError as error:
        if mmproj:
            raise
        return {"path": str(found), "problem": str(error)}
    side = vision.settings.image_size
    plans = {f"{wide} x {tall}": vision.plan((tall, wide)) for tall, wide in ((side, side), *_SIZES)}
    for image in images:
        size = read_picture(image).size
        plans[f"{image.name}, {size[1]} x {size[0]}"] = vision.plan(size)
    return {
        "path": str(found),
        "kind": vision.kind,
        "weight_bytes": vision.weight_bytes,
        "tiles": {size: plan.tiles for size, plan in plans.items()},
        "embeddings": {size: plan.rows for size, plan in plans.items()},
        "cross_attention_states": {size: plan.cross_rows for size, plan in plans.items()},
    }


def require_encoder(facts: dict[str, Any] | None) -> None:
    """Raise a PictureError that says why pictures cannot be counted, if there is no encoder that runs."""
    if facts is None:
        raise PictureError(
            "no vision encoder was found to count pictures with; give the mmproj file of the model (--mmproj)"
        )
    if "problem" in facts:
        raise PictureError(f"pictures cannot be counted: {facts['problem']}")


def vision_rows(facts: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The lines for people: name and value."""
    if facts is None:
        return []
    if "problem" in facts:
        return [("pictures", f"none: {facts['problem']}")]
    rows = [("pictures", f"{facts['kind']}, {amount(facts['weight_bytes'])} in {Path(facts['path']).name}")]
    for size, tiles in facts["tiles"].items():
        states = facts["cross_attention_states"][size]
        cost = f"{states} states of cross-attention" if states else f"{facts['embeddings'][size]} tokens"
        rows.append((f"  {size}", f"{cost}, {tiles} {'tile' if tiles == 1 else 'tiles'}"))
    return rows
