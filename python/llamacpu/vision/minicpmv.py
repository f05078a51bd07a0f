"""MiniCPM-V 2.5, 2.6, 4.0 and 4.5 (arXiv:2408.01800): SigLIP on tiles of any shape, and a resampler that makes the same
number of rows of each."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import Activation, PictureConfig, VisionConfig, VisionSettings

__all__ = ["minicpmv", "queries_of"]

_OLDEST = 2
_VERSIONS = {2: 96, 3: 64, 4: 64, 5: 64, 6: 64, 100045: 64}
"""clip.minicpmv_version to the rows of a tile: MiniCPM-V 2.5, 2.6, MiniCPM-o 2.6, MiniCPM-V 4.0, 4.5, MiniCPM-o 4.5"""
_MAX_QUERIES = 1 << 12


def queries_of(version: int, queries: int) -> tuple[int, int]:
    """The version of a model, and the rows that its resampler makes of a tile, where the file may say 0 for both.

    Raises ModelError for a version whose prompt is unknown.
    """
    version = version or _OLDEST
    if version not in _VERSIONS:
        known = ", ".join(map(str, _VERSIONS))
        raise ModelError(f"metadata key 'clip.minicpmv_version' is {version}; expected one of {known}")
    return version, queries or _VERSIONS[version]


def minicpmv(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file. Its converter leaves the width of the rows out; that of their last matrix has it."""
    projector = "resampler.proj"
    width = next((tensor.shape[-1] for tensor in file.tensors if tensor.name == f"{projector}.weight"), 0)
    fields = parts.common(file, kind, width)
    version = file.metadata.integer("clip.minicpmv_version", 0)
    _, queries = queries_of(version, file.metadata.integer("clip.minicpmv_query_num", 0, maximum=_MAX_QUERIES))
    activation: Activation = "gelu_sigmoid"
    if file.metadata.flag("clip.use_gelu", False):
        activation = "gelu_tanh"
    elif file.metadata.flag("clip.use_silu", False):
        activation = "silu"
    native = VisionConfig(
        **fields | {"image_size": 0, "layers": parts.layers_in(file, fields["layers"])},
        activation=activation,
        positions="nearest",
        queries=queries,
        projector=[projector],
        prefixes=["v.", "mm.", "resampler."],
        # Positions of keys for one shape of tiles; those of all shapes are computed.
        ignored_tensors=["resampler.pos_embed"],
    )
    pictures = PictureConfig(**parts.projections(fields), any_size=True, fixed_rows=queries)
    return VisionSettings(native, pictures)
