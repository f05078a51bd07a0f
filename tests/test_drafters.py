"""Drafters against reference outputs and float64 arithmetic, and files that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drafter_files import (
    BLOCK,
    EAGLE,
    LAYERS,
    PREDICTED,
    VOCABULARY,
    ReferenceBlock,
    ReferencePairs,
    single,
    write_block,
    write_eagle,
    write_model,
)
from further_families import expected, write
from llamacpu import Model
from llamacpu.engine.drafter import EngineDrafter
from reference_model import ReferenceModel

GOLDEN = Path(__file__).parent.parent.parent / "shared" / "golden" / "families-2026"
FAMILIES = ["glm4moe", "qwen3next", "qwen35", "deepseek32", "glm-dsa"]


def nmse(got: Any, exact: Any) -> float:
    """The square of the error, by that of the numbers."""
    return float(((got - exact) ** 2).sum() / (exact**2).sum())


def open_predicted(path: Path, name: str, **more: Any) -> Model:
    return Model(path, threads=2, overrides={f"{name}.{key}": value for key, value in PREDICTED.items()}, **more)


@pytest.mark.instruction_set
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the reference outputs in ../shared")
def test_a_block_of_dflash_is_that_of_transformers() -> None:
    """transformers applies no window in this pass, whatever the file says."""
    numbers = np.load(GOLDEN / "muse-glimmer-dflash.npz")
    tokens, block = numbers["tokens"].tolist(), numbers["block"].tolist()
    with Model(GOLDEN / "muse-glimmer.gguf", threads=2) as model:
        drafter = EngineDrafter(GOLDEN / "muse-glimmer-dflash.gguf", model)
        [out] = model.step_hidden([(model.session(kv_type="f32"), tokens)], drafter.places)
        assert nmse(out.hidden.transpose(1, 0, 2).reshape(len(tokens), -1), numbers["context"]) < 1e-9
        session = drafter.session(100, "f32")
        results = []
        for pieces in ([40], [7, 1, 25, 7]):
            session.truncate(0)
            ends = np.cumsum(pieces).tolist()
            for start, end in zip([0, *ends], ends, strict=False):
                drafter.step(session, drafter.fuse(out.hidden[:, start:end]), "keys", 0)
            own, states = drafter.step(session, drafter.embed(block), "together", len(block))
            results.append(states)
        assert np.array_equal(*results)
        assert nmse(states[1], numbers["hidden"]) < 1e-9
        assert nmse(drafter.logits(own, states[1]), numbers["logits"]) < 1e-9
        drafter.close()


def test_dflash_against_exact_arithmetic(tmp_path: Path) -> None:
    path = write_block(tmp_path / "drafter.gguf")
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, 40).tolist()
    with Model(write(tmp_path / "model.gguf", "glm4moe"), threads=2) as model:
        drafter = EngineDrafter(path, model)
        [out] = model.step_hidden([(model.session(kv_type="f32"), tokens)], drafter.places)
        session = drafter.session(100, "f32")
        drafter.step(session, drafter.fuse(out.hidden), "keys", 0)
        rows = drafter.embed([3, 7, 7, 7, 7, 7])
        _, states = drafter.step(session, rows, "together", 6)
        assert nmse(states[1], ReferenceBlock(path, BLOCK).block(out.hidden, rows)) < 1e-9
        drafter.close()


GEMMA: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "windows": (
        {"row_window": [11, 0]},
        {"attention.sliding_window": 11, "attention.sliding_window_pattern": [True, False]},
        {},
    ),
    "keys as values": (
        {
            "keys_as_values": [True] * 2, "value_norm": True, "attention_scale": 1.0, "activation": "gelu_tanh",
            "layer_scale": [True] * 2,
        },
        {"attention.scale": 1.0, "hidden_activation": "gelu_pytorch_tanh", "embedding_scale": 48**0.5},
        {
            "rope_freqs.weight": np.array([1.0, 1e30, 1e30, 1e30]),
            "blk.0.layer_output_scale.weight": np.array([0.7]), "blk.1.layer_output_scale.weight": np.array([1.2]),
        },
    ),
}  # fmt: skip
"""What the configuration of a drafter of Gemma 4 has, its further keys, and its further tensors."""


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", sorted(GEMMA))
def test_dflash_of_gemma_4_against_exact_arithmetic(kind: str, causal: bool, tmp_path: Path) -> None:
    """The embeddings of the block are scaled as the model's are, whether or not the file says so."""
    settings, keys, more = GEMMA[kind]
    drop = tuple(f"blk.{layer}.attn_v.weight" for layer in range(2)) if "keys_as_values" in settings else ()
    keys = keys | {"final_logit_softcapping": 6.0, "attention.causal": causal}
    path = write_block(tmp_path / "drafter.gguf", keys=keys, more=more, drop=drop)
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, 40).tolist()
    model_path = write(tmp_path / "model.gguf", "gemma4")
    with Model(model_path, threads=2) as model:
        drafter = EngineDrafter(path, model)
        assert drafter.plan.embedding_scale == pytest.approx(48**0.5)
        [out] = model.step_hidden([(model.session(kv_type="f32"), tokens)], drafter.places)
        session = drafter.session(100, "f32")
        drafter.step(session, drafter.fuse(out.hidden), "keys", 0)
        block = [3, 7, 7, 7, 7, 7]
        own, states = drafter.step(session, drafter.embed(block), "causal" if causal else "together", 6)
        target = ReferenceModel(model_path, expected("gemma4"))
        reference = ReferenceBlock(path, replace(BLOCK, **settings))
        reference.causal = causal
        exact = reference.block(out.hidden, target.matrix("token_embd.weight")[block] * 48**0.5)
        assert nmse(states[1], exact) < 1e-9
        logits = 6 * np.tanh(target.output(exact) / 6)
        assert nmse(drafter.logits(own, states[1]), logits) < 1e-9
        drafter.close()


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the reference outputs in ../shared")
def test_windows_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model whose drafters have them; Muse Glimmer's file is one with windows, and its numbers with them exist."""
    monkeypatch.setattr("llamacpu.engine.drafter.fitted", lambda plan, model: replace(plan, embedding_scale=1.0))
    numbers = np.load(GOLDEN / "muse-glimmer-dflash.npz")
    with Model(GOLDEN / "muse-glimmer.gguf", threads=2) as model:
        drafter = EngineDrafter(GOLDEN / "muse-glimmer-dflash.gguf", model)
        [out] = model.step_hidden([(model.session(kv_type="f32"), numbers["tokens"].tolist())], drafter.places)
        session = drafter.session(100, "f32")
        drafter.step(session, drafter.fuse(out.hidden), "keys", 0)
        block = numbers["block"].tolist()
        own, states = drafter.step(session, drafter.embed(block), "together", len(block))
        assert nmse(drafter.logits(own, states[1]), numbers["logits_window_unverified"]) < 1e-9
        drafter.close()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_multi_token_prediction_against_exact_arithmetic(name: str, own: bool, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", name, own=own)
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, 40).tolist()
    start = f"blk.{LAYERS}."
    with open_predicted(path, name) as model:
        drafter = EngineDrafter("self", model)
        assert drafter.places == (LAYERS,)
        [out] = model.step_hidden([(model.session(kv_type="f32"), tokens)], drafter.places)
        rows = np.concatenate([drafter.embed(tokens[1:]), out.hidden[0, :-1]], axis=1)
        rename = {key: f"blk.0.{key[len(start) :]}" for key in _names(path) if key.startswith(start)}
        rename |= {f"{start}nextn.{part}.weight": f"nextn.{part}.weight" for part in ("enorm", "hnorm", "eh_proj")}
        if own:
            rename |= {
                f"{start}nextn.shared_head_norm.weight": "output_norm.weight",
                f"{start}nextn.shared_head_head.weight": "output.weight",
                f"{start}nextn.embed_tokens.weight": "token_embd.weight",
            }
        reference = ReferencePairs(path, single(expected(name)), "projected", rename)
        table = reference.matrix("token_embd.weight")
        assert np.array_equal(drafter.embed(tokens), table[tokens].astype(np.float32))
        check_pairs(drafter, reference, rows)
        drafter.close()


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        ({}, {}),
        ({"norm_before_fc": True}, {"rows": 30}),
        ({"norm_before_residual": True}, {"own_embedding": True}),
        ({}, {"output": False, "layers": [3, 1, 2]}),
        ({}, {"layers": [2, 3, 2]}),
    ],
)
def test_eagle_against_exact_arithmetic(keys: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    path = write_eagle(tmp_path / "drafter.gguf", keys=keys, **more)
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, 40).tolist()
    with Model(write(tmp_path / "model.gguf", "glm4moe"), threads=2) as model:
        drafter = EngineDrafter(path, model)
        layers = more.get("layers", [1, 2, 4])
        assert drafter.places == tuple(dict.fromkeys(layer - 1 for layer in layers))
        [out] = model.step_hidden([(model.session(kv_type="f32"), tokens)], drafter.places)
        kind = "normed" if keys.get("norm_before_residual") else "split"
        reference = ReferencePairs(path, EAGLE, kind)
        fused = drafter.fuse(out.hidden)
        states = out.hidden[[drafter.places.index(layer - 1) for layer in layers]]
        assert nmse(fused, reference.fused(states, "norm_before_fc" in keys)) < 1e-10
        rows = np.concatenate([drafter.embed(tokens[1:]), fused[:-1]], axis=1)
        check_pairs(drafter, reference, rows, model)
        if more.get("rows"):
            assert drafter.target_tokens is not None
            assert len(drafter.target_tokens) == 30
            assert drafter.token(3) == drafter.target_tokens[3]
        drafter.close()


def check_pairs(drafter: EngineDrafter, reference: ReferencePairs, rows: Any, model: Model | None = None) -> None:
    """All rows at once, and in pieces of which some are only read."""
    *_, before, after = reference.hidden(rows)
    session = drafter.session(100, "f32")
    own, states = drafter.step(session, rows, "causal", len(rows))
    assert nmse(states[0], before) < 1e-9
    assert nmse(states[1], after) < 1e-9
    logits = drafter.logits(own, states[1])
    if drafter.plan.own_output or model is None:
        assert nmse(logits, reference.output(after)) < 1e-9
    session.truncate(0)
    drafter.step(session, rows[:7], "causal", 0)
    drafter.step(session, rows[7:8], "causal", 1)
    drafter.step(session, rows[8:31], "causal", 0)
    own, last = drafter.step(session, rows[31:], "causal", 3)
    assert np.array_equal(last, states[:, -3:])
    assert np.array_equal(drafter.logits(own, last[1]), logits[-3:])
    session.truncate(20)
    _, again = drafter.step(session, rows[20:], "causal", 1)
    assert np.array_equal(again, states[:, -1:])


def _names(path: Path) -> list[str]:
    import gguf

    return [tensor.name for tensor in gguf.GGUFReader(path).tensors]
