"""Checkpoints in Meta's form, in one part or several, are the same tensors under the names of Hugging Face."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import llamacpu
from checkpoint_files import safetensors_bytes
from llamacpu import Checkpoint, CheckpointError
from pickled_files import saved

WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS, VOCABULARY = 32, 4, 2, 48, 2, 40
PARAMETERS = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": KV_HEADS, "norm_eps": 1e-5}
ROWS, COLUMNS, WHOLE = 0, 1, None


def arrays(vocabulary: int = VOCABULARY) -> dict[str, tuple[str, NDArray[np.float16], int | None]]:
    """Meta's name -> Hugging Face's name, the matrix in Meta's order, and the dimension divided among processes."""
    generator = np.random.default_rng(3)
    kv_width = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[str, tuple[int, ...], int | None]] = {
        "tok_embeddings": ("model.embed_tokens", (vocabulary, WIDTH), ROWS),
        "norm": ("model.norm", (WIDTH,), WHOLE),
        "output": ("lm_head", (vocabulary, WIDTH), ROWS),
    }
    for layer in range(LAYERS):
        old, new = f"layers.{layer}", f"model.layers.{layer}"
        shapes |= {
            f"{old}.attention.wq": (f"{new}.self_attn.q_proj", (WIDTH, WIDTH), ROWS),
            f"{old}.attention.wk": (f"{new}.self_attn.k_proj", (kv_width, WIDTH), ROWS),
            f"{old}.attention.wv": (f"{new}.self_attn.v_proj", (kv_width, WIDTH), ROWS),
            f"{old}.attention.wo": (f"{new}.self_attn.o_proj", (WIDTH, WIDTH), COLUMNS),
            f"{old}.feed_forward.w1": (f"{new}.mlp.gate_proj", (HIDDEN, WIDTH), ROWS),
            f"{old}.feed_forward.w2": (f"{new}.mlp.down_proj", (WIDTH, HIDDEN), COLUMNS),
            f"{old}.feed_forward.w3": (f"{new}.mlp.up_proj", (HIDDEN, WIDTH), ROWS),
            f"{old}.attention_norm": (f"{new}.input_layernorm", (WIDTH,), WHOLE),
            f"{old}.ffn_norm": (f"{new}.post_attention_layernorm", (WIDTH,), WHOLE),
        }
    return {
        f"{old}.weight": (f"{new}.weight", generator.standard_normal(shape).astype(np.float16), axis)
        for old, (new, shape, axis) in shapes.items()
    }


def expected(vocabulary: int = VOCABULARY) -> dict[str, NDArray[np.float16]]:
    """What Hugging Face's conversion makes of it."""
    result = {}
    for old, (new, array, _) in arrays(vocabulary).items():
        match = re.search(r"attention\.w([qk])", old)
        if match:
            heads = HEADS if match[1] == "q" else KV_HEADS
            halves = array.reshape(heads, -1, 2, WIDTH)
            array = np.concatenate([halves[:, :, 0], halves[:, :, 1]], axis=1).reshape(array.shape)
        result[new] = array
    return result


def write(
    folder: Path, parts: int, parameters: dict[str, Any] | None = None, vocabulary: int = VOCABULARY, **axes: int
) -> None:
    for part in range(parts):
        divided = {"rope.freqs": np.ones(4, np.float32)}
        for old, (_, array, usual) in arrays(vocabulary).items():
            axis = axes.get(old.split(".")[0], usual)
            divided[old] = array if axis is None else np.split(array, parts, axis)[part].copy()
        (folder / f"consolidated.{part:02}.pth").write_bytes(saved(divided))
    (folder / "params.json").write_text(json.dumps(PARAMETERS if parameters is None else parameters))


def check(checkpoint: Checkpoint) -> None:
    assert checkpoint.tensors.keys() == expected().keys()
    for name, array in expected().items():
        tensor = checkpoint.tensors[name]
        assert (tensor.name, tensor.dtype, tensor.shape) == (name, "F16", array.shape)
        np.testing.assert_array_equal(tensor.read_raw(), array)
        for start in range(0, len(array), 5):
            for stop in (start, start + 1, min(start + 7, len(array))):
                np.testing.assert_array_equal(tensor.rows(start, stop), array[start:stop])


