"""Memory over many pictures, which depends on no instruction set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from family_shapes import BASE
from llamacpu.engine.pictures import Embeddings, MixedTokens
from llamacpu.families.config import Config


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_many_pictures_take_the_memory_of_one(tmp_path: Path) -> None:
    config = Config(**BASE)
    path = write_config_model(tmp_path / "model.gguf", config)
    random = np.random.default_rng(0)
    with open_config_model(path, config) as model:
        # Each picture is 96 kB.
        for pictures in (64, 64, 1000 if os.environ.get("LLAMACPU_THOROUGH") else 128):
            before = resident()
            session = model.session(context=600)
            for number in range(pictures):
                rows = random.standard_normal((500, config.embedding_length)).astype(np.float32)
                session.forward(MixedTokens([1, Embeddings(rows, number.to_bytes(4, "little"))]), logits="none")
                session.fork().forward([2])
                session.truncate(0)
        assert resident() - before < 4 << 20
