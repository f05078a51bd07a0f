"""The vision encoder of a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llamacpu import _native
from llamacpu.arguments import function
from llamacpu.engine.interfaces import CancelToken
from llamacpu.engine.opened_file import OpenedFile
from llamacpu.engine.pictures import EncodeProgress, PictureConfig, PictureEmbedding
from llamacpu.vision.registry import settings_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PictureEncoder"]


class PictureEncoder(OpenedFile):
    """The vision encoder in a GGUF file: an mmproj file, or a model that holds both (Llama 3.2 Vision).

    path     the file
    threads  how many to use; None for the machine's default

    Raises OSError if the file cannot be opened, GGUFError if it is not a GGUF file, ModelError if it holds no encoder,
    one of an unknown kind, or metadata and tensors that do not form one, and MemoryError.
    """

    _native: _native.PictureEncoder

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        self._check(path, threads)
        super().__init__(path)
        try:
            settings = settings_for(self._file)
            self._config = settings.pictures
            self._native = _native.PictureEncoder(
                self._file.native_files, dict(settings.native), self._tensor_rows(), threads
            )
        except BaseException:
            self._file.close()
            raise

    @property
    def kind(self) -> str:
        """The kind of encoder; see `PictureConfig.kind`."""
        return self._config.kind

    @property
    def config(self) -> PictureConfig:
        """What becomes of a picture."""
        return self._config

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices that a picture passes through."""
        return self._native.weight_bytes

    def encode(
        self,
        pixels: NDArray[np.float32],
        *,
        grid: tuple[int, int] | None = None,
        aspect_ratio_id: int | None = None,
        cancel: CancelToken | None = None,
        on_progress: EncodeProgress | None = None,
    ) -> PictureEmbedding:
        """Encode the tiles of one picture.

        pixels           float32[tiles, height, width, 3], normalized as `llamacpu.pictures.PictureSettings` says
        grid             (rows, columns) of the tiles, checked against their number if it is given
        aspect_ratio_id  number of the arrangement of the tiles, for encoders whose tiles see each other (Llama 3.2
                         Vision: 1 to 8 for 1x1 1x2 1x3 1x4 2x1 2x2 3x1 4x1, height x width)
        cancel           stops it from another thread or after a timeout: `Cancelled` is raised
        on_progress      (layers that are done, all layers): called before the first layer and after every one

        No bit of the result depends on the number of threads, the instruction set, or, where tiles are separate, on
        other tiles. Raises ValueError for pixels that do not fit the encoder or are not finite, ModelError if the file
        has changed, MemoryError.
        """
        import numpy

        function("on_progress", on_progress)
        values = numpy.ascontiguousarray(pixels, dtype=numpy.float32)
        if values.ndim != 4 or values.shape[3] != 3:
            raise ValueError(f"the pixels have the shape {numpy.shape(pixels)}; expected tiles x height x width x 3")
        tiles = len(values)
        if grid is not None and grid[0] * grid[1] != tiles:
            raise ValueError(f"{tiles} tiles for a grid of {grid[0]} x {grid[1]}; expected as many")
        if (aspect_ratio_id is not None) != self._config.cross:
            needs = "needs" if self._config.cross else "takes no"
            raise ValueError(
                f"aspect_ratio_id is {aspect_ratio_id}: this encoder, {self.kind}, {needs} arrangement of tiles"
            )
        encoding = self._native.begin(values, aspect_ratio_id or 0)
        done, every = encoding.stages
        if on_progress is not None:
            on_progress(done, every)
        while done < every:
            done, every = encoding.advance(cancel)
            if on_progress is not None:
                on_progress(done, every)
        return PictureEmbedding(rows=encoding.rows(), tiles=tiles, cross=self._config.cross)

    def __repr__(self) -> str:
        return f"<PictureEncoder {self._file.path.name!r}: {self.kind}>"
