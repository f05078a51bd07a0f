"""Each kind of image file as cameras and programs write it: orientation, transparency, depth, several pictures."""

from __future__ import annotations

import sys
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import picture_cases as cases
from llamacpu.errors import PictureError
from llamacpu.pictures import Picture, PictureLimits, read_picture
from llamacpu.pictures import pillow as own_pillow
from test_pictures import chunk, png, saved

Image = pytest.importorskip("PIL.Image")
MADE = cases.made((40, 64))
EXACT: dict[str, dict[str, Any]] = {
    "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "HEIF": {"quality": -1, "chroma": 444, "matrix_coefficients": 0},
}  # fmt: skip
"""Kinds that lose nothing with these settings."""
SHAPES = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a)[:, ::-1],
    8: lambda a: np.rot90(a),
}  # fmt: skip


def writes(kind: str) -> str:
    """The kind, if this machine writes it; else the test is skipped."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    elif kind not in own_pillow.image_module().SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    return kind


@pytest.mark.parametrize("turn", SHAPES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "MPO"])
def test_every_kind_is_turned_upright(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    found = Picture(saved(Image.fromarray(MADE), writes(kind), exif=exif, **EXACT.get(kind, {"quality": 95})))
    upright = SHAPES[turn](MADE)
    assert found.size == upright.shape[:2]
    pixels = found.pixels()
    assert pixels.shape == upright.shape
    # Wrongly turned, the generated picture differs by far more.
    assert np.abs(pixels.astype(int) - upright).mean() < (1e-9 if kind in EXACT else 12)


def test_an_orientation_out_of_range_is_none() -> None:
    exif = Image.Exif()
    for turn in (0, 9, 77):
        exif[0x0112] = turn
        assert Picture(saved(Image.fromarray(MADE), exif=exif)).size == (40, 64)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "WEBP"])
def test_modern_kinds(kind: str) -> None:
    options = EXACT.get(kind, {"quality": 95})
    found = Picture(saved(Image.fromarray(MADE), writes(kind), **options))
    assert (found.size, found.format) == ((40, 64), kind)
    assert np.abs(found.pixels().astype(int) - MADE).mean() < (1e-9 if kind in EXACT else 12)
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert (Picture(saved(clear, kind, **options)).pixels() > 250).all()
    frames = [Image.new("RGB", (16, 16), color) for color in ((250, 0, 0), (0, 0, 250))]
    first = Picture(saved(frames[0], kind, save_all=True, append_images=frames[1:])).pixels()
    assert np.abs(first.astype(int) - [250, 0, 0]).max() < 12
    for length in (30, 200):
        with pytest.raises(PictureError):
            Picture(saved(Image.fromarray(MADE), kind, **options)[:length]).pixels()


def test_what_is_missing_for_a_kind_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    own_pillow.image_module.cache_clear()
    module = own_pillow.image_module()
    without = {name: opener for name, opener in module.OPEN.items() if name not in ("HEIF", "AVIF")}
    monkeypatch.setattr(module, "OPEN", without)
    for brand in (b"heic", b"mif1"):
        with pytest.raises(PictureError, match=r"phone\.heic is HEIC, .*pip install pillow-heif"):
            Picture(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1heic", name="phone.heic")
    with pytest.raises(PictureError, match=r"AVIF, .*pip install -U pillow"):
        Picture(b"\0\0\0\x1cftypavif\0\0\0\0mif1avif")
    with pytest.raises(PictureError, match="is not an image"):
        Picture(b"\0\0\0\x1cftypmp42\0\0\0\0mp42isom")
    own_pillow.image_module.cache_clear()


def test_depths() -> None:
    levels = np.array([[0, 100, 255], [7, 8, 9]], np.uint8)
    wide = levels.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide.repeat(3, 1))
    assert (Picture(png(3, 2, rows, depth=16)).pixels() == levels[..., None]).all()
    assert (Picture(b"P6 3 2 65535\n" + wide.repeat(3, 1).tobytes()).pixels() == levels[..., None]).all()
    assert (Picture(b"P5 3 2 65535\n" + wide.tobytes()).pixels() == levels[..., None]).all()
    # All values of a dark picture of 16 bits are small, and those of one stored with 32 bits are of 16 bits.
    assert (Picture(saved(Image.fromarray(levels.astype(np.uint16)))).pixels() <= 1).all()
    for kind in (np.int32, np.uint16):
        deep = Image.fromarray((levels.astype(np.int64) * 257).astype(kind))
        assert (Picture(saved(deep, "TIFF")).pixels() == levels[..., None]).all()
    odd = np.array([[np.nan, np.inf, -np.inf, 255.0]], np.float32)
    assert (Picture(saved(Image.fromarray(odd), "TIFF")).pixels()[0, :, 0] == [0, 255, 0, 255]).all()


def test_transparency_of_palettes() -> None:
    """Each color of a palette may be transparent to a degree."""
    palette, alpha = bytes([9, 9, 9, 50, 60, 70, 0, 0, 0]), bytes([0, 255, 128])
    whole = png(3, 1, b"\0\0\1\2", kind=3)
    place = whole.index(b"IDAT") - 4
    data = whole[:place] + chunk(b"PLTE", palette) + chunk(b"tRNS", alpha) + whole[place:]
    pixels = Picture(data).pixels()
    assert (pixels[0, :2] == [[255, 255, 255], [50, 60, 70]]).all()
    assert np.abs(pixels[0, 2].astype(int) - 127).max() <= 1
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette(palette[:6])
    assert (Picture(saved(image, "GIF", transparency=0)).pixels() == [[255, 255, 255], [50, 60, 70]]).all()


def test_colors_of_print() -> None:
    """CMYK from JPEG (stored inverted) and TIFF."""
    ink = Image.new("CMYK", (8, 8), (0, 255, 0, 0))
    assert np.abs(Picture(saved(ink, "TIFF")).pixels().astype(int) - [255, 0, 255]).max() <= 2
    assert np.abs(Picture(saved(ink, "JPEG", quality=100)).pixels().astype(int) - [255, 0, 255]).max() <= 3


def ico(inner: bytes, side: int) -> bytes:
    """An icon whose directory says `side` of the PNG in it."""
    entry = bytes([side, side, 0, 0]) + (1).to_bytes(2, "little") + (32).to_bytes(2, "little")
    return b"\0\0\1\0\1\0" + entry + len(inner).to_bytes(4, "little") + (22).to_bytes(4, "little") + inner


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_sizes_that_containers_lie_about() -> None:
    assert Picture(ico(saved(Image.fromarray(MADE)), 16)).pixels().shape == (40, 64, 3)
    with pytest.raises(PictureError, match="9000 x 9000 pixels; at most"):
        Picture(ico(png(9000, 9000, b"\0" * 1000), 16))
    with pytest.raises(PictureError, match="unfolds to too many pixels"):
        Picture(png(2**20, 2**20))
    with pytest.raises(PictureError, match=r"has no pixels|not an image"):
        Picture(b"P5 0 5 255\n")


@pytest.mark.parametrize("kind", ["PCX", "TGA", "SGI", "EPS", "PDF", "SPIDER"])
def test_kinds_that_pillow_knows_and_nobody_sends(kind: str) -> None:
    image = Image.fromarray(MADE)
    image = image.convert("F") if kind == "SPIDER" else image
    with pytest.raises(PictureError, match="not an image"):
        Picture(saved(image, writes(kind)))


def test_limits_come_before_memory(tmp_path: Path) -> None:
    limits = PictureLimits(bytes=1 << 20)
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    text = "data:image/png;base64," + "A" * (16 << 20)
    percent = "data:image/png," + "%41" * (6 << 20)
    for source in (path, text, percent):
        tracemalloc.start()
        try:
            with pytest.raises(PictureError, match="at most 1048576"):
                read_picture(source, limits=limits)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # A text is copied once where its head is split off.
        assert peak < (1 << 19 if source is path else 1.1 * len(str(source))), str(source)[:30]


def test_an_image_is_read_whole() -> None:
    """The pixels that are missing from a file that was cut off are not made up."""
    file = BytesIO()
    Image.fromarray(MADE).save(file, "JPEG", quality=95)
    with pytest.raises(PictureError, match="cannot be decoded"):
        Picture(file.getvalue()[:-200]).pixels()
