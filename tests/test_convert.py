"""Converting checkpoints: the bytes of llama.cpp's converter for every family."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from checkpoint_files import safetensors_bytes
from converted_checkpoints import load, weights, write_checkpoint
from llamacpu.chat import Chat
from llamacpu.errors import CheckpointError
from llamacpu.families.registry import FAMILIES as RUNNING
from llamacpu.gguf.file import GGUFFile
from llamacpu.tools.convert.registry import FAMILIES

FACTS = load()
# Every file is opened as a model before it is written, so only what runs can be converted.
MODELS: dict[str, dict[str, Any]] = {
    name: model
    for name, model in FACTS["models"].items()
    if "part" not in model and model.get("architecture", "llama") in RUNNING
}
TOWERS: dict[str, dict[str, Any]] = {name: model for name, model in FACTS["models"].items() if "part" in model}
THOROUGH = bool(os.environ.get("LLAMACPU_THOROUGH"))
LLAMA = next(name for name in MODELS if name.startswith("Tiny"))


def made(folder: Path, name: str = LLAMA) -> Path:
    return write_checkpoint(folder / name, FACTS["models"][name], FACTS["tokenizers"])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def vision(folder: Path, **values: Any) -> None:
    found = json.loads((folder / "config.json").read_text())["vision_config"]
    changed(folder, vision_config={**found, **values})


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_of_llama_cpps_converter(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path, name)
    for kind, digest in MODELS[name]["digests"].items():
        if THOROUGH or kind in ("auto", "q8_0"):
            path = llamacpu.convert(folder, tmp_path / "out.gguf", type=kind)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, kind


def test_adapters_of_tasks_become_files_beside_the_model(tmp_path: Path) -> None:
    llamacpu.convert(made(tmp_path, "jina-bert-v3"), tmp_path / "out.gguf", type="q8_0")
    digests = MODELS["jina-bert-v3"]["adapters"]
    assert len(digests) == 2
    for beginning, digest in digests.items():
        assert hashlib.sha256((tmp_path / f"{beginning}out.gguf").read_bytes()).hexdigest() == digest
    with llamacpu.Model(tmp_path / "out.gguf", threads=1) as model:
        found = [model.embed("hello")]
        for beginning in digests:
            model.set_adapters(lora=[tmp_path / f"{beginning}out.gguf"])
            found.append(model.embed("hello"))
    assert len({row.tobytes() for row in found}) == 3


@pytest.mark.parametrize("name", TOWERS)
def test_bytes_of_encoders_of_pictures(tmp_path: Path, name: str) -> None:
    """As from llama.cpp's converter with --mmproj, but for names and a row that it loses (make_converted.py)."""
    folder = made(tmp_path, name)
    for kind, digest in TOWERS[name]["digests"].items():
        path = llamacpu.convert(folder, tmp_path / "out.gguf", type=kind, mmproj=True)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, kind


