"""Pillow's images and arrays as pictures: the pixels of the same image in a file; broken ones are refused."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
import vision_files
from llamacpu.errors import PictureError
from llamacpu.pictures import PictureLimits, read_picture

Image = pytest.importorskip("PIL.Image")

VALUES = np.random.default_rng(3).integers(0, 256, (5, 7, 4)).astype(np.uint8)
ORIENTATION = 0x0112


def in_file(image: Any, kind: str, **options: Any) -> BytesIO:
    file = BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"]),
    turn=st.integers(1, 8),
    values=st.binary(min_size=140, max_size=140),
)
def test_an_image_is_read_as_the_file_it_was_opened_from(mode: str, turn: int, values: bytes) -> None:
    array = np.frombuffer(values, np.uint8).reshape(5, 7, 4)
    wide = np.ascontiguousarray(array[..., :2]).view("<u2")[..., 0]
    image = Image.fromarray(wide) if mode == "I;16" else Image.fromarray(array, "RGBA").convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    kind = "TIFF" if mode == "CMYK" else "PNG"
    file = in_file(image, kind, exif=exif)
    picture = read_picture(Image.open(file))
    expected = read_picture(file.getvalue())
    assert picture.size == expected.size
    assert np.array_equal(picture.pixels(), expected.pixels())


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_arrays_are_gray_colored_or_transparent() -> None:
    assert np.array_equal(read_picture(VALUES[..., :3]).pixels(), VALUES[..., :3])
    assert np.array_equal(read_picture(VALUES[::-1, :, :3]).pixels(), VALUES[::-1, :, :3])
    assert np.array_equal(read_picture(VALUES[..., 0]).pixels(), np.repeat(VALUES[..., :1], 3, axis=2))
    clear = VALUES.copy()
    clear[..., 3] = 0
    assert (read_picture(clear).pixels() == 255).all()


def test_equal_images_have_one_digest() -> None:
    """So that a second question about one image encodes nothing."""
    image = Image.fromarray(VALUES[..., :3])
    assert read_picture(image).digest == read_picture(image.copy()).digest == read_picture(VALUES[..., :3]).digest
    assert read_picture(image).digest != read_picture(VALUES[::-1, :, :3]).digest


@pytest.mark.parametrize("array", [VALUES.astype(np.float32), VALUES[..., :2], VALUES[None], VALUES.astype(np.int64)])
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PictureError, match="expected uint8"):
        read_picture(array)


def test_broken_empty_and_large_images_are_refused() -> None:
    closed = Image.open(in_file(Image.fromarray(VALUES), "PNG"))
    closed.close()
    cut = Image.open(BytesIO(in_file(Image.fromarray(VALUES), "BMP").getvalue()[:-9]))
    for image in (closed, cut):
        with pytest.raises(PictureError, match="cannot be read"):
            read_picture(image)
    with pytest.raises(PictureError, match="0 x 3 pixels"):
        read_picture(Image.new("RGB", (0, 3)))
    with pytest.raises(PictureError, match="at most 34 are accepted"):
        read_picture(VALUES, limits=PictureLimits(pixels=34))


def test_messages_may_hold_them(tmp_path: Path) -> None:
    demo = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
    colors = VALUES[..., :3]
    image = Image.fromarray(colors)
    forms = (in_file(image, "PNG").getvalue(), image, colors)
    with llamacpu.Model(demo, mmproj=vision_files.write_mmproj(tmp_path / "encoder.gguf")) as model:
        answers = [
            model.chat([{"role": "user", **content}], max_tokens=4, sampling=llamacpu.Sampling(seed=1)).content
            for content in (
                *({"content": [{"type": "image", "image": one}, {"type": "text", "text": "?"}]} for one in forms),
                {"content": "?", "images": [image]},
            )
        ]
    assert answers[1:] == answers[:1] * 3
