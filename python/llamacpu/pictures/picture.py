"""`Picture`: an image file, opened and checked; decoded when its pixels are asked for."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llamacpu.errors import PictureError
from llamacpu.locks import cached_property
from llamacpu.pictures.colors import as_rgb
from llamacpu.pictures.headers import icon_size, stored_size, what_is_missing
from llamacpu.pictures.pillow import FORMATS, image_module

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ORIENTATION", "Picture", "PictureLimits"]

ORIENTATION = 0x0112
"""The number under which EXIF data say how the camera was held."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class PictureLimits:
    """What is accepted; more raises PictureError before memory is used for it.

    bytes   of a picture's file
    pixels  of a picture, decoded: a small file may unfold to very many
    count   pictures in a conversation
    """

    bytes: int = 64 << 20
    pixels: int = 64_000_000
    count: int = 64

    def check_bytes(self, size: int) -> None:
        """Raise PictureError for a file of more bytes than are accepted."""
        if size > self.bytes:
            raise PictureError(f"a picture's file has {size} bytes; at most {self.bytes} are accepted")

    def check_pixels(self, width: int, height: int, called: str = "a picture") -> None:
        """Raise PictureError for more pixels than are accepted."""
        if width * height > self.pixels:
            raise PictureError(
                f"{called} has {width} x {height} pixels; at most {self.pixels} are accepted: make it smaller"
            )

    def check_count(self, count: int) -> None:
        """Raise PictureError for more pictures than are accepted."""
        if count > self.count:
            raise PictureError(f"there are {count} pictures; at most {self.count} are accepted in a conversation")


class Picture:
    """An image file: PNG, JPEG, GIF, WebP, BMP, TIFF, PPM, JPEG 2000, ICO, AVIF, QOI; HEIC with pillow-heif installed.

    Of an animation, the first frame counts. `data` is the whole file; `name` is used in error messages.

    Raises PictureError for anything else, and for pictures above the limits; ImportError without Pillow.

    size    height and width as it is to be looked at, in pixels: the orientation of a camera (EXIF) is applied
    digest  16 bytes that tell files apart
    format  "PNG", "JPEG", ...
    """

    def __init__(self, data: bytes, limits: PictureLimits | None = None, name: str = "") -> None:
        limits = limits or PictureLimits()
        limits.check_bytes(len(data))
        self.data: bytes = data
        self.name: str = name
        # Pillow decodes an icon when it opens it.
        limits.check_pixels(*icon_size(data), self._called)
        image = self._guarded(self._open)
        width, height = stored_size(image)
        if width < 1 or height < 1:
            raise PictureError(f"{self._called} has no pixels")
        limits.check_pixels(width, height, self._called)
        self.format: str = str(image.format)
        turn = _orientation(image)
        self.size: tuple[int, int] = (width, height) if turn >= 5 else (height, width)
        # Pillow turns TIFF files itself.
        self._turn = 1 if image.format == "TIFF" else turn

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that tell files apart."""
        return hashlib.blake2b(self.data, digest_size=16).digest()

    def pixels(self) -> NDArray[np.uint8]:
        """Decode the picture: uint8[height, width, 3], red, green and blue; what is transparent lies on white.

        Raises PictureError if the file is damaged.
        """
        return self._guarded(self._decode)

    def __repr__(self) -> str:
        return f"<Picture: {self.format}, {self.size[1]} x {self.size[0]}{', ' + self.name if self.name else ''}>"

    @property
    def _called(self) -> str:
        return f"the picture {self.name}" if self.name else "a picture"

    def _open(self) -> Any:
        module = image_module()
        return module.open(io.BytesIO(self.data), formats=[name for name in FORMATS if name in module.OPEN])

    def _decode(self) -> NDArray[np.uint8]:
        import numpy as np

        with self._open() as image:
            image.load()
            rgb = as_rgb(image)
        module = image_module()
        turns = module.Transpose
        turn = {
            2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
            6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90,
        }.get(self._turn)  # fmt: skip
        found = np.asarray(rgb if turn is None else rgb.transpose(turn), dtype=np.uint8)
        if found.shape != (*self.size, 3):
            raise PictureError(f"{self._called} has other pixels than its header says")
        return found

    def _guarded(self, work: Callable[[], Value]) -> Value:
        """Run something of Pillow's, whose decoders raise whatever a damaged file leads them to."""
        try:
            return work()
        except (PictureError, ImportError, MemoryError):
            raise
        except Exception as error:
            if type(error).__name__ == "UnidentifiedImageError":
                missing = what_is_missing(self.data)
                if missing:
                    raise PictureError(f"{self._called} is {missing}, or convert it to JPEG or PNG") from None
                told = "is not an image, or of a kind that is not read" if self.data else "is empty"
            elif type(error).__name__.startswith("DecompressionBomb"):
                told = "unfolds to too many pixels"
            else:
                told = f"cannot be decoded ({str(error)[:200] or type(error).__name__})"
            raise PictureError(f"{self._called} {told}; expected a PNG, JPEG, WebP, GIF, ...") from None


def _orientation(image: Any) -> int:
    """How the camera was held, 1 (upright) to 8; 1 if the file does not say or cannot be understood."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