@pytest.mark.parametrize("prefix", ["vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower."])
def test_the_pooling_of_siglip_is_left_out(tmp_path: Path, prefix: str) -> None:
    """Which Gemma 3 does not use; newer versions of transformers write it without a part of its name."""
    folder = made(tmp_path, "gemma3-vl")
    expected = llamacpu.convert(folder, tmp_path / "a.gguf", type="f32", mmproj=True).read_bytes()
    pooling = {f"{prefix}head.{name}": np.ones((3, 4), np.float32) for name in ("probe", "attention.in_proj_weight")}
    (folder / "model-more.safetensors").write_bytes(safetensors_bytes(pooling))
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    checkpoint = llamacpu.Checkpoint.open(folder)
    places = dict.fromkeys(checkpoint.tensors, next(file for file in files if file != "model-more.safetensors"))
    index = {"weight_map": places | dict.fromkeys(pooling, "model-more.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert llamacpu.convert(folder, tmp_path / "b.gguf", type="f32", mmproj=True).read_bytes() == expected


@pytest.mark.parametrize(
    ("model", "damage", "message"),
    [
        ("gemma3-vl", lambda f: (f / "preprocessor_config.json").unlink(), "image_mean is None"),
        ("gemma3-vl", lambda f: changed(f, vision_config=None), "there is no vision_config"),
        ("gemma3-vl", lambda f: changed(f, vision_config={"num_hidden_layers": 3}), "2 layers of the encoder"),
        ("gemma3-vl", lambda f: changed(f, architectures=["LlamaForCausalLM"]), "has no vision encoder"),
        ("qwen25vl", lambda f: vision(f, fullatt_block_indexes=[1, 2]), "expected equal distances"),
        ("qwen25vl", lambda f: vision(f, num_heads="two"), "num_attention_heads of vision_config is 'two'|num_heads"),
        ("qwen3vl-vision", lambda f: vision(f, deepstack_visual_indexes=[0, 3]), "expected numbers of 3 layers"),
        ("qwen3vl-vision", lambda f: vision(f, deepstack_visual_indexes=[0]), "is of a layer that deepstack"),
        ("qwen3vl-vision", lambda f: vision(f, hidden_act="relu"), "hidden_act of vision_config is 'relu'"),
        ("qwen3vl-vision", lambda f: vision(f, num_position_embeddings=None), "num_position_embeddings"),
        ("pixtral", lambda f: (f / "tokenizer_config.json").write_text("{}"), "no token .* row in the embedding"),
        ("pixtral", lambda f: vision(f, model_type="clip_vision_model"), "'clip_vision_model' cannot be converted"),
        ("llama4-vl", lambda f: vision(f, pixel_shuffle_ratio=0), "pixel_shuffle_ratio is 0"),
        ("llama4-vl", lambda f: vision(f, rope_parameters={"rope_theta": 500000.0}), "rope_theta .* expected 10000"),
        ("pixtral", lambda f: vision(f, rope_theta=500000.0, rope_parameters=None), "rope_theta .* expected 10000"),
        ("internvl", lambda f: vision(f, image_size=[56, 28]), "image_size of vision_config .* expected a square"),
        ("internvl", lambda f: vision(f, norm_type="rms_norm"), "norm_type of vision_config is 'rms_norm'"),
        ("internvl", lambda f: vision(f, hidden_act="relu"), "hidden_act of vision_config is 'relu'"),
        ("internvl", lambda f: changed(f, downsample_ratio=0), "downsample_ratio is 0"),
        ("muse-glimmer-vl", lambda f: vision(f, patch_size=5), "is config.json sound"),
    ],
)  # fmt: skip
def test_damaged_encoders_are_one_error(
    tmp_path: Path, model: str, damage: Callable[[Path], Any], message: str
) -> None:
    folder = made(tmp_path, model)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        llamacpu.convert(folder, tmp_path / "a.gguf", mmproj=True)
    assert not (tmp_path / "a.gguf").exists()


def test_experts_of_qwen3_vl_in_both_orders(tmp_path: Path) -> None:
    """Published checkpoints have inputs for rows, those that newer versions of transformers write have outputs."""
    model = FACTS["models"]["qwen3vlmoe"]
    folder = made(tmp_path, "qwen3vlmoe")
    expected = llamacpu.convert(folder, tmp_path / "a.gguf", type="f32").read_bytes()
    stored = {name: weights(name, shape, kind) for kind, shape, theirs in model["tensors"] for name in theirs}
    for name in stored:
        if ".experts." in name:
            stored[name] = np.ascontiguousarray(stored[name].swapaxes(1, 2))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(stored.items()))))
    assert llamacpu.convert(folder, tmp_path / "b.gguf", type="f32").read_bytes() == expected
    changed(folder, text_config={**model["config"]["text_config"], "moe_intermediate_size": 24})
    with pytest.raises(CheckpointError, match="for each expert"):
        llamacpu.convert(folder, tmp_path / "c.gguf", type="f32")


def test_the_text_of_a_model_that_sees_in_its_own_form(tmp_path: Path) -> None:
    """InternVL: the language model is one with a class and a configuration of its own, inside of the whole."""
    folder = made(tmp_path, "qwen2")
    expected = llamacpu.convert(folder, tmp_path / "a.gguf").read_bytes()
    inner = json.loads((folder / "config.json").read_text())
    whole = {**TOWERS["internvl"]["config"], "llm_config": inner}
    (folder / "config.json").write_text(json.dumps(whole))
    tensors = {f"language_model.{n}": weights(n, shape, kind) for kind, shape, all in MODELS["qwen2"]["tensors"]
               for n in all}  # fmt: skip
    tensors |= {n: weights(n, shape, kind) for kind, shape, all in TOWERS["internvl"]["tensors"] for n in all
                if not n.startswith("language_model.")}  # fmt: skip
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(tensors.items()))))
    assert llamacpu.convert(folder, tmp_path / "b.gguf").read_bytes() == expected


