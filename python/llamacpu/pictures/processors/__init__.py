"""How each kind of model has its pictures prepared: one file per kind, chosen by the kind of projector."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.processors.gemma3 import Gemma3
from llamacpu.pictures.processors.idefics3 import Idefics3
from llamacpu.pictures.processors.internvl import InternVL
from llamacpu.pictures.processors.llama4 import Llama4
from llamacpu.pictures.processors.llava import Llava
from llamacpu.pictures.processors.llava_next import LlavaNext
from llamacpu.pictures.processors.minicpmv import MiniCPMV
from llamacpu.pictures.processors.mllama import Mllama
from llamacpu.pictures.processors.muse_glimmer import MuseGlimmer
from llamacpu.pictures.processors.pixtral import Pixtral
from llamacpu.pictures.processors.qwen2_vl import Qwen2VL
from llamacpu.pictures.settings import PictureSettings

__all__ = ["Processor", "processor_for"]

_KINDS: dict[str, type[Processor]] = {
    "gemma3": Gemma3,
    "idefics3": Idefics3,
    "internvl": InternVL,
    "llama4": Llama4,
    "mlp": Llava,
    "mllama": Mllama,
    "muse-glimmer": MuseGlimmer,
    "pixtral": Pixtral,
    "qwen2.5vl_merger": Qwen2VL,
    "qwen2vl_merger": Qwen2VL,
    "qwen3vl_merger": Qwen2VL,
    "resampler": MiniCPMV,
}


def processor_for(settings: PictureSettings) -> Processor:
    """The processor of the kind of model that the settings name. Raises ModelError for a kind that is not known."""
    if settings.projector == "mlp" and settings.grids:
        return LlavaNext(settings)
    kind = _KINDS.get(settings.projector)
    if kind is None:
        known = ", ".join(sorted(_KINDS))
        raise ModelError(
            f"vision encoders with the projector {settings.projector!r} are not supported; these are: {known}"
        )
    return kind(settings)
