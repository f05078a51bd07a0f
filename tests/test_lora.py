"""LoRA adapters and control vectors: against reference outputs and exact arithmetic, in any batch, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llamacpu
from config_models import open_config_model, tensors, write_config_model
from llamacpu import Model
from llamacpu.families.config import Config
from lora_files import EMBEDDING, AdaptedReference, random_pairs, write_adapter
from reference_model import is_exact
from test_golden_families import error
from test_random_families import configurations
from thorough import examples

pytestmark = pytest.mark.instruction_set

GOLDEN = {
    "logits": [],
    "logits_all_1": [("lora-all", 1.0)],
    "logits_all_half": [("lora-all", 0.5)],
    "logits_qv_1": [("lora-qv", 1.0)],
    "logits_embed_1": [("lora-embed", 1.0)],
    "logits_all_half_qv_1": [("lora-all", 0.5), ("lora-qv", 1.0)],
}
CHANGED = (
    *("token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_a", "attn_q_b", "attn_kv_a_mqa"),
    *("attn_k_b", "attn_v_b", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps"),
    *("ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "ffn_gate_inp_shexp", "ffn_gate_up_exps"),
)
"""The matrices of the random models."""


@pytest.fixture
def families(golden: Path) -> Path:
    folder = golden / "families"
    if not (folder / "lora-base.gguf").is_file():
        pytest.skip(f"no lora-base.gguf in {folder}")
    return folder


@pytest.fixture
def reference(families: Path) -> dict[str, Any]:
    return dict(np.load(families / "lora.npz"))


def lora_of(folder: Path, name: str) -> list[tuple[Path, float]]:
    return [(folder / f"{file}.gguf", scale) for file, scale in GOLDEN[name]]


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_with_published_adapters(families: Path, reference: dict[str, Any], name: str) -> None:
    tokens = reference["tokens"].tolist()
    with Model(families / "lora-base.gguf", threads=2) as model:
        session = model.session(kv_type="f32", lora=lora_of(families, name))
        assert error(session.forward(tokens, logits="all"), reference[name]) < 1e-9
        exact = AdaptedReference(families / "lora-base.gguf", dict(model.config), lora_of(families, name))
        assert error(reference[name], exact.logits(tokens)) < 1e-9  # the oracle of the tests below
    # The same as the default of the model's sessions; a scale of 0 is the base.
    with Model(families / "lora-base.gguf", threads=1, lora=lora_of(families, name)) as model:
        again = model.session(kv_type="f32")
        assert np.array_equal(again.forward(tokens, logits="all"), session_rows(model, families, name, tokens))
        none = [(path, 0.0) for path, _ in lora_of(families, name)]
        for lora in (none, []):
            base = model.session(kv_type="f32", lora=lora).forward(tokens, logits="all")
            assert error(base, reference["logits"]) < 1e-9


def session_rows(model: Model, families: Path, name: str, tokens: list[int]) -> Any:
    return model.session(kv_type="f32", lora=lora_of(families, name)).forward(tokens, logits="all")


def test_chosen_tokens(families: Path, reference: dict[str, Any]) -> None:
    with Model(families / "lora-base.gguf", threads=1, lora=families / "lora-all.gguf") as model:
        session = model.session(kv_type="f32")
        row = session.forward(reference["tokens"].tolist())
        for token in reference["greedy_all_1"].tolist():
            assert int(row.argmax()) == token
            row = session.forward([token])


@pytest.mark.parametrize(
    ("name", "strength", "layers"), [("logits_cvec_1", 1.0, None), ("logits_cvec_range", -0.5, (2, 2))]
)
def test_control_vectors(
    families: Path, reference: dict[str, Any], name: str, strength: float, layers: tuple[int, int] | None
) -> None:
    tokens = reference["tokens"].tolist()
    vectors = [(families / "control-vector.gguf", strength, layers)]
    with Model(families / "lora-base.gguf", threads=1) as model:
        session = model.session(kv_type="f32", control_vectors=vectors)
        whole = session.forward(tokens, logits="all")
        assert error(whole, reference[name]) < 1e-9
        split, base = model.session(kv_type="f32", control_vectors=vectors), model.session(kv_type="f32")
        split.forward(tokens[:20], logits="none")
        rows = model.step([(base, tokens[:9]), (split, tokens[20:])], logits="all")
        assert np.array_equal(rows[1], whole[20:])
        assert np.array_equal(rows[0], model.session(kv_type="f32").forward(tokens[:9], logits="all"))
        # Half twice is the whole: several vectors add up.
        halves = [(families / "control-vector.gguf", strength / 2, layers)] * 2
        assert np.array_equal(model.session(kv_type="f32", control_vectors=halves).forward(tokens, logits="all"), whole)


def test_no_bit_depends_on_the_way(families: Path, reference: dict[str, Any], tmp_path: Path) -> None:
    """Threads, splits, batches of different adapters, forks, truncation and saved sessions."""
    tokens = reference["tokens"].tolist()
    adapters = list(GOLDEN)
    with Model(families / "lora-base.gguf", threads=1) as model:
        whole = {name: model.session(lora=lora_of(families, name)).forward(tokens, logits="all") for name in adapters}
    with Model(families / "lora-base.gguf", threads=3) as model:
        sessions = {name: model.session(lora=lora_of(families, name)) for name in adapters}
        position = 0
        for count in (1, 1, 30, 1, 20):
            step = [(session, tokens[position : position + count]) for session in sessions.values()]
            for name, rows in zip(adapters, model.step(step, logits="all"), strict=True):
                assert np.array_equal(rows, whole[name][position : position + count]), (name, position)
            position += count
        rest = [(session, tokens[position:]) for session in sessions.values()]
        for name, row in zip(adapters, model.step(rest), strict=True):
            assert np.array_equal(row, whole[name][-1])

        session = sessions["logits_all_half_qv_1"]
        fork = session.fork()
        fork.truncate(40)
        assert np.array_equal(fork.forward(tokens[40:], logits="all"), whole["logits_all_half_qv_1"][40:])
        session.save(tmp_path / "session")
        lora = lora_of(families, "logits_all_half_qv_1")
        restored = model.load_session(tmp_path / "session", lora=lora)
        assert np.array_equal(restored.forward(tokens[:5]), session.forward(tokens[:5]))
        for others in ([], lora[:1], lora[::-1], [(path, 2 * scale) for path, scale in lora]):
            with pytest.raises(llamacpu.SessionError, match="LoRA"):
                model.load_session(tmp_path / "session", lora=others)
        sessions["logits"].save(tmp_path / "base")
        with pytest.raises(llamacpu.SessionError, match="without LoRA"):
            model.load_session(tmp_path / "base", lora=lora)
        model.load_session(tmp_path / "base")


def test_other_adapters_in_the_middle(families: Path, reference: dict[str, Any]) -> None:
    tokens = reference["tokens"].tolist()
    with Model(families / "lora-base.gguf", threads=2) as model:
        session = model.session(lora=families / "lora-all.gguf")
        session.forward(tokens[:50], logits="none")
        vectors = [families / "control-vector.gguf"]
        for lora in ([families / "lora-qv.gguf"], [], [(families / "lora-all.gguf", 0.25)]):
            session.set_adapters(lora, vectors)
            assert session.tokens == tokens[:50]
            expected = model.session(lora=lora, control_vectors=vectors).forward(tokens, logits="all")
            assert np.array_equal(session.forward(tokens[50:], logits="all"), expected[50:])
            session.truncate(50)
        key = session.adapters.key
        with pytest.raises(llamacpu.GGUFError):
            session.set_adapters([families / "missing.gguf"])
        assert session.adapters.key == key
        assert session.tokens == tokens[:50]


@settings(max_examples=examples(60))
@given(
    config=configurations(), seed=st.integers(0, 2**32 - 1), biases=st.booleans(), tied=st.booleans(), data=st.data()
)
def test_any_configuration_against_exact_arithmetic(
    tmp_path_factory: pytest.TempPathFactory, config: Config, seed: int, biases: bool, tied: bool, data: st.DataObject
) -> None:
    """All matrices of any architecture; batches of sessions with different adapters are the same to the last bit."""
    folder = tmp_path_factory.mktemp("lora")
    random = np.random.default_rng(seed)
    path = write_config_model(folder / "model.gguf", config, seed, biases, tied)
    shapes = {
        name: tensor.shape
        for name, tensor in tensors(config, np.random.default_rng(seed), biases, tied).items()
        if name.removesuffix(".weight").split(".")[-1] in CHANGED and name.endswith(".weight")
    }
    assert shapes
    if tied:
        shapes["output.weight"] = shapes[EMBEDDING]
    some = {name: shape for name, shape in shapes.items() if data.draw(st.booleans())} or shapes
    ranks = data.draw(st.sampled_from([(1,), (4, 5), (16,), (33,)]))
    first = write_adapter(folder / "a.gguf", random_pairs(shapes, random, ranks, 0.3), architecture="test", alpha=8.0)
    second = write_adapter(
        folder / "b.gguf", random_pairs(some, random, (32,), 0.3), architecture="test", alpha=None,
        type_name=data.draw(st.sampled_from(["F32", "F16", "BF16", "Q8_0"])),
    )  # fmt: skip
    choices = [[(first, 0.75)], [(second, -0.5)], [(first, 0.5), (second, 1.0)], []]
    tokens = random.integers(0, config.vocab_size, 40).tolist()
    with open_config_model(path, config, data.draw(st.integers(1, 2))) as model:
        whole = [model.session(kv_type="f32", lora=lora).forward(tokens, logits="all") for lora in choices]
        sessions = [model.session(kv_type="f32", lora=lora) for lora in choices]
        split = data.draw(st.integers(1, 39))
        for start, end in ((0, split), (split, 40)):
            order = data.draw(st.permutations(range(len(choices))))
            rows = model.step([(sessions[index], tokens[start:end]) for index in order], logits="all")
            for index, got in zip(order, rows, strict=True):
                assert np.array_equal(got, whole[index][start:end])
    assert is_exact(whole[2], AdaptedReference(path, config, choices[2]), tokens)


def pairs_of(families: Path) -> dict[str, tuple[Any, Any]]:
    random = np.random.default_rng(1)
    return random_pairs({"blk.1.attn_q.weight": (64, 64), "blk.0.ffn_down.weight": (64, 128)}, random)


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, "architecture 'qwen2', the model is 'llama'"),
        ({"more": {"adapter.type": "ia3"}}, "adapter.type is 'ia3'"),
        ({"more": {"general.type": "model"}}, "general.type is 'model'"),
        ({"alpha": float("nan")}, "adapter.lora.alpha is nan"),
        ({"more": {"adapter.lora.alpha": "8"}}, "adapter.lora.alpha is '8'"),
        ({"more": {"adapter.alora.invocation_tokens": [5, 99999]}}, "invocation_tokens"),
        ({"drop": "blk.1.attn_q.weight.lora_b"}, "'blk.1.attn_q.weight.lora_b' is missing"),
        ({"rename": ("blk.1.attn_q", "blk.9.attn_q")}, "'blk.9.attn_q.weight', which lora-base.gguf does not have"),
        ({"rename": ("blk.1.attn_q.weight", "blk.1.attn_norm.weight")}, "do not fit to 'blk.1.attn_norm.weight'"),
        ({"rename": (".lora_a", ".lora_c")}, "no part of a LoRA adapter"),
        ({"swap": "blk.1.attn_q.weight"}, "do not fit to 'blk.1.attn_q.weight'"),
        ({"empty": True}, "changes nothing"),
    ],
)
def test_refused_in_words(families: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    pairs: dict[str, tuple[Any, Any]] = {} if changes.get("empty") else pairs_of(families)
    if "swap" in changes:
        a, b = pairs[changes["swap"]]
        pairs[changes["swap"]] = (b, a)
    path = tmp_path / "adapter.gguf"
    known = {key: value for key, value in changes.items() if key in ("architecture", "alpha")}
    write_adapter(path, pairs, **known)
    _rewrite(path, changes)
    with Model(families / "lora-base.gguf", threads=1) as model:
        with pytest.raises(llamacpu.ModelError, match=message):
            model.session(lora=[path])
        assert model.session().forward([1, 2]).shape == (model.vocab_size,)


def _rewrite(path: Path, changes: dict[str, Any]) -> None:
    """Writes the file again with other keys and names of tensors."""
    reader = gguf.GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    keys |= changes.get("more", {})
    writer = gguf.GGUFWriter(path.with_suffix(".new"), keys.pop("general.architecture"))
    for key, value in keys.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_float32(key, value)
    old, new = changes.get("rename", ("", ""))
    for tensor in reader.tensors:
        if tensor.name != changes.get("drop"):
            writer.add_tensor(tensor.name.replace(old, new), np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)


@pytest.mark.instruction_set(one_in=None)
def test_files_that_are_something_else(families: Path, tmp_path: Path) -> None:
    whole = (families / "lora-all.gguf").read_bytes()
    (tmp_path / "short.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.gguf").write_text("no adapter")
    with Model(families / "lora-base.gguf", threads=1) as model:
        for path, kind, message in [
            (tmp_path / "short.gguf", llamacpu.GGUFError, "download did not finish"),
            (tmp_path / "text.gguf", llamacpu.GGUFError, "not a GGUF file"),
            (tmp_path, llamacpu.GGUFError, "folder"),
            (families / "lora-base.gguf", llamacpu.ModelError, "general.type"),
            (families / "control-vector.gguf", llamacpu.ModelError, "control vector"),
        ]:
            with pytest.raises(kind, match=message):
                model.session(lora=[path])
        for path in (families / "lora-all.gguf", families / "lora-base.gguf"):
            with pytest.raises(llamacpu.ModelError, match="controlvector"):
                model.session(control_vectors=[path])
        other = Model(families / "lora-base.gguf", threads=1)
        with pytest.raises(ValueError, match="another model"):
            model.session(lora=[other.adapter(families / "lora-qv.gguf")])
        for wrong, kind in [
            ([("a.gguf", "1")], TypeError),
            ([("a.gguf", 1.0, 2)], TypeError),
            (5, TypeError),
            ([(families / "lora-qv.gguf", float("inf"))], ValueError),
        ]:
            with pytest.raises(kind):
                model.session(lora=wrong)  # type: ignore[arg-type]


def test_activated_adapters(families: Path, tmp_path: Path) -> None:
    """From the last invocation on, whatever the steps."""
    invocation = [7, 8, 9]
    path = write_adapter(
        tmp_path / "activated.gguf", pairs_of(families), more={"adapter.alora.invocation_tokens": invocation}
    )
    plain = write_adapter(tmp_path / "plain.gguf", pairs_of(families))
    random = np.random.default_rng(5)
    before, middle, after = ([int(t) for t in random.integers(20, 300, count)] for count in (30, 11, 20))
    tokens = [*before, *invocation, *middle, *invocation, *after]
    start = len(before) + 3 + len(middle)
    with Model(families / "lora-base.gguf", threads=1) as model:
        base = model.session(kv_type="f32")
        expected = base.forward(tokens[:start], logits="all")
        # The rest goes through the adapter, behind keys and values that did not.
        base._native.set_adapters([(model.adapter(plain)._native, 1.0, start)])
        expected = np.concatenate([expected, base.forward(tokens[start:], logits="all")])

        def activated() -> Any:
            return model.session(kv_type="f32", lora=[path])

        assert np.array_equal(activated().forward(tokens, logits="all"), expected)
        assert model.adapter(path).invocation_tokens == (7, 8, 9)
        for split in (1, 20, 31, 32, 33, 40, start, start + 1, start + 2, start + 3, len(tokens) - 1):
            session = activated()
            session.forward(tokens[:split], logits="none")
            rows = session.forward(tokens[split:], logits="all")
            assert np.array_equal(rows, expected[split:]), split
        session = activated()
        assert np.array_equal(np.stack([session.forward([token]) for token in tokens])[-10:], expected[-10:])
        # Without an invocation nothing changes; and without it again after truncation.
        nothing = model.session(kv_type="f32").forward(before, logits="all")
        assert np.array_equal(activated().forward(before, logits="all"), nothing)
        session.truncate(len(before) + 1)
        other = model.session(kv_type="f32").forward([*before, 7, *after], logits="all")
        assert np.array_equal(session.forward(after, logits="all"), other[len(before) + 1 :])
        # Saved and restored.
        session = activated()
        session.forward(tokens[: start + 5], logits="none")
        session.save(tmp_path / "saved")
        restored = model.load_session(tmp_path / "saved", lora=[path])
        assert np.array_equal(restored.forward(tokens[start + 5 :], logits="all"), expected[start + 5 :])
