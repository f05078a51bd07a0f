"""Pictures that a program already has in memory: Pillow's images and NumPy's arrays, as the bytes of a PNG file.

What follows reads files only: one digest, one check of sizes and one kind of saved session for every picture.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from llamacpu.errors import PictureError
from llamacpu.pictures.colors import as_rgb
from llamacpu.pictures.picture import ORIENTATION, PictureLimits
from llamacpu.pictures.pillow import image_module

__all__ = ["file_of_image", "is_image_in_memory"]


def is_image_in_memory(source: object) -> bool:
    """Whether this is an image of Pillow's or an array; neither package is imported to find out."""
    for package, name in (("PIL.Image", "Image"), ("numpy", "ndarray")):
        kind = getattr(sys.modules.get(package), name, None)
        if kind is not None and isinstance(source, kind):
            return True
    return False


def file_of_image(source: Any, limits: PictureLimits) -> bytes:
    """The PNG file of an image: its colors as those of a file of the same kind are read, turned as its EXIF says.

    source  an image of Pillow's, or uint8[height, width], [height, width, 3] or [height, width, 4] (the fourth value is
            opacity)

    Raises PictureError for an array of another type or shape, an image without pixels, with more than are accepted, or
    one that Pillow cannot load; ImportError without Pillow.
    """
    module = image_module()
    if not isinstance(source, module.Image):
        source = _from_array(source, module)
    width, height = source.size
    if width < 1 or height < 1:
        raise PictureError(f"an image has {width} x {height} pixels; expected at least one")
    limits.check_pixels(width, height, "an image")
    file = io.BytesIO()
    try:
        # Loading turns TIFF images and says so.
        source.load()
        exif = module.Exif()
        exif[ORIENTATION] = source.getexif().get(ORIENTATION, 1)
        as_rgb(source).save(file, "PNG", compress_level=1, exif=exif)
    except MemoryError:
        raise
    except Exception as error:
        told = str(error)[:200] or type(error).__name__
        raise PictureError(f"an image of Pillow's cannot be read ({told}); expected one that is open") from None
    return file.getvalue()


def _from_array(array: Any, module: Any) -> Any:
    wanted = "expected uint8[height, width, 3], values from 0 to 255"
    if array.dtype != "uint8":
        raise PictureError(f"a picture is an array of {array.dtype}; {wanted}")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise PictureError(f"a picture is an array of the shape {array.shape}; {wanted}")
    return module.fromarray(array)
