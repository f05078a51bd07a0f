"""Converting drafters: the bytes of llama.cpp's converter, drafts that come true, one clear error for what is wrong."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from checkpoint_files import safetensors_bytes
from converted_checkpoints import load, weights, write_checkpoint
from llamacpu import LearnedDraft, LlamaCpuError, Model, Sampling
from llamacpu.cli.group import command_line
from llamacpu.errors import CheckpointError, StoreError
from model_hub import ModelHub, use_alone

FACTS = load()
MODELS: dict[str, dict[str, Any]] = FACTS["models"]
DRAFTERS = [name for name, model in MODELS.items() if "target" in model]
THOROUGH = bool(os.environ.get("LLAMACPU_THOROUGH"))


def made(folder: Path, name: str) -> Path:
    return write_checkpoint(folder / name, MODELS[name], FACTS["tokenizers"])


def pair(folder: Path, name: str = "dflash-qwen3") -> tuple[Path, Path]:
    """The folders of a drafter and of its target, whose tensors are left out."""
    target = write_checkpoint(folder / "target", MODELS[MODELS[name]["target"]], FACTS["tokenizers"])
    (target / "model.safetensors").unlink()
    return made(folder, name), target


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def tensors_of(name: str) -> dict[str, Any]:
    model = MODELS[name]
    found = {n: weights(n, shape, kind) for kind, shape, names in model["tensors"] for n in names}
    return found | {n: np.array(values, np.int64) for n, values in model.get("values", {}).items()}


def write_tensors(folder: Path, tensors: dict[str, Any]) -> None:
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(tensors.items()))))


@pytest.mark.parametrize("name", DRAFTERS)
def test_bytes_are_those_of_llama_cpps_converter(tmp_path: Path, name: str) -> None:
    drafter, target = pair(tmp_path, name)
    for kind, digest in MODELS[name]["digests"].items():
        if THOROUGH or kind in ("auto", "q8_0"):
            path = llamacpu.convert(drafter, tmp_path / "out.gguf", type=kind, target_model=target)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, kind


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize("name", ["muse-glimmer-assistant", "dflash-gemma4", "dflash-qwen25vl", *DRAFTERS[-3:]])
def test_the_text_is_the_same_with_a_converted_drafter(tmp_path: Path, name: str) -> None:
    target = llamacpu.convert(made(tmp_path, MODELS[name]["target"]), tmp_path / "model.gguf")
    drafter = llamacpu.convert(made(tmp_path, name), tmp_path / "drafter.gguf", target_model=target)
    with Model(target, threads=1) as model:
        draft = LearnedDraft(model, drafter, 4, adaptive=False, least_chance=0)
        for temperature in (0, 1.5):
            how: dict[str, Any] = {"max_tokens": 12, "ignore_end": True}
            how["sampling"] = Sampling(temperature=temperature, seed=3)
            plain = model.generate([5, 6, 7, 8], draft=None, **how).read()
            drafted = model.generate([5, 6, 7, 8], draft=draft, **how).read()
            assert drafted.tokens == plain.tokens
            assert drafted.timings.drafted_tokens > 0
        draft.close()


def test_a_gguf_file_of_the_target_gives_the_same_file(tmp_path: Path) -> None:
    drafter = made(tmp_path, "dflash-qwen3")
    target = llamacpu.convert(made(tmp_path, "qwen3"), tmp_path / "model.gguf", type="q8_0")
    path = llamacpu.convert(drafter, tmp_path / "out.gguf", type="q8_0", target_model=target)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == MODELS["dflash-qwen3"]["digests"]["q8_0"]
    damaged = tmp_path / "damaged.gguf"
    for end in (3, 100, 5000):
        damaged.write_bytes(target.read_bytes()[:end])
        with pytest.raises(LlamaCpuError, match="the target model cannot be read"):
            llamacpu.convert(drafter, tmp_path / "none.gguf", target_model=damaged)
    with pytest.raises(CheckpointError, match="is a drafter itself"):
        llamacpu.convert(drafter, tmp_path / "none.gguf", target_model=path)
    with pytest.raises(FileExistsError, match="is read from"):
        llamacpu.convert(drafter, target, target_model=target)
    assert not (tmp_path / "none.gguf").exists()


def repeating(folder: Path) -> tuple[Path, np.ndarray]:
    """The checkpoint of a model that repeats its last token, and its embedding."""
    path, tensors = made(folder, "qwen3"), tensors_of("qwen3")
    rows = np.random.default_rng(1).standard_normal((320, 64)).astype(np.float32)
    for name, stored in tensors.items():
        shape = stored[1].shape if isinstance(stored, tuple) else stored.shape
        silent = name.endswith(("o_proj.weight", "down_proj.weight"))
        tensors[name] = np.zeros(shape, np.float32) if silent else np.ones(shape, np.float32)
    write_tensors(path, tensors | {"model.embed_tokens.weight": rows})
    return path, rows


def test_drafts_of_eagle_come_true(tmp_path: Path) -> None:
    """Its state is the last of those of the model; the map gives the rows of its output matrix their tokens."""
    target, rows = repeating(tmp_path)
    drafter, tensors = made(tmp_path, "eagle3"), tensors_of("eagle3")
    changed(drafter, eagle_aux_hidden_state_layer_ids=[1, 2, 2], rms_norm_eps=1e-6)
    tokens = np.arange(40) + np.array(MODELS["eagle3"]["values"]["d2t"])
    tensors |= {name: np.zeros((64, size), np.float32) for name, size in (("midlayer.self_attn.o_proj.weight", 64), (
        "midlayer.mlp.down_proj.weight", 96))}  # fmt: skip
    tensors["fc.weight"] = np.concatenate([np.zeros((64, 128)), np.eye(64)], axis=1).astype(np.float32)
    tensors |= {"norm.weight": np.ones(64, np.float32), "lm_head.weight": rows[tokens]}
    write_tensors(drafter, tensors)
    check_acceptance(tmp_path, target, drafter, int(tokens[7]))


def test_drafts_of_dflash_come_true(tmp_path: Path) -> None:
    """All keys are equal, so that the masked positions see the mean of the states, and of the block."""
    target, _ = repeating(tmp_path)
    drafter, tensors = made(tmp_path, "dflash-qwen3"), tensors_of("dflash-qwen3")
    half = np.eye(32, 64, dtype=np.float32)
    for name, stored in tensors.items():
        shape = stored.shape
        tensors[name] = np.ones(shape, np.float32) if len(shape) == 1 else np.zeros(shape, np.float32)
    tensors["fc.weight"] = np.concatenate([np.zeros((64, 64)), np.eye(64)], axis=1).astype(np.float32)
    tensors["layers.1.self_attn.v_proj.weight"] = half
    both = np.zeros((64, 64), np.float32)  # from the first head of each group
    both[np.arange(32), np.concatenate([np.arange(16), np.arange(32, 48)])] = 10
    tensors["layers.1.self_attn.o_proj.weight"] = both
    write_tensors(drafter, tensors)
    check_acceptance(tmp_path, target, drafter, 70)


def check_acceptance(folder: Path, target: Path, drafter: Path, token: int) -> None:
    path = llamacpu.convert(drafter, folder / "drafter.gguf", type="f32", target_model=target)
    with Model(llamacpu.convert(target, folder / "model.gguf", type="f32"), threads=1) as model:
        how: dict[str, Any] = {"max_tokens": 24, "ignore_end": True, "sampling": Sampling(temperature=0)}
        prompt = [token] * 20
        plain = model.generate(prompt, draft=None, **how).read()
        assert list(plain.tokens) == [token] * 24
        draft = LearnedDraft(model, path, 4, adaptive=False, least_chance=0)
        drafted = model.generate(prompt, draft=draft, **how).read()
        assert drafted.tokens == plain.tokens
        assert drafted.timings.accepted_tokens >= 16
        draft.close()


def test_layers_of_eagle_that_the_configuration_does_not_name(tmp_path: Path) -> None:
    drafter, target = pair(tmp_path, "eagle3")
    changed(target, num_hidden_layers=9)
    found = []
    for settings in ({}, {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 3, 5]}}):
        changed(drafter, **settings)
        with llamacpu.GGUFFile(llamacpu.convert(drafter, tmp_path / "a.gguf", target_model=target)) as file:
            found.append(list(file.metadata["eagle3.target_layers"]))
    assert found == [[2, 4, 6], [2, 4, 6]]


def edited(folder: Path, name: str, **values: Any) -> None:
    """Change an object in the configuration."""
    changed(folder, **{name: {**json.loads((folder / "config.json").read_text())[name], **values}})


def mapped(folder: Path, values: Any) -> None:
    write_tensors(folder, tensors_of("eagle3") | {"d2t": np.array(values)})


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


LAYERS = "target_layer_ids"
# The drafter, what is done to it and to its target, and what is said.
WRONG: dict[str, tuple[str, Callable[[Path, Path], Any], str]] = {
    "another vocabulary": ("dflash-qwen3", lambda d, t: changed(t, vocab_size=321), "vocab_size is 320, .*has 321 tok"),
    "another width": ("dflash-qwen3", lambda d, t: changed(t, hidden_size=128), "hidden_size is 64, .* has 128 elem"),
    "fewer layers": ("dflash-qwen3", lambda d, t: changed(t, num_hidden_layers=1), r"\[0, 1\], .*has 1 layers"),
    "layers below": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", target_layer_ids=[-1]), "has 2 layers"),
    "no layers": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", target_layer_ids=[]), f"{LAYERS} is ..; exp"),
    "texts": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", target_layer_ids=["1"]), f"{LAYERS} is .*list"),
    "truths": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", target_layer_ids=[True]), f"{LAYERS} is .*list"),
    "settings": ("dflash-qwen3", lambda d, t: changed(d, dflash_config=[1]), "dflash_config is .*expected an object"),
    "no mask": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", mask_token_id=None), "mask_token_id"),
    "mask outside": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", mask_token_id=320), "mask_token_id"),
    "a block of one": ("dflash-qwen3", lambda d, t: changed(d, block_size=1), "block_size"),
    "no block": ("dflash-qwen3", lambda d, t: changed(d, block_size="six"), "block_size"),
    "activation": ("dflash-qwen3", lambda d, t: changed(d, hidden_act="relu2"), "hidden_activation is 'relu2'"),
    "cap": ("dflash-qwen3", lambda d, t: changed(d, final_logit_softcapping="much"), "softcapping would be 'much'"),
    "not a number": ("dflash-qwen3", lambda d, t: changed(d, rms_norm_eps=float("nan")), "rms_epsilon"),
    "windows": (
        "dflash-qwen3", lambda d, t: changed(d, use_sliding_window=True, sliding_window=9, layer_types=["a"]), "layer_t"
    ),
    "scaled values": (
        "dflash-qwen3", lambda d, t: edited(d, "dflash_config", attention_value_scale=2.0), "attention.value_scale"
    ),
    "DFlash 2": ("dflash-qwen3", lambda d, t: edited(d, "dflash_config", selector_rank=4), "selector of candidates"),
    "own mask": ("dflash-qwen3", lambda d, t: (d / "mask_embedding.pt").write_bytes(b""), "mask_embedding.pt"),
    "odd heads": ("dflash-gemma4", lambda d, t: changed(d, head_dim=15), "expected rows for heads of 15"),
    "no configuration": ("dflash-qwen3", lambda d, t: (t / "config.json").unlink(), "no config.json in this folder"),
    "endless vocabulary": ("dflash-qwen3", lambda d, t: changed(t, vocab_size=2**31), "vocab_size is 2147483648, but"),
    "no tokenizer": ("dflash-qwen3", lambda d, t: (t / "tokenizer.json").unlink(), "the target model in .*no tokeni"),
    "damaged tokenizer": (
        "dflash-qwen3", lambda d, t: (t / "tokenizer.json").write_text("{"), "the target model in .*not valid JSON"
    ),
    "unknown target": (
        "dflash-qwen3", lambda d, t: changed(t, architectures=["MambaModel"]), "the target model in .*cannot be conv"
    ),
    "a drafter as target": (
        "dflash-qwen3", lambda d, t: changed(t, architectures=["Gemma4AssistantForCausalLM"]), "is a drafter itself"
    ),
    "shortened": ("dflash-qwen3", lambda d, t: shortened(d / "model.safetensors"), "model.safetensors"),
    "a tensor too many": (
        "dflash-qwen3",
        lambda d, t: write_tensors(d, tensors_of("dflash-qwen3") | {"markov.weight": np.ones(3, np.float32)}),
        "'markov.weight' has no place in the architecture 'dflash'",
    ),
    "a tensor missing": (
        "dflash-qwen3",
        lambda d, t: write_tensors(d, {k: v for k, v in tensors_of("dflash-qwen3").items() if k != "fc.weight"}),
        "fc.weight.*missing",
    ),
    "assistant's layers": ("muse-glimmer-assistant", lambda d, t: changed(d, target_layer_ids=[7]), "has 5 layers"),
    "assistant's width": ("muse-glimmer-assistant", lambda d, t: changed(d, hidden_size=32), "hidden_size is 32"),
    "assistant's windows": ("muse-glimmer-assistant", lambda d, t: changed(d, layer_types=[]), "layer_types is .."),
    "few layers": ("eagle3", lambda d, t: changed(t, num_hidden_layers=3), "not given, is .*has 3 layers"),
    "states": ("eagle3", lambda d, t: changed(d, target_hidden_size=65), "target_hidden_size is 65"),
    "two layers": ("eagle3-gpt-oss", lambda d, t: changed(d, num_hidden_layers=2), "block_count is 2"),
    "flag": ("eagle3", lambda d, t: changed(d, norm_before_fc="yes"), "norm_before_fc would be 'yes'"),
    "map outside": ("eagle3", lambda d, t: mapped(d, [0] * 39 + [320]), "'d2t' names tokens outside the 320"),
    "map below": ("eagle3", lambda d, t: mapped(d, [-1] + [0] * 39), "'d2t' names tokens outside the 320"),
    "map twice": ("eagle3", lambda d, t: mapped(d, [1, 0] + [3] * 38), "'d2t' names a token twice"),
    "floats as map": ("eagle3", lambda d, t: mapped(d, [0.0] * 40), "'d2t' has the type F64"),
    "large map": ("eagle3", lambda d, t: mapped(d, [0] * 321), "'d2t' has the type I64 and the shape .321"),
    "map of another length": ("eagle3", lambda d, t: mapped(d, [0] * 39), "output.weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_error_and_overwrites_nothing(tmp_path: Path, case: str) -> None:
    name, damage, message = WRONG[case]
    drafter, target = pair(tmp_path, name)
    damage(drafter, target)
    output = tmp_path / "out" / "a.gguf"
    output.parent.mkdir()
    output.write_bytes(b"GGUF of yesterday")
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        llamacpu.convert(drafter, output, target_model=target)
    assert [entry.name for entry in output.parent.iterdir()] == ["a.gguf"]
    assert output.read_bytes() == b"GGUF of yesterday"


def test_the_target_is_for_drafters_that_need_one(tmp_path: Path) -> None:
    drafter, target = pair(tmp_path)
    with pytest.raises(CheckpointError, match="made for; give that model"):
        llamacpu.convert(drafter, tmp_path / "a.gguf")
    for other in ("qwen3", "gemma4-assistant"):
        with pytest.raises(CheckpointError, match="no drafter that takes the tokenizer"):
            llamacpu.convert(made(tmp_path, other), tmp_path / "a.gguf", target_model=target)
    with pytest.raises(ValueError, match="give one of them"):
        llamacpu.convert(drafter, tmp_path / "a.gguf", target_model=target, mmproj=True)
    with pytest.raises(TypeError, match="target_model"):
        llamacpu.convert(drafter, tmp_path / "a.gguf", target_model=5)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="no such target model"):
        llamacpu.convert(drafter, tmp_path / "a.gguf", target_model=tmp_path / "none" / "such")
    assert not (tmp_path / "a.gguf").exists()


def test_the_command(tmp_path: Path) -> None:
    drafter, target = pair(tmp_path)
    arguments = ["convert", str(drafter), "-o", str(tmp_path / "a.gguf"), "--target-model", str(target)]
    result = CliRunner().invoke(command_line, arguments)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, str(tmp_path / "a.gguf"))
    result = CliRunner().invoke(command_line, [*arguments, "--mmproj"])
    assert result.exit_code == 2
    assert "give one of" in " ".join(result.output.split())


def test_a_target_on_the_hub_is_found_by_the_name_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all that is downloaded of it are its small files."""
    drafter, target = pair(tmp_path, "eagle3-speculators")
    expected = llamacpu.convert(drafter, tmp_path / "1.gguf", target_model=target).read_bytes()
    hub = ModelHub()
    try:
        use_alone(hub, monkeypatch, tmp_path)
        with pytest.raises(StoreError, match="nobody/such-model"):
            llamacpu.convert(drafter, tmp_path / "2.gguf")
        hub.repositories["owner/target"] = {
            entry.name: entry.read_bytes() for entry in target.iterdir() if entry.is_file()
        } | {"model.safetensors": bytes(1000)}
        settings = copy.deepcopy(MODELS["eagle3-speculators"]["config"]["speculators_config"])
        settings["verifier"]["name_or_path"] = "owner/target"
        changed(drafter, speculators_config=settings)
        assert llamacpu.convert(drafter, tmp_path / "2.gguf").read_bytes() == expected
        assert not any("safetensors" in path for path in hub.bodies())
        before = len(hub.requests)
        assert llamacpu.convert(drafter, tmp_path / "3.gguf").read_bytes() == expected
        assert len(hub.requests) == before
    finally:
        hub.close()
