"""MiniCPM-V: slices are those of its processor, prompts those of its version, and files are read as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
import picture_cases as cases
from llamacpu import Model
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.engine.pictures import Embeddings
from llamacpu.errors import ModelError
from llamacpu.multimodal.rows import compute
from llamacpu.pictures import Picture, PictureSettings, Plan, processor_for
from llamacpu.vision.config import VisionConfig
from reference_vision import ReferenceEncoder, tensors, write
from vision_files import asked, png, url

Image = pytest.importorskip("PIL.Image")
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
HALF = (0.5, 0.5, 0.5)
# Height and width, those of the whole picture as it is shown, rows and columns of slices, height and width of a slice:
# from the processor of MiniCPM-V 4.6 in transformers, which has the same rule, with patches that are not merged.
PLANS: list[tuple[tuple[int, int], tuple[int, int], tuple[int, int] | None, tuple[int, int]]] = [
    ((1, 1), (448, 448), None, (0, 0)),
    ((1, 7), (168, 1176), None, (0, 0)),
    ((3, 1000), (28, 7994), None, (0, 0)),
    ((17, 23), (392, 518), None, (0, 0)),
    ((337, 335), (448, 448), None, (0, 0)),
    ((672, 336), (630, 322), (2, 1), (448, 448)),
    ((500, 333), (546, 364), None, (0, 0)),
    ((480, 641), (392, 518), (1, 2), (546, 364)),
    ((719, 1280), (336, 602), (2, 3), (406, 490)),
    ((1000, 1000), (448, 448), (2, 2), (448, 448)),
    ((1009, 1013), (448, 448), (2, 3), (546, 364)),
    ((336, 1344), (224, 896), (1, 4), (448, 448)),
    ((99, 2001), (98, 2002), None, (0, 0)),
    ((2001, 99), (2016, 98), None, (0, 0)),
    ((1500, 701), (658, 308), (3, 2), (532, 378)),
    ((769, 1537), (322, 630), (2, 3), (392, 518)),
    ((1300, 2000), (364, 560), (2, 4), (504, 392)),
    ((2000, 1301), (560, 364), (4, 2), (392, 504)),
]


def settings(version: int = 3, **changes: Any) -> PictureSettings:
    return PictureSettings("resampler", 448, 14, mean=HALF, std=HALF, version=version, queries=64, **changes)


def texts(plan: Plan) -> str:
    return plan.number.format(5) + "".join(p if isinstance(p, str) else f"({p})" for p in plan.pieces)


@pytest.mark.parametrize(("size", "whole", "grid", "tile"), PLANS)
def test_slices_are_those_of_the_processor(
    size: tuple[int, int], whole: tuple[int, int], grid: tuple[int, int] | None, tile: tuple[int, int]
) -> None:
    plan = processor_for(settings()).plan(size)
    if grid is None:
        assert (plan.tile, plan.whole, plan.tiles, plan.rows) == (whole, None, 1, 64)
        return
    tiles = grid[0] * grid[1] + 1
    assert (plan.grid, plan.tile, plan.whole, plan.tiles, plan.rows) == (grid, tile, whole, tiles, 64 * tiles)


@pytest.mark.parametrize("size", [(300, 500), (719, 1280), (480, 641)])
def test_pixels_are_resampled_from_the_picture(size: tuple[int, int]) -> None:
    processor = processor_for(settings())
    found = processor.prepare(Picture(png(size)))
    pixels = cases.made(size)

    def same(own: Any, shape: tuple[int, int]) -> bool:
        resized = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BICUBIC)
        return bool(np.abs(cases.gray_levels(own, HALF, HALF) - np.asarray(resized)).max() < 1e-3)

    height, width = found.plan.tile
    rows, columns = found.plan.grid
    if found.plan.whole is None:
        assert found.whole is None
    else:
        assert found.whole is not None
        assert found.whole.shape == (1, *found.plan.whole, 3)
        assert same(found.whole[0], found.plan.whole)
    lines = found.pixels.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    assert same(lines.reshape(rows * height, columns * width, 3), (rows * height, columns * width))


def test_prompts_are_those_of_the_version() -> None:
    def of(version: int, size: tuple[int, int]) -> str:
        return texts(processor_for(settings(version)).plan(size))

    assert of(3, (300, 400)) == "<image_id>5</image_id><image>(64)</image>"
    assert of(2, (300, 400)) == "<image>(64)</image>"
    assert of(6, (1000, 600)) == (
        "<image_id>5</image_id><image>(64)</image><slice>(64)</slice>\n<slice>(64)</slice>\n<slice>(64)</slice>"
    ).replace("\n<slice>(64)</slice>", "", 1)
    assert of(3, (1000, 1000)).endswith(
        "<slice>(64)</slice><slice>(64)</slice>\n<slice>(64)</slice><slice>(64)</slice>"
    )
    assert of(2, (1000, 1000)) == (
        "<image>(64)</image><slice><image>(64)</image><image>(64)</image>\n<image>(64)</image><image>(64)</image></slice>"
    )


def test_a_limit_of_tokens_means_fewer_slices() -> None:
    plain = processor_for(settings())
    for most in (1, 64, 200, 400, 2000):
        processor = processor_for(settings(max_tokens=most))
        for size in cases.SIZES:
            assert processor.plan(size).rows <= min(max(most, 64), plain.plan(size).rows)


KEYS: dict[str, Any] = {
    "general.type": "mmproj", "clip.has_vision_encoder": True, "clip.projector_type": "resampler",
    "clip.has_minicpmv_projector": True, "clip.minicpmv_version": 3, "clip.minicpmv_query_num": 5,
    "clip.vision.projection_dim": 0, "clip.vision.image_size": 56, "clip.vision.patch_size": 14,
    "clip.vision.embedding_length": 24, "clip.vision.feed_forward_length": 36, "clip.vision.block_count": 3,
    "clip.vision.attention.head_count": 2, "clip.vision.attention.layer_norm_epsilon": 1e-6,
    "clip.vision.image_mean": [0.5] * 3, "clip.vision.image_std": [0.5] * 3, "clip.use_gelu": True,
}  # fmt: skip
SHAPE: dict[str, Any] = {
    "kind": "resampler", "image_size": 0, "patch_size": 14, "embedding_length": 24, "layers": 2, "heads": 2,
    "feed_forward": 36, "output_length": 256, "norm_epsilon": 1e-6, "activation": "gelu_tanh", "positions": "nearest",
    "queries": 5, "projector": ["resampler.proj"], "feed_forward_up": "ffn_down", "feed_forward_down": "ffn_up",
}  # fmt: skip


def written(path: Path, changes: dict[str, Any] | None = None, without: str = "") -> tuple[Path, dict[str, Any]]:
    """A file as llama.cpp's converter writes it, whose last layer is left out: the model does not use it."""
    values = tensors(VisionConfig(**SHAPE), table=6)
    values.pop("resampler.proj.bias")
    values["resampler.pos_embed_k"] = np.zeros((36, 256), np.float32)
    own = {name: tensor for name, tensor in values.items() if name != without}
    keys = {key: value for key, value in (KEYS | (changes or {})).items() if value is not None}
    return write(path, own, keys), values


