"""Families without reference outputs of their own: from the metadata of a file to exact arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from further_families import CONTEXT, FAMILIES, HALVES, HEADS, LAYERS, VOCABULARY, expected, write
from llamacpu import ContextOverflow, Model, ModelError
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile
from reference_model import ReferenceModel, is_exact
from test_golden_families import check_ways

pytestmark = pytest.mark.instruction_set


@pytest.mark.instruction_set(one_in=2)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_against_exact_arithmetic(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", name)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, 40).tolist()
    with Model(path, threads=2) as model:
        wanted = expected(name)
        found = {key: value for key, value in model.config.items() if value != wanted[key]}
        # No windows, said or not; and numbers that the file has in 32 bits.
        assert found.keys() <= {"window", "norm_epsilon", "residual_scale", "query_key_norm", "ignored_tensors"}, found
        whole = model.session(kv_type="f32").forward(tokens, logits="all")
        assert is_exact(whole, ReferenceModel(path, wanted), tokens)
        session = model.session(kv_type="f32")
        rows = [session.forward(part, logits="all") for part in (tokens[:7], tokens[7:8], tokens[8:])]
        assert np.array_equal(np.concatenate(rows), whole)


WAYS = ("bloom", "mpt", "olmo", "gptneox", "falcon-40b", "phimoe", "hunyuan-dense", "olmo2", "muse-glimmer", "gemma4")


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("name", [*WAYS, "mistral4", "deepseek32", "glm-dsa", "qwen3next"])
def test_no_bit_depends_on_the_way(name: str, tmp_path: Path) -> None:
    """Of one family for each part that no golden model has."""
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, 96).tolist()
    check_ways(write(tmp_path / "model.gguf", name), tokens, 4 * CONTEXT, tmp_path)


@pytest.mark.instruction_set(one_in=None)
def test_learned_positions_end_where_they_end(tmp_path: Path) -> None:
    with Model(write(tmp_path / "model.gguf", "gpt2")) as model:
        session = model.session(context=4 * CONTEXT)
        session.forward([1] * CONTEXT, logits="none")
        with pytest.raises((ContextOverflow, ValueError), match="128"):
            session.forward([1])


@pytest.mark.parametrize("name", ["glm4moe", "qwen3next", "qwen35"])
def test_layers_that_predict_further_tokens_are_left_alone(name: str, tmp_path: Path) -> None:
    extra = {"blk.4.nextn.eh_proj.weight": np.zeros((48, 96)), "blk.4.attn_norm.weight": np.zeros(48)}
    plain = write(tmp_path / "plain.gguf", name)
    more = write(tmp_path / "more.gguf", name, extra)
    tokens = list(range(20))
    with (
        Model(plain) as one,
        Model(more, overrides={f"{name}.block_count": 5, f"{name}.nextn_predict_layers": 1}) as two,
    ):
        assert np.array_equal(one.session().forward(tokens), two.session().forward(tokens))


def test_linear_biases_have_no_last_position(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "bloom")
    tokens = np.random.default_rng(4).integers(0, VOCABULARY, 3 * CONTEXT).tolist()
    with Model(path, threads=2) as model:
        whole = model.session(context=4 * CONTEXT, kv_type="f32").forward(tokens, logits="all")
        session = model.session(context=4 * CONTEXT, kv_type="f32")
        session.forward(tokens[: 2 * CONTEXT], logits="none")
        session.truncate(CONTEXT)
        assert np.array_equal(session.forward(tokens[CONTEXT:], logits="all"), whole[CONTEXT:])
    assert is_exact(whole, ReferenceModel(path, expected("bloom")), tokens)


def test_the_largest_models_differ(tmp_path: Path) -> None:
    """Baichuan's has linear biases, GPT-NeoX's an approximated GELU: nothing but their size tells."""
    for name, sizes, switches in (
        ("baichuan", {"block_count": 40}, {"alibi": 8.0, "rotation": ["none"] * 40}),
        ("gptneox", {"block_count": 44, "embedding_length": 6144}, {"activation": "gelu_tanh"}),
    ):
        overrides = {f"{name}.{key}": value for key, value in sizes.items()}
        with GGUFFile(write(tmp_path / "model.gguf", name), overrides=overrides) as file:
            config = config_for(file)
        assert {key: config[key] for key in switches} == switches


ENCODERS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "gemma-embedding": (
        HALVES | HEADS
        | {
            "norms": "both", "activation": "gelu_tanh", "embedding_scale": 48**0.5, "window": [12] * LAYERS,
            "rotation": ["local"] * LAYERS, "rope_local_base": 10000.0,
        },
        {"attention.sliding_window": 12},
        False,
    ),
    "eurobert": (HALVES, {}, False),
    "modern-bert": (
        HALVES
        | {
            "norm": "layer", "embedding_norm": True, "first_attention_norm": False, "gate": "fused",
            "activation": "gelu", "kv_heads": [6] * LAYERS, "window": [0, 12, 12, 0], "rope_base": 160000.0,
            "rotation": ["global", "local", "local", "global"], "rope_local_base": 500.0,
        },
        {"attention.sliding_window": 12, "rope.freq_base": 160000.0, "rope.freq_base_swa": 500.0},
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_states_of_encoders_against_exact_arithmetic(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches, keys, biases = ENCODERS[name]
    monkeypatch.setitem(FAMILIES, name, (switches | {"causal": False, "output": False}, keys, biases))
    path = write(tmp_path / "model.gguf", name)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, 40).tolist()
    with Model(path) as model:
        got = model.session(kv_type="f32").hidden(tokens)[0]
    exact = ReferenceModel(path, expected(name)).hidden(tokens)[-1]
    assert float(((got - exact) ** 2).sum() / (exact**2).sum()) < 1e-9


@pytest.mark.instruction_set(one_in=None)
def test_a_classifier_of_modern_bert_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switches, keys, biases = ENCODERS["modern-bert"]
    monkeypatch.setitem(FAMILIES, "modern-bert", (switches | {"causal": False, "output": False}, keys, biases))
    head = {"cls.weight": np.zeros((48, 48)), "cls.norm.weight": np.ones(48)}
    Model(write(tmp_path / "words.gguf", "modern-bert", head)).close()
    with pytest.raises(ModelError, match=r"cls\.norm\.weight, cls\.output\.weight"):
        Model(write(tmp_path / "classes.gguf", "modern-bert", head | {"cls.output.weight": np.zeros((1, 48))}))


def test_exaone_4_against_transformers(tmp_path: Path) -> None:
    """The model's own code, in 32 bits, on the weights of the file."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = write(tmp_path / "model.gguf", "exaone4")
    config = transformers.Exaone4Config(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, max_position_embeddings=CONTEXT, sliding_window=9,
        sliding_window_pattern=4, attn_implementation="eager", tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.Exaone4ForCausalLM(config).eval()
    parts = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    names |= {f"blk.{n}.{ours}": f"model.layers.{n}.{part}" for n in range(LAYERS) for ours, part in parts.items()}
    state = {
        f"{names[tensor.name.removesuffix('.weight')]}.weight": torch.tensor(np.array(tensor.data))
        for tensor in gguf.GGUFReader(path).tensors
    }
    theirs.load_state_dict(state)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, 60).tolist()
    with torch.no_grad():
        exact = theirs(torch.tensor([tokens])).logits[0].double().numpy()
    with Model(path) as model:
        got = model.session(kv_type="f32").forward(tokens, logits="all")
    assert float(((got - exact) ** 2).sum() / (exact**2).sum()) < 1e-9