def test_the_default_name_of_an_encoder(tmp_path: Path) -> None:
    folder = made(tmp_path, "smolvlm").rename(tmp_path / "Tiny-SmolVLM-1B-Instruct")
    (tmp_path / "out").mkdir()
    assert llamacpu.convert(folder, tmp_path / "out", mmproj=True).name.startswith("mmproj-Tiny-SmolVLM-")


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("name", MODELS)
def test_converted_models_run(tmp_path: Path, name: str) -> None:
    path = llamacpu.convert(made(tmp_path, name), tmp_path / "out.gguf", type="f32")
    with llamacpu.Model(path) as model:
        ids = model.tokenizer.encode("Hello world, the quick brown fox")
        assert len(ids) > 5
        assert "hello world" in model.tokenizer.decode(ids).lower()
        if model.config.causal:
            logits = model.session(context=64).forward(ids)
            assert np.isfinite(logits).all()
            assert np.ptp(logits) > 0


@pytest.mark.parametrize(("name", "scores"), [("deepseek2-v2", "softmax"), ("glm4-moe-lite", "sigmoid")])
def test_how_experts_are_scored_where_no_key_says_it(tmp_path: Path, name: str, scores: str) -> None:
    with llamacpu.Model(llamacpu.convert(made(tmp_path, name), tmp_path / "a.gguf"), threads=1) as model:
        assert "deepseek2.expert_gating_func" not in model.metadata
        assert model.config.expert_gating == scores


# Architectures whose family is chosen by more than the class in config.json.
CHOSEN = {"nomic-bert-moe", "jina-bert-v3"}


def test_every_architecture_that_runs_can_be_converted() -> None:
    classes = {
        getattr(importlib.import_module(f"llamacpu.tools.convert.families.{module}"), kind)
        for module, kind in (name.split(".") for name in FAMILIES.values())
    }
    assert set(RUNNING) <= {kind.architecture for kind in classes} | CHOSEN


def read(path: Path) -> dict[str, np.ndarray]:
    """The F32 tensors of a file."""
    import gguf

    return {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors if t.tensor_type == 0}


def test_gates_of_llama_3_2_vision(tmp_path: Path) -> None:
    """Ollama's layout: those of the encoder are stored after tanh, two from one; those of the text as they are."""
    found = read(llamacpu.convert(made(tmp_path, "mllama"), tmp_path / "a.gguf", type="f32"))
    gate = {name: weights(name, shape, kind) for kind, shape, all in MODELS["mllama"]["tensors"] for name in all}
    position = np.tanh(gate["vision_model.gated_positional_embedding.gate"])
    assert np.array_equal(found["v.position_embd.gate"], 1 - position)
    assert np.array_equal(found["v.tile_position_embd.gate"], position)
    before = gate["vision_model.pre_tile_positional_embedding.gate"]
    assert np.array_equal(found["v.pre_tile_position_embd.gate"], np.tanh(before))
    inner = gate["vision_model.global_transformer.layers.0.gate_ffn"]
    assert np.array_equal(found["v.global.blk.0.ffn_gate"], np.tanh(inner))
    text = gate["language_model.model.layers.1.cross_attn_attn_gate"]
    assert np.array_equal(found["blk.1.cross_attn_attn_gate"], text)
    crossing = gate["language_model.model.layers.1.cross_attn.q_proj.weight"]
    assert np.array_equal(found["blk.1.cross_attn_q_proj.weight"], crossing)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("deberta-v2", {"pos_att_type": "c2p"}, "pos_att_type is .'c2p'.; DeBERTa is supported with"),
        ("deberta-v2", {"position_biased_input": True}, "position_biased_input is True"),
        ("minicpm", {"dim_model_base": 0}, "dim_model_base is 0; expected a number above 0"),
        ("jais", {"position_embedding_type": "learned"}, "position_embedding_type is 'learned'"),
        ("plamo", {"n_shared_head": 3}, "10 heads cannot be shared by n_shared_head 3"),
        ("openelm", {"num_kv_heads": [2]}, "num_kv_heads is .2.; expected a number for each layer"),
        ("hunyuan-moe", {"moe_topk": [2, 1]}, "moe_topk is .*expected the same number for all layers"),
        ("hunyuan-dense", {"max_position_embeddings": 1000}, "dynamic scaling"),
        ("qwen", {"vocab_size": 500}, "300 tokens beside 208 special ones, but the embedding has 500 rows"),
        ("dbrx", {"ffn_config": None}, "ffn_config is None; expected an object"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path: Path, model: str, values: dict[str, Any], message: str) -> None:
    folder = made(tmp_path, model)
    changed(folder, **values)
    with pytest.raises(CheckpointError, match=message):
        llamacpu.convert(folder, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_rotation_that_no_key_says_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, "muse-glimmer")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    bases = text["layer_rope_theta"]
    assert bases == [0, *bases[1:4], 0]
    assert all(bases[1:4])
    for wrong in ([1e4, *bases[1:]], [*bases[:3], 0, 0], [*bases[:3], 123.0, 0], bases[:4], "none"):
        changed(folder, text_config={**text, "layer_rope_theta": wrong})
        with pytest.raises(CheckpointError, match="layer_rope_theta is"):
            llamacpu.convert(folder, tmp_path / "a.gguf")