@pytest.mark.instruction_set
def test_files_of_the_converter_are_encoded(tmp_path: Path) -> None:
    path, values = written(tmp_path / "mmproj.gguf")
    reference = ReferenceEncoder(VisionConfig(**SHAPE), values)
    random = np.random.default_rng(0)
    with PictureEncoder(path, threads=2) as encoder:
        assert (encoder.kind, encoder.config.width, encoder.config.any_size) == ("resampler", 256, True)
        for height, width in [(56, 56), (84, 42), (14, 196), (14, 14)]:
            assert encoder.config.rows(height, width) == 5
            pixels = random.standard_normal((3, height, width, 3)).astype(np.float32)
            exact = reference.encode(pixels)
            rows = encoder.encode(pixels).rows
            assert rows.shape == (15, 256)
            assert ((rows - exact) ** 2).sum() < 1e-10 * (exact**2).sum()
            with PictureEncoder(path, threads=1) as other:
                alone = [other.encode(tile[None]).rows for tile in pixels]
            assert np.array_equal(np.concatenate(alone), rows)


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    for key, value, message in [
        ("clip.minicpmv_version", 7, "minicpmv_version"), ("clip.minicpmv_version", "3", "minicpmv_version"),
        ("clip.minicpmv_query_num", 6, "resampler.query"), ("clip.minicpmv_query_num", 1 << 20, "query_num"),
        ("clip.minicpmv_query_num", 0, "resampler.query"), ("clip.vision.patch_size", 13, "patch_embd"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=message):
            PictureEncoder(written(tmp_path / "wrong.gguf", {key: value})[0])
    for name in ("resampler.query", "resampler.kv.weight", "resampler.proj.weight", "resampler.ln_post.weight"):
        with pytest.raises(ModelError, match=r"missing|projection_dim"):
            PictureEncoder(written(tmp_path / "wrong.gguf", without=name)[0])
    with PictureEncoder(written(tmp_path / "fine.gguf", {"clip.minicpmv_version": None})[0]) as encoder:
        assert encoder.config.fixed_rows == 5


@pytest.mark.instruction_set
def test_pictures_and_their_slices_are_shown_to_a_model(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "mmproj.gguf")
    with Model(DEMO, mmproj=path) as model:
        assert model.vision is not None
        small, large = (model.vision.parts(Picture(png(size)), model.tokenizer) for size in ((40, 60), (90, 130)))
        assert [part.count for part in small if not isinstance(part, str)] == [5]
        rows = [part for part in large if isinstance(part, Embeddings)]
        assert len(rows) == 5
        assert [part for part in large if isinstance(part, str)][:2] == ["<image>", "</image><slice>"]
        stages: list[tuple[int, int]] = []
        found = rows[0].source.rows(on_progress=lambda *stage: stages.append(stage))  # type: ignore[attr-defined]
        assert found.shape == (25, 256)
        assert stages == sorted(stages)
        assert stages[-1][0] == stages[-1][1]
        prepared = processor_for(model.vision.settings).prepare(Picture(png((90, 130))))
        assert prepared.whole is not None
        whole = model.vision.encoder.encode(prepared.whole).rows
        assert np.array_equal(found[:5], whole)
        assert np.array_equal(found[5:], model.vision.encoder.encode(prepared.pixels).rows)
        compute(small)
        answer = model.chat(asked("What?", url((90, 130))), max_tokens=3)
        assert answer.content is not None
