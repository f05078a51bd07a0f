"""Pictures of every kind of file and color, broken and hostile ones, and where they may come from."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import random
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import picture_cases as cases
from llamacpu.errors import PictureError
from llamacpu.pictures import Picture, PictureAccess, PictureLimits, read_picture
from llamacpu.pictures import address as addresses
from llamacpu.pictures.source import from_base64

Image = pytest.importorskip("PIL.Image")
from PIL import features  # noqa: E402


def saved(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(image: Any, kind: str = "PNG", **options: Any) -> np.ndarray:
    return Picture(saved(image, kind, **options)).pixels()


GRAY = np.array([[0, 100, 255], [7, 8, 9]], np.uint8)
COLORS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 200, 30]]], np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG2000", "AVIF", "ICO", "QOI"])
def test_every_kind_of_file(kind: str) -> None:
    needed = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}.get(kind)
    if needed and not features.check(needed):
        pytest.skip(f"this Pillow has no {kind}")
    if kind == "QOI" and "QOI" not in Image.SAVE:
        pytest.skip("this Pillow writes no QOI")
    image = Image.fromarray(cases.made((17, 24)))
    options = {"WEBP": {"lossless": True}, "ICO": {"sizes": [(24, 17)]}}.get(kind, {})
    found = Picture(saved(image, kind, **options))
    assert found.size == (17, 24)
    assert found.pixels().shape == (17, 24, 3)
    if kind in ("PNG", "BMP", "TIFF", "PPM", "WEBP", "ICO", "QOI"):
        assert (found.pixels() == np.asarray(image)).all()


def test_a_digest_tells_files_apart() -> None:
    first, second = saved(Image.fromarray(COLORS)), saved(Image.fromarray(COLORS[::-1]))
    assert Picture(first).digest == Picture(first).digest != Picture(second).digest
    assert len(Picture(first).digest) == 16


def test_colors() -> None:
    gray = Image.fromarray(GRAY)
    assert (pixels_of(gray) == GRAY[..., None]).all()
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    assert (pixels_of(deep) == GRAY[..., None]).all()
    assert (pixels_of(deep, "TIFF") == GRAY[..., None]).all()
    assert (pixels_of(Image.fromarray((GRAY / 255).astype(np.float32)), "TIFF") == GRAY[..., None]).all()
    assert (pixels_of(Image.fromarray(GRAY.astype(np.float32)), "TIFF") == GRAY[..., None]).all()
    assert (pixels_of(Image.fromarray(GRAY.astype(np.int32)), "TIFF") == GRAY[..., None]).all()
    two = Image.fromarray(GRAY > 50)
    assert (pixels_of(two) == np.where(GRAY > 50, 255, 0)[..., None]).all()
    image = Image.fromarray(COLORS)
    assert (pixels_of(image.convert("P", palette=Image.Palette.ADAPTIVE)) == COLORS).all()
    cyan = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    assert np.abs(pixels_of(cyan, "JPEG", quality=100).astype(int) - [0, 255, 255]).max() <= 2
    assert (pixels_of(cyan, "TIFF") == [0, 255, 255]).all()
    assert np.abs(pixels_of(image.convert("LAB"), "TIFF").astype(int) - COLORS).max() <= 30  # eight bits of L*a*b*


def test_what_is_transparent_lies_on_white() -> None:
    alpha = np.array([[0, 255], [128, 255]], np.uint8)
    clear = np.concatenate([COLORS, alpha[..., None]], -1)
    weight = alpha[..., None] / 255
    wanted = np.rint(COLORS * weight + 255 * (1 - weight))
    for mode_kind in ("PNG", "TIFF"):
        assert np.abs(pixels_of(Image.fromarray(clear, "RGBA"), mode_kind) - wanted).max() <= 1
    pair = Image.merge("LA", [Image.new("L", (1, 1), 10), Image.new("L", (1, 1), 0)])
    assert (pixels_of(pair) == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 50, 60, 70])
    assert (pixels_of(palette, transparency=0) == [[255, 255, 255], [50, 60, 70]]).all()
    assert (pixels_of(Image.fromarray(COLORS), transparency=(255, 0, 0))[0, 0] == 255).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_of_the_camera(turn: int) -> None:
    image = Image.fromarray(cases.made((5, 8)))
    upright = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a)[:, ::-1],
        8: lambda a: np.rot90(a),
    }[turn](np.asarray(image))  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    found = Picture(saved(image, exif=exif))
    assert found.size == upright.shape[:2]
    assert (found.pixels() == upright).all()


def test_an_orientation_that_makes_no_sense_is_none() -> None:
    image = Image.fromarray(COLORS)
    exif = Image.Exif()
    exif[0x0112] = 77
    assert (Picture(saved(image, exif=exif)).pixels() == COLORS).all()
    assert (Picture(saved(image, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).pixels() == COLORS).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in ((255, 0, 0), (0, 0, 255))]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert (Picture(data).pixels() == [255, 0, 0]).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", kind: int = 2, depth: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_they_unfold() -> None:
    for width, height in [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (9_000, 9_000), (2**30, 1)]:
        with pytest.raises(PictureError, match="pixels"):
            Picture(png(width, height, b"\0" * 1000))
    with pytest.raises(PictureError, match="at most 5 "):
        Picture(saved(Image.new("L", (3, 2))), PictureLimits(pixels=5))
    with pytest.raises(PictureError, match="at most 10 are"):
        Picture(saved(Image.new("L", (3, 2))), PictureLimits(bytes=10))
    with pytest.raises(PictureError, match="3 pictures; at most 2"):
        PictureLimits(count=2).check_count(3)


def test_truncated_and_damaged_files_are_one_clear_error() -> None:
    chance = random.Random(1)
    image = Image.fromarray(cases.made((40, 50)))
    kinds = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "ICO"] + [k for k in ("WEBP", "AVIF") if k in Image.SAVE]
    messages: list[str] = []
    for kind in kinds:
        whole = saved(image, kind)
        cut = [whole[:size] for size in (0, 1, 8, len(whole) // 3, len(whole) // 2)]
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(chance.randrange(1, 12)):
                damaged[chance.randrange(min(len(whole), 400))] = chance.randrange(256)
            cut.append(bytes(damaged))
        for data in cut:
            try:
                pixels = Picture(data).pixels()
            except PictureError as error:
                messages.append(str(error))
            else:
                assert pixels.dtype == np.uint8
    assert len(messages) > 50
    assert all("picture" in message and len(message) < 400 for message in messages)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 100, b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"<svg/>", b"%PDF-1.4",
        b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", png(0, 5), png(5, 0), png(3, 3, b"", kind=7),
        b"RIFF\0\0\0\0WEBP",
    ],
)  # fmt: skip
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(PictureError):
        Picture(data).pixels()


def test_data_urls_and_base64() -> None:
    data = saved(Image.fromarray(COLORS))
    text = base64.b64encode(data).decode()
    url = f"data:image/png;base64,{text}"
    for given in (
        url, f"DATA:;BASE64,{text}", url.rstrip("="), f"data:image/png;base64,{text[:40]}\n {text[40:]}",
        url.replace("+", "%2B").replace("/", "%2F"), url.translate({43: "-", 47: "_"}),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
    ):  # fmt: skip
        assert read_picture(given).data == data, given[:40]
    assert from_base64(text).data == data
    for broken in ("data:", "data:image/png;base64", "data:image/png;base64,***", "data:image/png;base64,é", "data:,"):
        with pytest.raises(PictureError):
            read_picture(broken)
    with pytest.raises(PictureError, match="at most"):
        read_picture(url, limits=PictureLimits(bytes=20))
    with pytest.raises(PictureError, match="base64"):
        from_base64("not base64!")


def test_files_are_read_only_where_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(saved(Image.fromarray(COLORS)))
    assert read_picture(path).size == (2, 2)
    assert read_picture(path.read_bytes()).size == (2, 2)
    picture = read_picture(path)
    assert read_picture(picture) is picture
    for text in (str(path), path.as_uri(), "secret", "/etc/passwd", "C:\\x.png"):
        with pytest.raises(PictureError, match="not allowed"):
            read_picture(text)
    allowed = PictureAccess(files=True)
    assert read_picture(str(path), allowed).size == (2, 2)
    assert read_picture(path.as_uri(), allowed).size == (2, 2)
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(PictureError, match=r"none\.png|not a file"):
            read_picture(missing)
    with pytest.raises(PictureError):
        read_picture("\0", allowed)
    with pytest.raises(TypeError, match="expected bytes"):
        read_picture(5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PictureError, match="not a file"):
        read_picture(tmp_path / "pipe")


class _Web(http.server.BaseHTTPRequestHandler):
    picture = b""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "http://inside.test/picture")
            self.end_headers()
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path == "/ftp":
            self.send_response(302)
            self.send_header("Location", "ftp://inside.test/picture")
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.picture if self.path == "/picture" else b"x" * 1_000_000)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of pictures; its address on this machine passes for a public one, inside.test does not."""
    monkeypatch.setattr(addresses, "offline", lambda: False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    _Web.picture = saved(Image.fromarray(COLORS))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    place = server.server_address[:2]

    def looked_up(host: str, port: int, **_: object) -> Any:
        inside = ("10.0.0.1", port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", inside if host == "inside.test" else place)]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", looked_up)
    checked = addresses._is_public
    monkeypatch.setattr(addresses, "_is_public", lambda found: found == place[0] or checked(found))
    monkeypatch.setattr(
        addresses.socket, "create_connection", lambda where, *_, **__: _connected((str(where[0]), int(where[1])))
    )
    yield "http://pictures.test"
    server.shutdown()
    server.server_close()


def _connected(place: tuple[str, int]) -> socket.socket:
    made = socket.socket()
    made.connect(place)
    return made


def test_addresses_are_fetched_only_where_allowed(web: str) -> None:
    with pytest.raises(PictureError, match="not allowed"):
        read_picture(f"{web}/picture")
    allowed = PictureAccess(addresses=True)
    assert read_picture(f"{web}/picture", allowed).size == (2, 2)
    with pytest.raises(PictureError, match="404"):
        read_picture(f"{web}/missing", allowed)
    with pytest.raises(PictureError, match="at most 5000"):
        read_picture(f"{web}/large", allowed, PictureLimits(bytes=5000))
    with pytest.raises(PictureError, match="bytes; at most 5000"):
        read_picture(f"{web}/endless", allowed, PictureLimits(bytes=5000))
    with pytest.raises(PictureError, match="inside"):
        read_picture(f"{web}/redirect", allowed)
    with pytest.raises(PictureError, match="302"):
        read_picture(f"{web}/elsewhere", allowed)
    with pytest.raises(PictureError, match="unknown url type: ftp"):
        read_picture(f"{web}/ftp", allowed)
    with pytest.raises(PictureError, match="inside"):
        read_picture("http://inside.test/picture", allowed)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
     "[fe80::1]", "2130706433", "224.0.0.1", "[2002:7f00:1::]"],
)  # fmt: skip
def test_addresses_inside_are_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "offline", lambda: False)
    with pytest.raises(PictureError, match=r"inside|cannot fetch"):
        read_picture(f"http://{host}/picture.png", PictureAccess(addresses=True))


def test_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "offline", lambda: True)
    with pytest.raises(PictureError, match="switched off"):
        read_picture("https://example.org/a.png", PictureAccess(addresses=True))


def test_without_pillow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from llamacpu.pictures import pillow

    pillow.image_module.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install .llamacpu\[pictures\]"):
        Picture(b"")
    pillow.image_module.cache_clear()
