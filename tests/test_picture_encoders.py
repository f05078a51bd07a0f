"""Vision encoders against outputs of transformers in float32, and pictures in the models they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu import Cancelled, CancelToken, Model
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.engine.pictures import CrossStates, Embeddings, MixedTokens

pytestmark = pytest.mark.instruction_set


@pytest.fixture
def reference(golden: Path) -> Callable[[str, str], tuple[Path, dict[str, Any]]]:
    """The files of a batch of reference outputs."""

    def found(folder: str, name: str) -> tuple[Path, dict[str, Any]]:
        if not (golden / folder / f"{name}.npz").is_file():
            pytest.skip(f"no {name}.npz in {golden / folder}")
        return golden / folder, dict(np.load(golden / folder / f"{name}.npz"))

    return found


def error(got: Any, exact: Any) -> float:
    """Sum of the squares of the differences over that of the exact numbers."""
    return float(((got - exact.astype(np.float64)) ** 2).sum() / (exact.astype(np.float64) ** 2).sum())


def replaced(tokens: Any, patch: int, rows: Any, digest: bytes = b"picture") -> MixedTokens:
    """The tokens, with rows in the places of placeholders."""
    parts: list[Any] = []
    used = 0
    for token in tokens.tolist():
        parts.append(Embeddings(rows[used : used + 1], digest, first=used) if token == patch else token)
        used += token == patch
    assert used == len(rows)
    return MixedTokens(parts)


def test_llama4(reference: Callable[[str, str], tuple[Path, dict[str, Any]]]) -> None:
    folder, known = reference("families", "llama4-vl")
    tiles = np.moveaxis(known["pixel_values"], 1, 3)
    with PictureEncoder(folder / "llama4-vl-mmproj.gguf", threads=2) as encoder:
        assert (encoder.kind, encoder.config.merge, encoder.config.cross) == ("llama4", 2, False)
        stages: list[tuple[int, int]] = []
        found = encoder.encode(tiles, grid=(1, 2), on_progress=lambda *stage: stages.append(stage))
        assert stages == [(0, 3), (1, 3), (2, 3), (3, 3)]
        assert len(found.rows) == 2 * encoder.config.rows(56, 56)
        assert error(found.rows.reshape(known["embeddings"].shape), known["embeddings"]) < 1e-9
        many = encoder.encode(np.concatenate([tiles] * 40)).rows
        assert np.array_equal(many, np.concatenate([found.rows] * 40))
    with Model(folder / "llama4-vl.gguf", threads=2) as model:
        tokens = replaced(known["tokens"], int(known["patch"]), found.rows)
        got = model.session(context=512, kv_type="f32").forward(tokens, logits="all")
        assert error(got, known["logits"]) < 1e-9


@pytest.mark.parametrize("name", ["table", "large", "wide", "tall"])
def test_muse_glimmer(reference: Callable[[str, str], tuple[Path, dict[str, Any]]], name: str) -> None:
    folder, known = reference("families-2026", "muse-glimmer-vision")
    with PictureEncoder(folder / "muse-glimmer-mmproj.gguf", threads=2) as encoder:
        image = known[f"{name}_image"]
        rows = encoder.encode(image[None]).rows
        assert len(rows) == encoder.config.rows(*image.shape[:2])
        assert error(rows, known[f"{name}_embeddings"]) < 1e-9
    with Model(folder / "muse-glimmer.gguf", threads=2) as model:
        tokens = replaced(known[f"{name}_tokens"], int(known["patch"]), rows)
        got = model.session(context=512, kv_type="f32").forward(tokens, logits="all")
        assert error(got, known[f"{name}_logits"]) < 1e-9


def test_mllama(reference: Callable[[str, str], tuple[Path, dict[str, Any]]]) -> None:
    folder, known = reference("families", "mllama")
    path = folder / "mllama.gguf"
    tiles = np.moveaxis(known["pixel_values"], 1, 3)[: int(known["n_tiles"])]
    with PictureEncoder(path, threads=2) as encoder:
        assert (encoder.kind, encoder.config.cross, encoder.config.max_tiles) == ("mllama", True, 4)
        rows = encoder.encode(tiles, aspect_ratio_id=int(known["aspect_ratio_id"])).rows
        exact = known["cross_states"][: len(tiles)]
        assert error(rows.reshape(exact.shape), exact) < 1e-9
        with pytest.raises(ValueError, match="aspect_ratio_id is None"):
            encoder.encode(tiles)
        for arrangement in (0, 9):
            with pytest.raises(ValueError, match="arrangement"):
                encoder.encode(tiles, aspect_ratio_id=arrangement)
        with pytest.raises(ValueError, match="5 tiles"):
            encoder.encode(np.concatenate([tiles] * 3)[:5], aspect_ratio_id=1)
    with Model(path, threads=2) as model:
        picture = model.vocab_size
        states = CrossStates(rows, b"picture", picture)

        def given(tokens: Any) -> MixedTokens:
            return MixedTokens([states if token == picture else token for token in tokens.tolist()])

        first, middle = given(known["tokens"]), given(known["tokens_mid"])
        logits = model.session(kv_type="f32").forward(first, logits="all")
        assert error(logits, known["logits"]) < 1e-9
        at = int(known["image_at"])
        in_the_middle = model.session(kv_type="f32").forward(middle, logits="all")
        assert error(in_the_middle, known["logits_mid"]) < 1e-9
        plain = model.session(kv_type="f32").forward(known["tokens_text"].tolist(), logits="all")
        assert error(plain, known["logits_text"]) < 1e-9

        # In pieces, side by side with a text alone, forked, rewound to before the picture and behind it.
        session, other = model.session(kv_type="f32"), model.session(kv_type="f32")
        for start, end in [(0, 3), (3, 20), (20, 60), (60, 73)]:
            both = model.step([(session, middle[start:end]), (other, known["tokens_text"][start:end])], logits="all")
            assert np.array_equal(both[0], in_the_middle[start:end])
            assert np.array_equal(both[1], plain[start:end])
        fork = session.fork()
        with_picture = fork.nbytes
        for length in (60, at + 1, at, 2):
            fork.truncate(length)
            assert np.array_equal(fork.forward(middle[length:], logits="all"), in_the_middle[length:])
        fork.truncate(at)
        text = model.session(kv_type="f32")
        text.forward(middle.ids[:at], logits="none")
        assert fork.nbytes == text.nbytes < with_picture
        assert np.array_equal(session.fork().forward([1, 2]), session.forward([1, 2]))
        with pytest.raises(ValueError, match="stands for a picture"):
            model.session().forward([1, picture, 2])


def test_pictures_that_do_not_fit_are_refused(
    reference: Callable[[str, str], tuple[Path, dict[str, Any]]],
) -> None:
    folder, _ = reference("families", "llama4-vl")
    with PictureEncoder(folder / "llama4-vl-mmproj.gguf") as encoder:
        good = np.zeros((1, 56, 56, 3), np.float32)
        bad = good.copy()
        bad[0, 5, 5, 1] = np.nan
        for pixels, message in [
            (bad, "not finite"),
            (good[0], "tiles x height x width x 3"),
            (np.zeros((1, 56, 56, 4), np.float32), "tiles x height x width x 3"),
            (np.zeros((1, 56, 70, 3), np.float32), "expected 56 . 56"),
            (np.zeros((0, 56, 56, 3), np.float32), "0 tiles"),
        ]:
            with pytest.raises(ValueError, match=message):
                encoder.encode(pixels)
        with pytest.raises(ValueError, match="takes no arrangement"):
            encoder.encode(good, aspect_ratio_id=1)
        with pytest.raises(ValueError, match="1 tiles for a grid of 2 x 1"):
            encoder.encode(good, grid=(2, 1))
        cancel = CancelToken()
        cancel.cancel()
        with pytest.raises(Cancelled):
            encoder.encode(good, cancel=cancel)

        def fail(done: int, every: int) -> None:
            raise KeyError(done, every)

        with pytest.raises(KeyError):
            encoder.encode(good, on_progress=fail)
        assert np.array_equal(encoder.encode(good).rows, encoder.encode(good).rows)
    with pytest.raises(Exception, match="closed"):
        encoder.encode(good)
    with pytest.raises(ValueError, match="holds no vision encoder"):
        PictureEncoder(folder / "llama4-vl.gguf")
