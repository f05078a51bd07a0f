"""DeepSeek V4: from the metadata of a file to exact arithmetic, and sessions that end in the middle of windows."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepseek4_files import CHOSEN, CONTEXT, FAR, LOCAL, SMALL, VOCABULARY, config, tensors, write
from llamacpu import Cancelled, CancelToken, Engine, GGUFError, Model, ModelError, Sampling, SessionError
from llamacpu.families.memory import kv_bytes
from llamacpu.families.registry import config_for
from llamacpu.generation import generate
from llamacpu.gguf.file import GGUFFile
from reference_deepseek4 import ReferenceDeepseek4
from reference_model import is_exact

pytestmark = pytest.mark.instruction_set

CONFIG = config()
TOKENS = 300
"""More than two of the largest windows, and what is left of a third."""
KINDS = {
    "windows alone": (LOCAL, LOCAL),
    "chosen": (CHOSEN, CHOSEN),
    "far": (FAR, FAR),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("deepseek4") / "model.gguf", CONFIG, seed=3)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    return np.random.default_rng(5).integers(0, VOCABULARY, TOKENS).tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(model: Model, tokens: list[int]) -> Any:
    """The logits of all tokens, from one step."""
    return model.session().forward(tokens, logits="all")


@pytest.mark.instruction_set(one_in=None)
def test_what_the_file_says(path: Path) -> None:
    with GGUFFile(path) as file:
        found = config_for(file)
    different = {key: value for key, value in found.items() if value != CONFIG[key]}
    # Numbers that the file has in 32 bits.
    assert different.pop("ignored_tensors") == [f"blk.{layer}.exp_probs_b_vl." for layer in range(4)]
    assert different.keys() == {"norm_epsilon", "stream_epsilon"}
    assert np.allclose(list(different.values()), 1e-6)


@pytest.mark.instruction_set(one_in=2)
def test_logits_against_exact_arithmetic(path: Path, model: Model, tokens: list[int]) -> None:
    reference = ReferenceDeepseek4(path, CONFIG)
    got = model.session(kv_type="f32").forward(tokens, logits="all")
    assert is_exact(got, reference, tokens)
    # Chosen windows whose scores are that close could change places.
    assert reference.margin > 1e-5


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 4, 5, 13, 128, 131])
def test_layers_of_one_kind(tmp_path: Path, kind: str, count: int) -> None:
    """Around the ends of windows and of compressed ones."""
    own = config(KINDS[kind], hashed_layers=count % 3)
    if not any(own.indexer):
        own = config(KINDS[kind], hashed_layers=count % 3, indexer=[], indexer_heads=0, indexer_size=0, indexer_top=0)
    file = write(tmp_path / "model.gguf", own, seed=count)
    tokens = np.random.default_rng(count).integers(0, VOCABULARY, count).tolist()
    reference = ReferenceDeepseek4(file, own)
    with Model(file, threads=2) as model:
        got = model.session(kv_type="f32").forward(tokens, logits="all")
    assert is_exact(got, reference, tokens) or reference.margin < 1e-5


def test_the_likeliest_token_is_that_of_exact_arithmetic(path: Path, model: Model, tokens: list[int]) -> None:
    prompt = tokens[:120]
    made = generate(model, prompt, sampling=Sampling(temperature=0), draft=None, ignore_end=True, max_tokens=16)
    answer = list(made.read().tokens)
    exact = ReferenceDeepseek4(path, CONFIG).logits([*prompt, *answer])[len(prompt) - 1 : -1]
    assert exact.argmax(axis=1).tolist() == answer


@pytest.mark.instruction_set(one_in=4)
def test_token_by_token(path: Path, tokens: list[int], whole: Any) -> None:
    with Model(path, threads=1) as model:
        session = model.session()
        rows = [session.forward([token]) for token in tokens[:140]]
    assert np.array_equal(np.stack(rows), whole[:140])


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("seed", range(3))
def test_any_way_there_and_back(model: Model, tokens: list[int], whole: Any, seed: int, tmp_path: Path) -> None:
    """Steps of any size, truncation to anywhere, forks, and sessions that were saved and loaded."""
    dice = random.Random(seed)
    sessions = [model.session()]
    for _ in range(40):
        place = dice.randrange(len(sessions))
        session = sessions[place]
        position = session.position
        way = dice.random()
        if way < 0.6:
            end = min(position + dice.choice([1, 1, 2, 3, 5, 17, 64, 120]), TOKENS)
            if end > position:
                got = session.forward(tokens[position:end], logits="all")
                assert np.array_equal(got, whole[position:end])
        elif way < 0.85:
            session.truncate(max(0, position - dice.choice([1, 2, 3, 4, 5, 31, 64, 150])))
        elif way < 0.93:
            sessions.append(session.fork())
        else:
            session.save(tmp_path / "session")
            sessions[place] = model.load_session(tmp_path / "session")
    step = [(session, tokens[session.position : session.position + 5]) for session in sessions]
    step = [(session, given) for session, given in step if given]
    starts = [session.position for session, _ in step]
    for start, got in zip(starts, model.step(step, logits="all"), strict=True):
        assert np.array_equal(got, whole[start : start + len(got)])


def test_drafts_that_are_rejected_leave_no_trace(model: Model, tokens: list[int], whole: Any) -> None:
    """A few tokens on, and back, over the ends of windows."""
    session = model.session()
    session.forward(tokens[:118], logits="none")
    for position in range(118, 140):
        wrong = [(token + 1) % VOCABULARY for token in tokens[position : position + 6]]
        session.forward([tokens[position], *wrong], logits="none")
        assert session.resume_point(position) == position
        session.truncate(position)
        assert np.array_equal(session.forward([tokens[position]]), whole[position])


def test_a_step_that_is_stopped_leaves_the_session_as_it_was(model: Model, tokens: list[int], whole: Any) -> None:
    session = model.session()
    session.forward(tokens[:130], logits="none")
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        session.forward(tokens[130:], logits="none", cancel=token)
    assert session.position == 130
    assert np.array_equal(session.forward(tokens[130:], logits="all"), whole[130:])


@pytest.mark.instruction_set(one_in=None)
def test_requests_share_the_beginning_of_a_prompt(model: Model, tokens: list[int]) -> None:
    settings: dict[str, Any] = {
        "sampling": Sampling(temperature=0), "draft": None, "ignore_end": True, "max_tokens": 8,
    }  # fmt: skip
    prompts = [tokens[:150], [*tokens[:133], 7, 9], [*tokens[:130], 1]]
    with Engine(model) as engine:
        answers = [engine.submit(prompt, **settings).read(60) for prompt in prompts]
    assert [answer.result.tokens for answer in answers] == [
        generate(model, prompt, **settings).read().tokens for prompt in prompts
    ]
    assert all(answer.result.cached_tokens >= 100 for answer in answers[1:])


@pytest.mark.instruction_set(one_in=None)
def test_memory_is_bounded_and_told(model: Model, tokens: list[int]) -> None:
    session = model.session()
    for start in range(0, TOKENS, 50):
        session.forward(tokens[start : start + 50], logits="none")
        assert session.nbytes <= model._native.kv_bytes("f16", session.position)
    page = 64
    assert kv_bytes(CONFIG, page, 2) <= model.page_bytes("f16")
    # A window of a thousand times as many tokens costs no more; what is compressed does.
    long, longer = (kv_bytes(CONFIG, count, 2) for count in (1 << 16, 1 << 17))
    size, index = CONFIG.key_size * 2, CONFIG.indexer_size * 4
    assert longer - long == (1 << 16) // 4 * 2 * (size + index) + (1 << 16) // 128 * size


@pytest.mark.instruction_set(one_in=None)
def test_saved_states(model: Model, tokens: list[int], tmp_path: Path) -> None:
    session = model.session()
    file = tmp_path / "session"
    session.forward(tokens[:70], logits="none")
    session.save(file)
    data = file.read_bytes()
    for damaged in (data[:-5], data[: len(data) // 2], data + b"\0"):
        file.write_bytes(damaged)
        with pytest.raises(SessionError):
            model.load_session(file)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "kv heads": ({"attention.head_count_kv": 2}, "expected 1: heads share a row"),
    "values": ({"attention.value_length": 20}, "one row is key and value"),
    "groups": ({"attention.output_group_count": 3}, "expected a divisor of the heads"),
    "no groups": ({"attention.output_group_count": None}, "output_group_count"),
    "no window": ({"attention.sliding_window": 0}, "sliding_window is 0"),
    "other ratios": ({"attention.compress_ratios": [0, 4, 16, 4]}, "has 16; this version runs 0, 4 and 128"),
    "few ratios": ({"attention.compress_ratios": [0, 4]}, "a number for each of 4 layers"),
    "no ratios": ({"attention.compress_ratios": None}, "compress_ratios is None"),
    "small indexer": ({"attention.indexer.key_length": 4}, "expected at least deepseek4.rope.dimension_count, 8"),
    "no indexer": ({"attention.indexer.top_k": None}, "indexer.top_k"),
    "linear": ({"rope.scaling.type": "linear"}, "expected none or yarn"),
    "no base": ({"attention.compress_rope_freq_base": None}, "compress_rope_freq_base"),
    "a base of 1": ({"attention.compress_rope_freq_base": 1.0}, "expected more than 1 with YaRN"),
    "sigmoid": ({"expert_gating_func": 2}, "expected 4, the root of softplus"),
    "no gating": ({"expert_gating_func": None}, "expected 4, the root of softplus"),
    "no experts": ({"expert_count": 0}, "which every layer of this family has"),
    "many hashed": ({"hash_layer_count": 5}, "hash_layer_count"),
    "limits": ({"swiglu_clamp_exp": [1.5, 1.5, 2.0, 1.5]}, "one limit for all"),
    "other limits": ({"swiglu_clamp_shexp": [2.0] * 4}, "one limit for all"),
    "few limits": ({"swiglu_clamp_exp": [1.5]}, "a number for each of 4 layers"),
    "no limits": ({"swiglu_clamp_exp": None, "swiglu_clamp_shexp": None}, "swiglu_clamp_exp"),
    "negative limit": ({"swiglu_clamp_exp": [-1.0] * 4, "swiglu_clamp_shexp": None}, "0 \\(no limit\\) or more"),
    "no streams": ({"hyper_connection.count": None}, "hyper_connection.count"),
    "many streams": ({"hyper_connection.count": 17}, "hyper_connection.count"),
    "no iterations": ({"hyper_connection.sinkhorn_iterations": 0}, "sinkhorn_iterations"),
}  # fmt: skip


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize("name", CHANGES)
def test_keys_that_are_refused(tmp_path: Path, name: str) -> None:
    changes, words = CHANGES[name]
    with GGUFFile(write(tmp_path / "model.gguf", CONFIG, changes=changes)) as file, pytest.raises(ModelError) as told:
        config_for(file)
    assert re.search(words, str(told.value))


@pytest.mark.instruction_set(one_in=None)
def test_keys_that_may_differ(tmp_path: Path) -> None:
    """An entry for the layer that predicts, limits in one number or none, no scaling."""
    changes = {
        "attention.compress_ratios": [*SMALL, 0], "swiglu_clamp_exp": 0.0, "swiglu_clamp_shexp": None,
        "rope.scaling.type": None, "rope.scaling.factor": None,
    }  # fmt: skip
    with GGUFFile(write(tmp_path / "model.gguf", CONFIG, changes=changes)) as file:
        found = config_for(file)
    assert (found.compression, found.activation, found.activation_limit) == (list(SMALL), "silu", 0.0)
    assert (found.rope_scaling, found.yarn_log_multiplier, found.rope_base) == ("none", 0.0, 1000.0)


@pytest.mark.instruction_set(one_in=None)
def test_tensors_that_are_refused(tmp_path: Path) -> None:
    table = tensors(CONFIG, np.random.default_rng(0))["blk.0.ffn_gate_tid2eid.weight"]
    wrong, negative = table.copy(), table.copy()
    wrong[7, 1], negative[9, 0] = CONFIG.experts, -1
    cases: dict[str, Any] = {
        "blk.0.ffn_gate_tid2eid.weight": [None, wrong, negative, table[:, :1], table[:-1]],
        "blk.3.exp_probs_b.bias": [None],
        "blk.1.attn_compressor_ape.weight": [None, np.zeros((4, 24))],
        "blk.2.attn_compressor_kv.weight": [None, np.zeros((48, 48))],
        "blk.1.indexer.proj.weight": [None],
        "blk.1.indexer_compressor_norm.weight": [None],
        "blk.0.attn_sinks.weight": [None, np.zeros(3)],
        "blk.0.attn_output_a.weight": [None, np.zeros((12, 48))],
        "blk.0.hc_attn_fn.weight": [None, np.zeros((20, 192))],
        "blk.0.hc_ffn_scale.weight": [None, np.zeros(2)],
        "output_hc_base.weight": [None],
    }
    for name, values in cases.items():
        for value in values:
            file = write(tmp_path / "model.gguf", CONFIG, values={name: value})
            with pytest.raises((ModelError, GGUFError), match=name.replace(".", r"\.")):
                Model(file).close()


@pytest.mark.instruction_set(one_in=None)
def test_what_text_does_not_need_is_left_alone(tmp_path: Path, path: Path, tokens: list[int]) -> None:
    """The layer that predicts further tokens, and the router's numbers for pictures."""
    extra = {
        "blk.4.nextn.eh_proj.weight": np.zeros((48, 96)), "blk.4.attn_norm.weight": np.zeros(48),
        "blk.3.exp_probs_b_vl.bias": np.zeros(6),
    }  # fmt: skip
    changes = {"block_count": 5, "nextn_predict_layers": 1, "attention.compress_ratios": [*SMALL, 0]}
    for key in ("swiglu_clamp_exp", "swiglu_clamp_shexp"):
        changes[key] = [CONFIG.activation_limit] * 5
    more = write(tmp_path / "more.gguf", CONFIG, 3, changes, extra)
    with Model(path) as one, Model(more) as two:
        assert np.array_equal(one.session().forward(tokens[:20]), two.session().forward(tokens[:20]))


@pytest.mark.instruction_set(one_in=None)
def test_contexts_end(model: Model, tokens: list[int]) -> None:
    session = model.session(context=130)
    session.forward(tokens[:130], logits="none")
    with pytest.raises(ValueError, match="130"):
        session.forward([1])
    assert model.config.context_length == CONTEXT
