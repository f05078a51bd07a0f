"""From the kind of a vision encoder to the function that reads its configuration."""

from __future__ import annotations

import importlib

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision.config import VisionSettings

__all__ = ["ENCODERS", "kind_of", "settings_for"]

ENCODERS = {
    "gemma3": "gemma3",
    "idefics3": "idefics3",
    "internvl": "internvl",
    "llama4": "llama4",
    "mllama": "mllama",
    "mlp": "llava",
    "muse-glimmer": "muse_glimmer",
    "pixtral": "pixtral",
    "qwen2vl_merger": "qwen2vl",
    "qwen2.5vl_merger": "qwen2vl",
    "qwen3vl_merger": "qwen3vl",
    "resampler": "minicpmv",
}
"""clip.projector_type, or the architecture of a file that holds text and pictures, to a module here with a function of
the same name; imported on demand"""


def kind_of(file: GGUFFile) -> str:
    """The kind of the encoder in a file.

    Raises ModelError if the file has none.
    """
    metadata = file.metadata
    architecture = metadata.text("general.architecture")
    if architecture in ENCODERS and any(tensor.name.startswith("v.") for tensor in file.tensors):
        return architecture
    if architecture != "clip":
        raise ModelError(
            f"a file of the architecture {architecture[:60]!r} holds no vision encoder; open the file that "
            "belongs to the model, often named mmproj"
        )
    if not metadata.flag("clip.has_vision_encoder", True):
        raise ModelError("the file holds an encoder of something other than pictures")
    key = "clip.vision.projector_type" if "clip.vision.projector_type" in metadata else "clip.projector_type"
    # Files from before that key are of LLaVA.
    return metadata.text(key, "mlp")


def settings_for(file: GGUFFile) -> VisionSettings:
    """The configuration of the encoder in `file`.

    Raises `ModelError` if the file holds none, one of an unknown kind, or metadata that are missing or out of range.
    Tensors are looked up and shape-checked by the native encoder.
    """
    try:
        kind = kind_of(file)
        if kind not in ENCODERS:
            known = ", ".join(sorted(ENCODERS))
            raise ModelError(f"the vision encoder {kind[:60]!r} is not supported; supported are: {known}")
        module = importlib.import_module(f"llamacpu.vision.{ENCODERS[kind]}")
        found: VisionSettings = getattr(module, ENCODERS[kind])(file, kind)
        return found
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}") from None