def test_heads_of_full_layers_as_large_as_those_of_the_others(tmp_path: Path) -> None:
    """Gemma 4's configuration then lists no layer that differs."""
    model = copy.deepcopy(MODELS["gemma4-dense"])
    assert model["config"]["head_dim"] == 16
    groups = []
    for kind, shape, all in model["tensors"]:
        full = [name for name in all if ".layers.5.self_attn." in name]
        smaller = [size if size == 64 else size // 2 for size in shape]
        groups += [[kind, shape, [name for name in all if name not in full]], [kind, smaller, full]]
    model["tensors"] = groups
    model["config"].pop("global_head_dim", None)
    model["config"]["per_layer_config"] = {"5": {"num_key_value_heads": 1}}
    folder = write_checkpoint(tmp_path / "model", model, FACTS["tokenizers"])
    with llamacpu.GGUFFile(llamacpu.convert(folder, tmp_path / "a.gguf")) as file:
        assert file.metadata["gemma4.attention.key_length"] == 16


@pytest.mark.parametrize("line", [b"!!! 3", b"", b"QQ== 9"])
def test_a_damaged_file_of_ranks_is_one_error(tmp_path: Path, line: bytes) -> None:
    folder = made(tmp_path, "qwen")
    lines = (folder / "qwen.tiktoken").read_bytes().splitlines()
    (folder / "qwen.tiktoken").write_bytes(b"\n".join([*lines[:3], line, *lines[4:]]))
    with pytest.raises(CheckpointError, match=r"qwen\.tiktoken: line 4"):
        llamacpu.convert(folder, tmp_path / "a.gguf")
    (folder / "qwen.tiktoken").unlink()
    with pytest.raises(CheckpointError, match=r"qwen\.tiktoken is missing"):
        llamacpu.convert(folder, tmp_path / "a.gguf")


def test_glm_4_in_its_own_form_has_ranks_and_added_tokens(tmp_path: Path) -> None:
    folder = made(tmp_path, "chatglm")
    (folder / "tokenizer.json").unlink()
    tokens = [line.split()[0] for line in FACTS["tokenizers"]["ranks qwen"]["qwen.tiktoken"].splitlines()]
    tokens = [*tokens[33:256], *tokens[:33], *tokens[256:]]
    (folder / "tokenizer.model").write_text("\n".join(f"{token} {rank}" for rank, token in enumerate(tokens)))
    added = {str(300 + at): {"content": text, "special": True} for at, text in enumerate(("<|endoftext|>", "<|user|>"))}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    changed(folder, eos_token_id=None, bos_token_id=None, pad_token_id=None)
    with llamacpu.Model(llamacpu.convert(folder, tmp_path / "a.gguf")) as model:
        ids = list(model.tokenizer.encode("the quick brown fox<|user|>", False, True))
        assert ids[-1] == 301
        assert len(ids) < 15  # merges are applied
        assert model.tokenizer.decode(ids[:-1]) == "the quick brown fox"
        assert model.tokenizer.eos == 300
    changed(folder, padded_vocab_size=301)
    with pytest.raises(CheckpointError, match=r"300 tokens and .* ids up to 301, but config.json a size of 301"):
        llamacpu.convert(folder, tmp_path / "b.gguf")


def test_the_template_of_a_tekken_tokenizer_is_found_by_its_name(tmp_path: Path) -> None:
    path = llamacpu.convert(made(tmp_path, "mistral-tekken"), tmp_path / "a.gguf")
    with llamacpu.Model(path) as model:
        prompt = Chat.of(model).render([{"role": "user", "content": "What?"}])
    assert "[INST]What?[/INST]" in prompt


def test_the_output_of_baichuan_2_has_rows_of_length_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.tools.convert.families.baichuan.BAICHUAN_2_SIZE", 320)
    rows = read(llamacpu.convert(made(tmp_path, "baichuan"), tmp_path / "a.gguf", type="f32"))["output.weight"]
    assert np.abs(np.square(rows).sum(axis=1) - 1).max() < 1e-6


def test_the_default_name_is_made_of_the_models(tmp_path: Path) -> None:
    path = llamacpu.convert(made(tmp_path), tmp_path)
    assert path.name == "Tiny-Llama-103K-1b-Instruct-v1.1-BF16.gguf"


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    llamacpu.convert(made(tmp_path), tmp_path / "a.gguf", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert seen == sorted(seen)


def test_a_name_can_be_given(tmp_path: Path) -> None:
    path = llamacpu.convert(made(tmp_path), tmp_path / "a.gguf", name="Mine")
    with GGUFFile(path) as file:
        assert file.metadata["general.name"] == "Mine"


def test_scores_of_merged_pieces_keep_the_merges(tmp_path: Path) -> None:
    """A SentencePiece vocabulary as BPE in tokenizer.json is cut as its merges say."""
    folder = made(tmp_path)
    (folder / "tokenizer.model").unlink()
    letters = "\u2581abcdeh"
    merges = [("b", "c"), ("a", "b"), ("\u2581", "a"), ("bc", "d"), ("ab", "c"), ("\u2581a", "bcd")]
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *letters]
    texts += [left + right for left, right in merges if left + right not in texts]
    vocabulary = {text: id for id, text in enumerate(dict.fromkeys(texts))}
    tokenizer = {
        "model": {"type": "BPE", "byte_fallback": True, "vocab": vocabulary, "merges": [list(pair) for pair in merges]},
        "decoder": {"type": "Sequence", "decoders": []},
        "added_tokens": [{"id": id, "content": text, "special": True} for id, text in enumerate(texts[:3])],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with GGUFFile(llamacpu.convert(folder, tmp_path / "a.gguf")) as file:
        ids = llamacpu.Tokenizer(file).encode("abcd")
    pieces = [texts[id] if id < len(texts) else "" for id in ids if id > 2]
    assert pieces == ["\u2581abcd"]  # "bc" is the first merge; with equal scores "ab" would be joined first


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="type is 'q4'; expected auto, f32"):
        llamacpu.convert(tmp_path, type="q4")
    with pytest.raises(TypeError, match="source"):
        llamacpu.convert(5)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="no such folder; give one, or a name on the hub"):
        llamacpu.convert(tmp_path / "none" / "such")
    folder = made(tmp_path)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="other than a GGUF file"):
        llamacpu.convert(folder, tmp_path / "thesis.txt")
    with pytest.raises(FileExistsError, match="is read from"):
        llamacpu.convert(folder, folder / "config.json")


def test_a_name_on_the_hub_is_found_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path)
    repository = tmp_path / "hub" / "models--owner--Tiny-Llama-v2"
    shutil.move(folder, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "own"))
    path = llamacpu.convert("owner/Tiny-Llama-v2", tmp_path / "a.gguf")
    with GGUFFile(path) as file:
        assert (file.metadata["general.name"], file.metadata["general.organization"]) == ("Tiny Llama v2", "Owner")
    with pytest.raises(llamacpu.StoreError, match="not on this machine"):
        llamacpu.convert("owner/Other", tmp_path / "b.gguf")
