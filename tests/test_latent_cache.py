"""Latent attention: what a session keeps of a token is one latent vector and one rotated key in each layer."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from llamacpu.engine import saved_sessions
from llamacpu.families.config import Config
from llamacpu.families.memory import kv_numbers

pytestmark = pytest.mark.instruction_set

PAGE_TOKENS = 64
LAYERS = 3
LATENT, TURNED = 512, 64
NUMBERS = LATENT + TURNED
"""A token's latent vector and rotated key in DeepSeek V2 and V3."""
KV_BYTES = {"f32": NUMBERS * 4, "f16": NUMBERS * 2, "q8_0": NUMBERS + 2 * NUMBERS // 32}


@pytest.fixture(scope="module")
def config() -> Config:
    return Config(
        architecture="test", vocab_size=60, context_length=512, embedding_length=48, layers=LAYERS,
        feed_forward=[40] * LAYERS, heads=[4] * LAYERS, kv_heads=[1] * LAYERS, key_size=24 + TURNED, value_size=16,
        latent_size=LATENT, norm_epsilon=1e-5, rope_size=TURNED, rope_original_context=512,
    )  # fmt: skip


@pytest.fixture(scope="module")
def path(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config_model(tmp_path_factory.mktemp("latent") / "model.gguf", config)


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize("kv_type", KV_BYTES)
def test_a_session_keeps_one_row_of_576_numbers_for_each_token_and_layer(
    kv_type: str, config: Config, path: Path
) -> None:
    page = LAYERS * PAGE_TOKENS * KV_BYTES[kv_type]
    tokens = [int(token) for token in np.random.default_rng(5).integers(0, 60, 200)]
    assert kv_numbers(config, 1) == LAYERS * NUMBERS
    with open_config_model(path, config) as model:
        assert model.page_bytes(kv_type) == page
        session = model.session(kv_type=kv_type)
        for count in (1, 63, 1, 135):
            session.forward(tokens[session.position : session.position + count], logits="none")
            assert session.nbytes == -(-session.position // PAGE_TOKENS) * page
        file = io.BytesIO()
        saved_sessions.write(session, file, b"")
        saved = len(file.getvalue())
        assert 4 * page < saved < 4 * page + 4096
        fork = session.fork()
        fork.truncate(65)
        assert fork.nbytes == 2 * page


@pytest.mark.instruction_set(one_in=3)
@pytest.mark.parametrize("kv_type", KV_BYTES)
def test_any_way_to_the_same_tokens_gives_the_same_bits(kv_type: str, config: Config, path: Path) -> None:
    tokens = [int(token) for token in np.random.default_rng(6).integers(0, 60, 150)]
    with open_config_model(path, config) as model:
        whole = model.session(kv_type=kv_type).forward(tokens, logits="all")
        split = model.session(kv_type=kv_type)
        rows = [split.forward(part.tolist(), logits="all") for part in np.split(tokens, [1, 2, 70, 90, 133])]
        assert np.concatenate(rows).tobytes() == whole.tobytes()
        fork = split.fork()
        fork.truncate(100)
        assert fork.forward(tokens[100:], logits="all").tobytes() == whole[100:].tobytes()
        file = io.BytesIO()
        fork.truncate(130)
        saved_sessions.write(fork, file, b"")
        file.seek(0)
        restored = saved_sessions.read(model, file)
        assert restored.forward(tokens[130:], logits="all").tobytes() == whole[130:].tobytes()
