"""Families without reference outputs of their own: from the metadata of a file to exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from config_models import tensors
from llamacpu import ContextOverflow, Model, ModelError
from llamacpu.families.config import Config
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile
from reference_model import ReferenceModel, is_exact

pytestmark = pytest.mark.instruction_set

LAYERS, CONTEXT, VOCABULARY = 4, 128, 50
BASE = Config(
    architecture="test", vocab_size=VOCABULARY, context_length=CONTEXT, embedding_length=48, layers=LAYERS,
    feed_forward=[40] * LAYERS, heads=[6] * LAYERS, kv_heads=[2] * LAYERS, key_size=8, value_size=8, norm_epsilon=1e-5,
    rope_size=8, rope_original_context=CONTEXT,
)  # fmt: skip
PLAIN = {"gate": "none", "activation": "gelu_tanh"}
LOCAL = {"window": [9, 9, 9, 0], "rotation": ["global"] * 3 + ["none"]}
EXPERTS = {"experts": 6, "experts_used": 2, "expert_feed_forward": 20, "expert_gating": "sigmoid"}
POSITIONS = {"learned_positions": True, "rope_size": 0, "rotation": ["none"] * LAYERS}
LINEAR = {"alibi": 8.0, "rope_size": 0, "rotation": ["none"] * LAYERS}
HALVES = {"rope_style": "neox"}
VARIANTS = {"falcon-40b": "falcon", "gptneox-in-turn": "gptneox", "mpt-learned": "mpt"}
"""Entries of the table whose architecture has another one."""
HEADS = {"query_key_norm": ["head"] * LAYERS}
EXPERT_KEYS = {
    "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "expert_shared_count": 1,
    "expert_weights_scale": 2.5,
}  # fmt: skip
# Architecture: switches as the models' own code has them, further keys of the file, and whether it has biases.
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "exaone": (HALVES, {}, False),
    "exaone4": (HALVES | HEADS | LOCAL | {"norms": "behind"}, {"attention.sliding_window": 9}, False),
    "internlm2": ({}, {}, False),
    "xverse": ({}, {}, False),
    "orion": (HALVES | {"norm": "layer"}, {}, True),
    "minicpm": ({"embedding_scale": 12.0, "residual_scale": 0.7, "logit_scale": 256 / 48}, {}, False),
    "phi2": (
        HALVES | PLAIN | {"norm": "layer", "parallel": True, "rope_size": 4}, {"rope.dimension_count": 4}, True,
    ),
    "falcon": (
        HALVES | {"norm": "layer", "parallel": True, "gate": "none", "activation": "gelu", "kv_heads": [1] * LAYERS},
        {},
        False,
    ),
    "gpt2": (POSITIONS | PLAIN | {"norm": "layer", "kv_heads": [6] * LAYERS}, {}, True),
    "starcoder": (POSITIONS | PLAIN | {"norm": "layer", "kv_heads": [1] * LAYERS}, {}, True),
    "ernie4_5-moe": (
        EXPERTS | {"shared_feed_forward": 20, "expert_gating": "softmax", "expert_weights_scale": 2.5},
        EXPERT_KEYS,
        False,
    ),
    "falcon-40b": (
        HALVES
        | {
            "norm": "layer", "parallel": True, "gate": "none", "activation": "gelu", "parallel_norm": True,
            "attention_norm": "attn_norm_2", "feed_forward_norm": "attn_norm",
        },
        {},
        False,
    ),
    "gptneox": (
        HALVES
        | {
            "norm": "layer", "parallel": True, "gate": "none", "activation": "gelu", "parallel_norm": True,
            "rope_size": 4,
        },
        {"rope.dimension_count": 4, "use_parallel_residual": True},
        True,
    ),
    "gptneox-in-turn": (
        HALVES | {"norm": "layer", "gate": "none", "activation": "gelu"}, {"use_parallel_residual": False}, True,
    ),
    "olmo": (
        {"norm": "layer", "norm_weights": False, "query_key_value_limit": 0.5}, {"attention.clamp_kqv": 0.5}, False,
    ),
    "bloom": (
        LINEAR | PLAIN | {"norm": "layer", "embedding_norm": True, "kv_heads": [6] * LAYERS}, {}, True,
    ),
    "mpt": (
        LINEAR | {"norm": "layer", "gate": "none", "activation": "gelu", "query_key_value_limit": 0.5},
        {"attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 0.5},
        False,
    ),
    "mpt-learned": (
        POSITIONS
        | {"norm": "layer", "gate": "none", "activation": "gelu", "query_key_norm": ["width"] * LAYERS},
        {"attention.max_alibi_bias": 0.0},
        True,
    ),
    "jais": (
        LINEAR | {"norm": "layer", "kv_heads": [6] * LAYERS, "attention_scale": 1 / 8, "alibi": 10.0},
        {"attention.max_alibi_bias": 10.0},
        True,
    ),
    "refact": (LINEAR | {"kv_heads": [1] * LAYERS}, {}, False),
    "baichuan": ({}, {}, False),
    "chatglm": ({"gate": "fused", "rope_size": 4}, {"rope.dimension_count": 4}, False),
    "plamo": (HALVES | {"parallel": True}, {}, False),
    "codeshell": (HALVES | PLAIN | {"norm": "layer"}, {}, True),
    "qwen": (HALVES, {"feed_forward_length": 80}, False),
    "hunyuan-dense": (HALVES | {"query_key_norm": ["rotated_head"] * LAYERS}, {}, False),
    "hunyuan-moe": (
        HALVES | EXPERTS
        | {"query_key_norm": ["rotated_head"] * LAYERS, "expert_gating": "softmax", "shared_feed_forward": 28},
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20,
            "expert_shared_feed_forward_length": 28,
        },
        False,
    ),
    "phimoe": (
        HALVES | EXPERTS | {"norm": "layer", "expert_gating": "sparse_mixer", "expert_weights_norm": False},
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20,
            "attention.layer_norm_rms_epsilon": 1e-5,
        },
        True,
    ),
    "dbrx": (
        HALVES | EXPERTS
        | {
            "norm": "layer", "expert_gating": "softmax", "feed_forward_norm": "attn_output_norm",
            "query_key_value_limit": 0.5,
        },
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "attention.clamp_kqv": 0.5,
        },
        False,
    ),
    "deepseek": (
        EXPERTS
        | {
            "expert_gating": "softmax", "expert_weights_norm": False, "shared_feed_forward": 20,
            "expert_weights_scale": 2.5,
        },
        EXPERT_KEYS,
        False,
    ),
    "bailingmoe": (
        EXPERTS
        | {
            "expert_gating": "softmax", "expert_weights_norm": True, "shared_feed_forward": 20,
            "expert_weights_scale": 2.5,
        },
        EXPERT_KEYS | {"expert_weights_norm": True},
        False,
    ),
    "minimax-m2": (
        HALVES | EXPERTS | {"query_key_norm": ["width"] * LAYERS, "rope_size": 4},
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "rope.dimension_count": 4,
            "expert_gating_func": 2,
        },
        False,
    ),
    "exaone-moe": (
        HALVES | HEADS | LOCAL | EXPERTS | {"shared_feed_forward": 20, "expert_weights_scale": 2.5},
        EXPERT_KEYS | {"attention.sliding_window": 9},
        False,
    ),
    "openelm": (HALVES | HEADS, {}, False),
    "pangu-embedded": (HALVES, {}, False),
    "jais2": (HALVES | {"norm": "layer", "gate": "none", "activation": "relu_squared"}, {}, True),
    "olmo2": (
        HALVES
        | {
            "norms": "behind", "query_key_norm": ["width"] * LAYERS, "window": [9, 9, 9, 0],
            "rotation": ["local"] * 3 + ["global"], "rope_scaling": "linear", "rope_factor": 4.0,
        },
        {"attention.sliding_window": 9, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        False,
    ),
    "dots1": (HALVES | HEADS | EXPERTS | {"shared_feed_forward": 20, "expert_weights_scale": 2.5}, EXPERT_KEYS, False),
    "glm4moe": (
        HALVES | HEADS | EXPERTS
        | {"shared_feed_forward": 20, "expert_weights_scale": 2.5, "feed_forward_norm": "post_attention_norm"},
        EXPERT_KEYS,
        False,
    ),
}  # fmt: skip


def expected(name: str) -> Config:
    return replace(BASE, architecture=VARIANTS.get(name, name), **FAMILIES[name][0])


def write(path: Path, name: str, more: dict[str, Any] | None = None) -> Path:
    """A file of the family with random weights."""
    config = expected(name)
    _, keys, biases = FAMILIES[name]
    name = config.architecture
    writer = gguf.GGUFWriter(path, name)
    writer.add_token_list([f"t{index}" for index in range(VOCABULARY)])
    writer.add_tokenizer_model("gpt2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(48)
    writer.add_block_count(LAYERS)
    if "feed_forward_length" not in keys:
        writer.add_feed_forward_length(40)
    writer.add_head_count(6)
    writer.add_head_count_kv(config.kv_heads[0])
    (writer.add_layer_norm_eps if config.norm == "layer" else writer.add_layer_norm_rms_eps)(1e-5)
    for key, value in keys.items():
        add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add.get(type(value), writer.add_string)(f"{name}.{key}", value)
    weights = tensors(config, np.random.default_rng(len(name)), biases, tied=False)
    for tensor, data in {**weights, **(more or {})}.items():
        if "attn_sinks" not in tensor:
            writer.add_tensor(tensor, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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


def test_learned_positions_end_where_they_end(tmp_path: Path) -> None:
    with Model(write(tmp_path / "model.gguf", "gpt2")) as model:
        session = model.session(context=4 * CONTEXT)
        session.forward([1] * CONTEXT, logits="none")
        with pytest.raises((ContextOverflow, ValueError), match="128"):
            session.forward([1])


def test_layers_that_predict_further_tokens_are_left_alone(tmp_path: Path) -> None:
    extra = {"blk.4.nextn.eh_proj.weight": np.zeros((48, 96)), "blk.4.attn_norm.weight": np.zeros(48)}
    plain = write(tmp_path / "plain.gguf", "glm4moe")
    more = write(tmp_path / "more.gguf", "glm4moe", extra)
    tokens = list(range(20))
    with (
        Model(plain) as one,
        Model(more, overrides={"glm4moe.block_count": 5, "glm4moe.nextn_predict_layers": 1}) as two,
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
