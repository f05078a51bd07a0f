"""Pictures are resized, cut and normalized as transformers' processors do it, to one gray level."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import picture_cases as cases
from llamacpu.errors import ModelError, PictureError
from llamacpu.pictures import Picture, PictureSettings, Plan, processor_for, resizing
from llamacpu.pictures.fixed_point import resized_in_fixed_point
from llamacpu.pictures.resizing import resized

Image = pytest.importorskip("PIL.Image")
THOROUGH = bool(os.environ.get("LLAMACPU_THOROUGH"))
STORED = json.loads((Path(__file__).parent / "golden" / "pictures.json").read_text("utf-8"))
KINDS = sorted(cases.SETTINGS)
SHAPES = [((7, 5), (3, 11)), ((64, 97), (13, 40)), ((1, 1), (4, 3)), ((40, 9), (41, 8)), ((3, 80), (50, 7))]
LEAST = {
    "llama4": 144, "mllama": 1601, "gemma3": 256, "gemma3-crops": 16, "idefics3": 169, "smolvlm": 64, "llava": 576,
    "llava-next": 1776, "internvl": 256,
}  # fmt: skip


def picture(size: tuple[int, int]) -> Picture:
    file = BytesIO()
    Image.fromarray(cases.made(size)).save(file, "PNG", compress_level=0)
    return Picture(file.getvalue())


def prepared(kind: str, size: tuple[int, int], **limits: Any) -> tuple[Plan, np.ndarray]:
    settings = PictureSettings(**cases.SETTINGS[kind], **limits)
    found = processor_for(settings).prepare(picture(size))
    plan = found.plan
    assert found.pixels.dtype == np.float32
    assert found.pixels.shape == (plan.tiles, *plan.tile, 3)
    return plan, cases.gray_levels(found.pixels, settings.mean, settings.std)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_transformers_stored(kind: str) -> None:
    for size, row in zip(cases.SIZES, STORED[kind], strict=True):
        if not THOROUGH and size not in (cases.FEW[2::4] if kind in ("smolvlm", "internvl") else cases.FEW):
            continue
        if row is None:
            with pytest.raises(PictureError, match="times as long"):
                prepared(kind, size)
            continue
        plan, levels = prepared(kind, size)
        assert [*levels.shape[:3], *plan.grid] == row[:5], size
        seen = np.frombuffer(base64.b64decode(row[5]), np.uint8).reshape(-1, 3)
        assert np.abs(levels[cases.places(*levels.shape[:3])] - seen).max() <= 1.01, size


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torch and torchvision")
@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_is_that_of_transformers(kind: str) -> None:
    import transformers_pictures

    for size in cases.SIZES:
        try:
            levels, grid = transformers_pictures.shown(kind, size)
        except ValueError:
            with pytest.raises(PictureError):
                prepared(kind, size)
            continue
        plan, own = prepared(kind, size)
        assert plan.grid == grid, size
        assert own.shape == levels.shape, size
        # Llama 4's processor normalizes in bfloat16.
        assert np.abs(own - levels).max() <= (1.6 if kind == "llama4" else 1.01), size


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos"])
def test_resizing_filters_over_all_pixels(kind: Any) -> None:
    for size, wanted in SHAPES:
        pixels = cases.made(size)
        reference = cases.resampled(pixels, wanted, kind)
        for own in [resized_in_fixed_point(pixels, wanted, kind)] if kind != "bicubic" else []:
            assert own.shape == (*wanted, 3)
            assert np.abs(own.astype(int) - reference).max() <= 1, (size, wanted)
        other = resized(pixels, wanted, kind)
        # Newer versions of Pillow begin with the columns in some cases.
        turned = cases.resampled(pixels.transpose(1, 0, 2), wanted[::-1], kind).transpose(1, 0, 2)
        assert min(np.abs(other.astype(int) - one).max() for one in (reference, turned)) <= 1, (size, wanted)


@pytest.mark.parametrize("largest", [0, 1 << 24])
@pytest.mark.parametrize("size", [(40, 97), (97, 40), (41, 96), (1, 3000), (3000, 1), (32, 32)])
def test_the_middle_of_a_resized_picture_alone(
    size: tuple[int, int], largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, short = cases.made(size), min(size)
    full = tuple(int(32 * side / short) if side != short else 32 for side in size)
    top, left = (full[0] - 32) // 2, (full[1] - 32) // 2
    monkeypatch.setattr(resizing, "_LARGEST", largest)
    own = resized(pixels, (32, 32), "bicubic", middle_of=(full[0], full[1]))
    if max(full) < 10_000:
        whole = cases.resampled(pixels, (full[0], full[1]), "bicubic")
        assert np.abs(own.astype(int) - whole[top : top + 32, left : left + 32]).max() <= (1 if largest else 3)
    assert own.shape == (32, 32, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_counts_what_is_prepared(kind: str) -> None:
    settings = PictureSettings(**cases.SETTINGS[kind])
    processor = processor_for(settings)
    for size in [*cases.SIZES, (60_000, 1_000), (50, 5_000)]:
        if kind.startswith("qwen") and max(size) > 200 * min(size):
            continue
        plan = processor.plan(size)
        pixels = plan.tiles * plan.tile[0] * plan.tile[1]
        side = settings.patch_size * processor.side
        tokens = pixels // side**2 if kind not in ("gemma3", "gemma3-crops", "mllama", "llava", "llava-next") else None
        if tokens is not None:
            assert plan.rows == tokens, size
        assert plan.rows > 0 or plan.cross_rows > 0
        assert pixels <= 32 << 20, size


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_of_tokens_is_kept_where_there_is_a_choice(kind: str) -> None:
    for most in (1, 40, 300, 700, 2000):
        settings = PictureSettings(**cases.SETTINGS[kind], max_tokens=most)
        processor = processor_for(settings)
        plain = processor_for(PictureSettings(**cases.SETTINGS[kind]))
        for size in cases.SIZES:
            try:
                plan, without = processor.plan(size), plain.plan(size)
            except PictureError:
                continue
            tokens, usual = plan.rows or plan.cross_rows, without.rows or without.cross_rows
            least = LEAST.get(kind, 1)
            assert tokens <= max(most, least), (most, size)
            if not kind.startswith("qwen"):  # which may be given more than usual
                assert tokens <= usual, (most, size)


def texts(plan: Plan) -> str:
    return "".join(piece if isinstance(piece, str) else f"({piece})" for piece in plan.pieces)


def test_prompts_around_tiles() -> None:
    def of(kind: str, size: tuple[int, int]) -> str:
        return texts(processor_for(PictureSettings(**cases.SETTINGS[kind])).plan(size))

    assert of("llama4", (336, 336)) == "<|image_start|><|image|>(144)<|image_end|>"
    assert of("llama4", (672, 672)) == (
        "<|image_start|>(144)<|tile_x_separator|>(144)<|tile_y_separator|>(144)<|tile_x_separator|>(144)"
        "<|tile_y_separator|><|image|>(144)<|image_end|>"
    )
    assert of("mllama", (2000, 100)) == "<|image|>"
    assert of("gemma3", (2000, 100)) == "\n\n<start_of_image>(256)<end_of_image>\n\n"
    assert of("gemma3-crops", (500, 599)) == "\n\n<start_of_image>(16)<end_of_image>\n\n"
    # As Gemma3Processor expands "Here is the original image <start_of_image> and here are some crops to help you see
    # better <start_of_image> <start_of_image>".
    one = "\n\n<start_of_image>(16)<end_of_image>\n\n"
    for count, size in ((2, (500, 600)), (2, (700, 512)), (3, (300, 900)), (4, (3000, 300))):
        crops = " ".join([one] * count)
        told = f"Here is the original image {one} and here are some crops to help you see better {crops}"
        assert of("gemma3-crops", size) == told, size
    assert of("muse-glimmer", (56, 84)) == "<|image_start|>(6)<|image_end|>"
    assert of("qwen2-vl", (56, 84)) == "<|vision_start|>(6)<|vision_end|>"
    assert of("qwen3-vl", (32, 320)) == "<|vision_start|>(78)<|vision_end|>"
    assert of("pixtral", (32, 48)) == "(3)[IMG_BREAK](3)[IMG_END]"
    assert of("idefics3", (364, 728)) == (
        "<fake_token_around_image><row_1_col_1>(169)<fake_token_around_image><row_1_col_2>(169)"
        "<fake_token_around_image><row_1_col_3>(169)<fake_token_around_image><row_1_col_4>(169)\n"
        "<fake_token_around_image><row_2_col_1>(169)<fake_token_around_image><row_2_col_2>(169)"
        "<fake_token_around_image><row_2_col_3>(169)<fake_token_around_image><row_2_col_4>(169)\n"
        "\n<fake_token_around_image><global-img>(169)<fake_token_around_image>"
    )


def test_settings_are_read_from_the_header() -> None:
    header = {
        "general.architecture": "clip", "clip.projector_type": "idefics3", "clip.vision.image_size": 512,
        "clip.vision.patch_size": 16, "clip.vision.projector.scale_factor": 4,
        "clip.vision.preproc_image_size": 2048, "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": np.array([0.5, 0.5, 0.25], np.float32),
    }  # fmt: skip
    found = PictureSettings.of(header, max_tokens=100)
    assert found == PictureSettings(
        "idefics3", 512, 16, 4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.25), longest_edge=2048, max_tokens=100
    )
    mllama = {"general.architecture": "mllama", "mllama.vision.image_size": 560, "mllama.vision.patch_size": 14}
    assert PictureSettings.of(mllama).projector == "mllama"
    assert PictureSettings.of(mllama).max_tiles == 4
    for key, value in {
        "clip.vision.image_size": 0, "clip.vision.patch_size": "16", "clip.vision.image_std": [0.5, 0.0, 0.5],
        "clip.vision.image_mean": [0.5], "clip.vision.image_grid_pinpoints": [1, 2, 3], "clip.projector_type": "",
        "clip.vision.preproc_image_size": 1 << 30,
    }.items():  # fmt: skip
        with pytest.raises(ModelError):
            PictureSettings.of({**header, key: value})
    with pytest.raises(ModelError, match="not supported"):
        processor_for(PictureSettings("ldp", 336, 14))
    with pytest.raises(ModelError, match="no vision encoder"):
        PictureSettings.of({"general.architecture": "llama"})


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (56, 56), (30, 31), (28, 300), (7, 20)])
def test_rows_of_a_canvas_without_its_borders_end_with_an_embedding(size: tuple[int, int]) -> None:
    """LLaVA 1.6: the whole picture, and then the tiles as one canvas. Each embedding here is its place."""
    grids = ((28, 56), (56, 28), (56, 56), (28, 84))
    processor = processor_for(PictureSettings("mlp", 28, 7, grids=grids))
    plan = processor.plan(size)
    rows = np.zeros((plan.encoded, 3), np.float32)
    for index in range(plan.encoded):
        tile, place = divmod(index, 16)
        row, column = divmod(tile - 1, plan.grid[1])
        rows[index] = (-1, *divmod(place, 4)) if tile == 0 else (1, row * 4 + place // 4, column * 4 + place % 4)
    newline = np.float32([99, 99, 99])
    found = processor.arranged(rows, plan, size, newline)
    assert len(found) == plan.rows
    assert np.array_equal(found[:16], rows[:16])
    lines = found[16:].reshape(-1, len(set(found[16:, 2].tolist()) - {99.0}) + 1, 3)
    assert (lines[:, -1] == newline).all()
    assert (lines[:, :-1, 0] == 1).all()
    seen_rows, seen_columns = lines[:, 0, 1], lines[0, :-1, 2]
    assert (np.diff(seen_rows) == 1).all()
    assert (np.diff(seen_columns) == 1).all()
    assert (lines[:, :-1, 1] == seen_rows[:, None]).all()
    assert (lines[:, :-1, 2] == seen_columns[None]).all()
    # What is cut away is the same on both sides, and the rest has the shape of the picture.
    height, width = plan.grid[0] * 4, plan.grid[1] * 4
    assert seen_rows[0] == height - 1 - seen_rows[-1]
    assert seen_columns[0] == width - 1 - seen_columns[-1]
    scale = min(height / size[0], width / size[1])
    assert abs(len(seen_rows) - size[0] * scale) < 2
    assert abs(len(seen_columns) - size[1] * scale) < 2
    with pytest.raises(ModelError, match=r"no tensor model\.image_newline"):
        processor.arranged(rows, plan, size, None)