@pytest.mark.parametrize("parts", [1, 2])
def test_parts_are_joined_as_they_were_divided(tmp_path: Path, parts: int) -> None:
    write(tmp_path, parts)
    checkpoint = Checkpoint.open(tmp_path)
    check(checkpoint)
    facts = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": HIDDEN,
        "vocab_size": VOCABULARY,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    }  # fmt: skip
    assert checkpoint.config.items() >= facts.items()
    check(Checkpoint.open(tmp_path / "consolidated.00.pth"))


def test_llama_2_divides_the_width_of_its_embeddings(tmp_path: Path) -> None:
    write(tmp_path, 2, tok_embeddings=COLUMNS)
    check(Checkpoint.open(tmp_path))


def test_the_same_names_in_safetensors(tmp_path: Path) -> None:
    data = safetensors_bytes({old: array for old, (_, array, _) in arrays().items()})
    (tmp_path / "consolidated.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"without params\.json"):
        Checkpoint.open(tmp_path)
    parameters = PARAMETERS | {"head_dim": 8, "hidden_dim": HIDDEN, "vocab_size": VOCABULARY, "sliding_window": 4096}
    (tmp_path / "params.json").write_text(json.dumps(parameters))
    checkpoint = Checkpoint.open(tmp_path)
    check(checkpoint)
    assert checkpoint.config["architectures"] == ["MistralForCausalLM"]
    assert checkpoint.config["sliding_window"] == 4096


def test_rotation_of_later_generations(tmp_path: Path) -> None:
    write(tmp_path, 1, PARAMETERS | {"rope_theta": 500000.0, "use_scaled_rope": True})
    config = Checkpoint.open(tmp_path).config
    assert config["rope_theta"] == 500000.0
    assert config["rope_scaling"] == {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    write(tmp_path, 1, PARAMETERS | {"rope_theta": 1e6})
    assert Checkpoint.open(tmp_path).config["max_position_embeddings"] == 16384
    write(tmp_path, 1, PARAMETERS | {"norm_eps": 1e-6})
    assert Checkpoint.open(tmp_path).config["max_position_embeddings"] == 2048


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"quantization_args": {}}, "'quantization_args' belongs to a kind of model that is not read in this form"),
        ({"moe": {"num_experts": 8}}, "'moe' belongs to a kind of model"),
        ({"n_heads": 0}, "n_heads is 0; expected a positive whole number"),
        ({"n_heads": 3}, "cannot be divided into 3 heads"),
        ({"n_heads": "4"}, "n_heads is '4'"),
        ({"dim": True}, "dim is True"),
        ({"dim": 64}, "does not fit the tensors"),
        ({"n_layers": 3}, "does not fit the tensors: 3 layers"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    write(tmp_path, 1, PARAMETERS | parameters)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Checkpoint.open(tmp_path)


def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 4)
    (tmp_path / "consolidated.02.pth").unlink()
    with pytest.raises(CheckpointError, match=r"'consolidated\.02\.pth' is missing"):
        Checkpoint.open(tmp_path)
    (tmp_path / "consolidated.02.pth").write_bytes(saved({"norm.weight": np.ones(WIDTH, np.float16)}))
    with pytest.raises(CheckpointError, match="is in some parts and not in others"):
        Checkpoint.open(tmp_path)
    write(tmp_path, 2)
    (tmp_path / "consolidated.02.pth").unlink()
    (tmp_path / "consolidated.03.pth").unlink()
    own = {old: array[:, :8].copy() if array.ndim == 2 else array for old, (_, array, _) in arrays().items()}
    (tmp_path / "consolidated.01.pth").write_bytes(saved(own | {"rope.freqs": np.ones(4, np.float32)}))
    with pytest.raises(CheckpointError, match="not the parts of one checkpoint"):
        Checkpoint.open(tmp_path)
    for part in range(2):
        (tmp_path / f"consolidated.{part:02}.pth").write_bytes(
            saved({"text_model.norm.weight": np.ones(3, np.float32)})
        )
    with pytest.raises(CheckpointError, match="2 parts of a model whose structure is not known"):
        Checkpoint.open(tmp_path)
    more = {old: array for old, (_, array, _) in arrays().items()} | {"vision.weight": np.ones(3, np.float32)}
    (tmp_path / "consolidated.01.pth").unlink()
    (tmp_path / "consolidated.00.pth").write_bytes(saved(more))
    with pytest.raises(CheckpointError, match=r"'vision\.weight' does not belong to a text model"):
        Checkpoint.open(tmp_path)


