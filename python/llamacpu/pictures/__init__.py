"""Pictures for vision models: from a file to the pixels that a vision encoder reads, and the tokens that they take.

source      a path, bytes, a data URL or an address -> the bytes of a file
picture     bytes -> `Picture`: its size, its digest, and its pixels as RGB
settings    what the file of a vision encoder says about its input -> `PictureSettings`
processors  one file for each kind of model: `plan` (sizes, tiles, tokens) and `prepare` (pixels)

Pictures are resized, tiled and normalized as by the processors of Hugging Face transformers, with which the models
were trained. Decoding and resizing need the extra `pictures` (Pillow).
"""

from llamacpu.pictures.picture import Picture, PictureLimits
from llamacpu.pictures.plan import Plan, Prepared
from llamacpu.pictures.processors import Processor, processor_for
from llamacpu.pictures.settings import PictureSettings
from llamacpu.pictures.source import PictureAccess, read_picture

__all__ = [
    "Picture",
    "PictureAccess",
    "PictureLimits",
    "PictureSettings",
    "Plan",
    "Prepared",
    "Processor",
    "processor_for",
    "read_picture",
]
