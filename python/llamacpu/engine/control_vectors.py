"""Control vectors: directions that are added to the residual stream after layers (A. Zou et al., arXiv:2310.01405).

A file has `general.architecture` "controlvector" and tensors `direction.N`, N >= 1: what is added after layer N,
counted from 0, multiplied by a strength. Layer 0 has none.
"""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from llamacpu import log
from llamacpu.engine.adapter_files import digest_of, shown_shape
from llamacpu.engine.adapters import AdaptedModel
from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


__all__ = ["ControlVector"]

_NAME = re.compile(r"direction\.(\d{1,6})")


class ControlVector:
    """The directions of a file, opened for one model by `Model.control_vector`; immutable.

    path        the file
    directions  layer, counted from 0, -> float32[width]
    digest      SHA-256 of the file, 32 bytes
    """

    def __init__(self, model: AdaptedModel, path: str | os.PathLike[str]) -> None:
        from llamacpu.kernels import FORMATS, dequantize  # brings NumPy

        self.path: Path = Path(path)
        self._owner = weakref.ref(model)
        self.directions: dict[int, NDArray[np.float32]] = {}
        with GGUFFile(path) as file:
            name, width = self.path.name, model.config.embedding_length
            if (found := file.metadata.scalar("general.architecture")) != "controlvector":
                raise ModelError(f"{name}: general.architecture is {found!r:.40}; a control vector has 'controlvector'")
            hint, own = file.metadata.scalar("controlvector.model_hint"), model.config.architecture
            if hint not in (None, "", own):
                log.warning("%s: made for a model of the architecture %s, and used with %s", name, hint, own)
            for tensor in file.tensors:
                match = _NAME.fullmatch(tensor.name)
                if match is None or int(match[1]) == 0:
                    raise ModelError(
                        f"{name}: the tensor {tensor.name!r} is no direction; expected direction.1, direction.2, ..."
                    )
                layer = int(match[1])
                if layer >= model.config.layers or tensor.shape != (width,) or tensor.type_name not in FORMATS:
                    raise ModelError(
                        f"{name}: {tensor.name!r} has the shape {shown_shape(tensor.shape)}, type {tensor.type_name}; "
                        f"expected {width} numbers and a layer below {model.config.layers}: made for another model"
                    )
                if layer in self.directions:
                    raise ModelError(f"{name}: two directions for layer {layer}; expected one")
                blocks = np_bytes(file.tensor_bytes(tensor, 0, tensor.nbytes))
                self.directions[layer] = dequantize(blocks, tensor.type_name)
            if not self.directions:
                raise ModelError(f"{name}: the file has no directions; expected tensors direction.1 and so on")
            self.digest: bytes = digest_of(file)

    def __repr__(self) -> str:
        return f"<ControlVector {self.path.name!r}: {len(self.directions)} layers>"


def np_bytes(data: bytes) -> NDArray[np.uint8]:
    """The bytes as an array."""
    import numpy

    return numpy.frombuffer(data, dtype=numpy.uint8)