WORDS = [b"th", b"the", b" the", b"in", b" a", b"ing", b" th", b"hat"]


def write_ranks(folder: Path, tokens: list[bytes]) -> None:
    lines = [base64.b64encode(token) + b" " + str(rank).encode() for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_bytes(b"\n".join(lines) + b"\n")


def every_byte() -> list[bytes]:
    """The bytes in the order of Meta's file: those that can be printed first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [bytes([byte]) for byte in printable + [byte for byte in range(256) if byte not in printable]]


@pytest.mark.parametrize("scaled", [False, True])
def test_they_are_converted_with_their_tokenizer(tmp_path: Path, scaled: bool) -> None:
    folder = tmp_path / "Llama-3-Tiny"
    folder.mkdir()
    vocabulary = 256 + len(WORDS) + 256
    write(folder, 2, PARAMETERS | {"rope_theta": 5e5, "use_scaled_rope": scaled}, vocabulary=vocabulary)
    write_ranks(folder, every_byte() + WORDS)
    path = llamacpu.convert(folder, tmp_path / "out.gguf", type="f16")
    with llamacpu.GGUFFile(path) as file:
        tokens = list(file.metadata["tokenizer.ggml.tokens"])
        first = 256 + len(WORDS)
        assert tokens[first : first + 5] == [
            "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>" if scaled else "<|reserved_special_token_2|>",
        ]  # fmt: skip
        assert tokens[first + 9] == "<|eot_id|>"
        assert tokens[-1] == f"<|reserved_special_token_{247 if scaled else 250}|>"
        assert list(file.metadata["tokenizer.ggml.merges"])[:3] == ["t h", "th e", "\u0120 the"]
        stored = {tensor.name: tensor for tensor in file.tensors}
        assert ("rope_freqs.weight" in stored) == scaled
        # GGUF has Meta's order of rows again.
        for old, name in (("attention.wq", "attn_q"), ("attention.wk", "attn_k"), ("feed_forward.w2", "ffn_down")):
            tensor = stored[f"blk.1.{name}.weight"]
            array = arrays(vocabulary)[f"layers.1.{old}.weight"][1]
            assert file.tensor_bytes(tensor, 0, tensor.nbytes) == array.tobytes()
        from llamacpu.text.tokenizer import Tokenizer

        tokenizer = Tokenizer(file)
        assert tokenizer.decode(tokenizer.encode("the thing in a hat", add_special=False)) == "the thing in a hat"


@pytest.mark.parametrize("change", ["fewer", "order", "text", "byte"])
def test_damaged_ranks_are_refused(tmp_path: Path, change: str) -> None:
    write(tmp_path, 1, vocabulary=256 + len(WORDS) + 256)
    tokens = every_byte() + WORDS
    write_ranks(
        tmp_path, tokens[:-1] if change == "fewer" else tokens[:100] + tokens[101:] if change == "byte" else tokens
    )
    path = tmp_path / "tokenizer.model"
    if change == "order":
        path.write_bytes(path.read_bytes().replace(b" 7\n", b" 8\n"))
    if change == "text":
        path.write_bytes(path.read_bytes().replace(b" 7\n", b"? 7\n"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        llamacpu.convert(tmp_path, tmp_path / "out.gguf")
