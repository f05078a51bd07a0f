"""Gemma 4's assistant against float64 arithmetic; what it sees, in every kind of cache, and who does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

import further_families
from assistant_files import ASSISTANT, LENT, OWN, ReferenceAssistant, write_assistant
from drafter_files import VOCABULARY, WIDTH
from llamacpu import LearnedDraft, Llama, Model, Sampling
from llamacpu.cli.group import command_line
from llamacpu.engine.drafter import EngineDrafter
from llamacpu.errors import LlamaCpuError, ModelError
from reference_model import ReferenceModel

TOKENS = np.random.default_rng(3).integers(0, VOCABULARY, 90).tolist()
PLACES = [1, 9, 10, 11, 64, 75, 90]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return further_families.write(tmp_path_factory.mktemp("model") / "model.gguf", "gemma4")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def drafter(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineDrafter]:
    drafter = EngineDrafter(write_assistant(tmp_path_factory.mktemp("drafter") / "drafter.gguf"), model)
    yield drafter
    drafter.close()


def nmse(got: Any, exact: Any) -> float:
    return float(((got - exact) ** 2).sum() / (exact**2).sum())


def three(drafter: EngineDrafter, session: Any, token: int, state: Any) -> list[Any]:
    """Logits and states of three tokens in turn, the same one each time."""
    lender, found = session.lend(), []
    assert drafter.can_borrow(lender)
    for _ in range(3):
        result = drafter.continued(lender, token, state)
        assert result is not None
        found += result
        state = result[1]
    return found


@pytest.mark.instruction_set
@pytest.mark.parametrize("count", PLACES)
def test_against_exact_arithmetic(path: Path, model: Model, drafter: EngineDrafter, count: int) -> None:
    assert drafter.places == (further_families.LAYERS,)
    assert drafter.plan.config.lent_layers == LENT
    session = model.session(kv_type="f32")
    [out] = model.step_hidden([(session, TOKENS[:count])], drafter.places)
    reference = ReferenceModel(path, further_families.expected("gemma4"))
    exact = reference.hidden(TOKENS[:count])[-1][-1]
    assistant = ReferenceAssistant(drafter.path, ASSISTANT, [reference.kept[layer] for layer in LENT])
    embedding = reference.matrix("token_embd.weight")[7] * WIDTH**0.5
    got = three(drafter, session, 7, out.hidden[0, -1])
    for step in range(3):
        logits, exact = assistant.continued(embedding, exact)
        assert nmse(got[2 * step], logits) < 1e-9
        assert nmse(got[2 * step + 1], exact) < 1e-9


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
def test_nothing_but_the_text_matters(model: Model, drafter: EngineDrafter, kv_type: Any) -> None:
    """Forks, rewound and loaded sessions, and texts read in pieces lend the same bits; the lender does not change."""
    state = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    sessions = []
    for pieces in ([90], [1, 30, 50, 9]):
        session, start = model.session(kv_type=kv_type), 0
        for count in pieces:
            session.forward(TOKENS[start : start + count])
            start += count
        sessions.append(session)
    rewound = model.session(kv_type=kv_type)
    rewound.forward([*TOKENS, 1, 2, 3, 4])
    rewound.truncate(90)
    fork = rewound.fork()
    fork.forward([5, 6])
    sessions += [rewound, rewound.fork()]
    before = [session.page(1) for session in sessions]
    found = [three(drafter, session, 7, state) for session in sessions]
    for other in found[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(found[0], other, strict=True))
    assert [session.page(1) for session in sessions] == before
    assert [session.position for session in sessions] == [90] * 4
    following = [session.forward([8]) for session in sessions]
    assert all(np.array_equal(following[0], other) for other in following)


def test_saved_sessions_lend(model: Model, drafter: EngineDrafter, tmp_path: Path) -> None:
    state = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    session = model.session(512)
    session.forward(TOKENS * 4)
    session.save(tmp_path / "session")
    again = model.load_session(tmp_path / "session")
    for one, other in zip(three(drafter, session, 3, state), three(drafter, again, 3, state), strict=True):
        assert np.array_equal(one, other)


def test_what_a_window_has_dropped_is_not_seen(model: Model, drafter: EngineDrafter) -> None:
    """A session that was rewound beyond what it keeps lends nothing until the next step has computed it again."""
    session = model.session(1024)
    assert not drafter.can_borrow(session.lend())
    session.forward(TOKENS * 6)
    assert drafter.can_borrow(session.lend())
    lendable = []
    for position in range(540, 300, -1):
        session.truncate(position)
        lendable.append(drafter.can_borrow(session.lend()))
    assert lendable[:100] == [True] * 100
    assert not any(lendable[200:])
    state = np.zeros(WIDTH, dtype=np.float32)
    with pytest.raises(ValueError, match="lacks keys and values"):
        drafter.continued(session.lend(), 3, state)
    session.forward([4])
    other = model.session(1024)
    other.forward([*(TOKENS * 6)[:301], 4])
    for one, two in zip(three(drafter, session, 3, state), three(drafter, other, 3, state), strict=True):
        assert np.array_equal(one, two)


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "own keys": (lambda path: write_assistant(path, keys={"attention.shared_kv_layers": 2}), "shared_kv_layers is 2"),
    "other width": (
        lambda path: write_assistant(
            path,
            keys={"embedding_length_out": 40},
            more={"nextn.pre_projection.weight": np.ones((OWN, 80))},
        ),
        "states of 40 numbers.*have 48",
    ),
    "no width": (lambda path: write_assistant(path, keys={"embedding_length_out": None}), "embedding_length_out"),
    "other heads": (
        lambda path: write_assistant(path, keys={"attention.head_count_kv": [2, 2, 2]}),
        "layer 1 reads 2 key and value heads of 12 and 12 elements, and those of the model's layer 1 are 1 of 12",
    ),
    "wider window": (
        lambda path: write_assistant(path, keys={"attention.sliding_window": 10}),
        "sees 10 tokens.*keeps 9",
    ),
    "no projection": (lambda path: write_assistant(path, drop=("nextn.post_projection.weight",)), "post_proj.*missing"),
    "other shape": (
        lambda path: write_assistant(path, more={"nextn.pre_projection.weight": np.ones((OWN, WIDTH))}),
        "fc.weight.*shape",
    ),
    "unknown part": (lambda path: write_assistant(path, more={"strange.weight": np.ones(3)}), "strange.weight"),
    "other tokens": (
        lambda path: write_assistant(path, tokens=[f"x{at}" for at in range(VOCABULARY)]),
        "token 0 is 'x0'",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_does_not_fit_is_refused_in_words(case: str, model: Model, tmp_path: Path) -> None:
    make, message = WRONG[case]
    with pytest.raises(ModelError, match=message):
        EngineDrafter(make(tmp_path / "drafter.gguf"), model)


def test_models_of_other_families_are_refused(tmp_path: Path) -> None:
    with (
        Model(further_families.write(tmp_path / "model.gguf", "glm4moe"), threads=1) as other,
        pytest.raises(ModelError, match="keys and values of Gemma 4, and the model is 'glm4moe'"),
    ):
        EngineDrafter(write_assistant(tmp_path / "drafter.gguf"), other)


def test_an_index_of_the_vocabulary_changes_nothing(model: Model, drafter: EngineDrafter, tmp_path: Path) -> None:
    more = {"masked_embd_centroids.weight": np.ones((5, OWN)), "masked_embd_ordering": np.arange(50.0)}
    other = EngineDrafter(write_assistant(tmp_path / "drafter.gguf", more=more), model)
    session = model.session()
    session.forward(TOKENS)
    state = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    for one, two in zip(three(drafter, session, 3, state), three(other, session, 3, state), strict=True):
        assert np.array_equal(one, two)
    other.close()


def test_numbers_that_are_not_finite_propose_nothing(model: Model, tmp_path: Path) -> None:
    how: dict[str, Any] = {"max_tokens": 8, "ignore_end": True, "sampling": Sampling(temperature=1, seed=2)}
    plain = model.generate([1, 2, 3], draft=None, **how).read().tokens
    for name, shape in (("nextn.post_projection.weight", (WIDTH, OWN)), ("output_norm.weight", (OWN,))):
        file = write_assistant(tmp_path / "drafter.gguf", more={name: np.full(shape, 3e38)})
        draft = LearnedDraft(model, file, adaptive=False, least_chance=0)
        assert model.generate([1, 2, 3], draft=draft, **how).read().tokens == plain
        draft.close()


def test_damaged_files_do_no_harm(model: Model, tmp_path: Path) -> None:
    """Every file with changed bytes, or cut off, is refused or drafts something."""
    random = np.random.default_rng(4)
    sound, damaged = write_assistant(tmp_path / "sound.gguf").read_bytes(), tmp_path / "damaged.gguf"
    how: dict[str, Any] = {"max_tokens": 8, "ignore_end": True, "sampling": Sampling(temperature=1, seed=2)}
    plain, refused = model.generate([1, 2, 3], draft=None, **how).read().tokens, 0
    for case in range(60):
        data = bytearray(sound)
        if case % 10 == 0:
            del data[int(random.integers(0, len(data))) :]
        elif case % 10 < 6:
            data[int(random.integers(24, 4000))] = int(random.integers(0, 256))
        else:
            at = int(random.integers(4000, len(data) - 4))
            data[at : at + 4] = random.bytes(4)
        damaged.write_bytes(bytes(data))
        try:
            draft = LearnedDraft(model, damaged, adaptive=False, least_chance=0)
        except (LlamaCpuError, MemoryError):
            refused += 1
            continue
        assert model.generate([1, 2, 3], draft=draft, **how).read().tokens == plain
        draft.close()
    assert 10 < refused < 60, refused


def test_drafts_that_are_right_are_accepted(path: Path, tmp_path: Path) -> None:
    """A model whose next token depends on the last one alone, and a drafter that computes the same."""
    reader = gguf.GGUFReader(path)
    weights = {tensor.name: np.array(tensor.data, dtype=np.float64) for tensor in reader.tensors}
    silent = ("attn_output.weight", "ffn_down.weight", "ffn_down_exps.weight", ".proj.weight")
    still = {name: np.zeros_like(data) for name, data in weights.items() if name.endswith(silent)}
    further_families.write(tmp_path / "model.gguf", "gemma4", still)
    own = {
        "token_embd.weight": weights["output.weight"],
        "output_norm.weight": weights["output_norm.weight"],
        "nextn.pre_projection.weight": np.concatenate([np.eye(WIDTH), np.zeros((WIDTH, WIDTH))], axis=1),
    }
    own |= {f"blk.{at}.attn_output.weight": np.zeros((WIDTH, 4 * size)) for at, size in enumerate((8, 12, 8))}
    own |= {f"blk.{at}.ffn_down.weight": np.zeros((WIDTH, 40)) for at in range(3)}
    file = write_assistant(tmp_path / "drafter.gguf", more=own, width=WIDTH)
    with Model(tmp_path / "model.gguf", threads=2) as model:
        draft = LearnedDraft(model, file, 4, adaptive=False, least_chance=0)
        how: dict[str, Any] = {"max_tokens": 41, "ignore_end": True, "sampling": Sampling(temperature=0)}
        result = model.generate(TOKENS[:40], draft=draft, **how).read()
        assert result.timings.accepted_tokens == result.timings.drafted_tokens == 32
        assert result.tokens == model.generate(TOKENS[:40], draft=None, **how).read().tokens
        draft.close()


def test_what_does_not_pay_turns_itself_off(model: Model, tmp_path: Path) -> None:
    draft = model.open_draft(write_assistant(tmp_path / "drafter.gguf"))
    assert isinstance(draft, LearnedDraft)
    draft.least_chance = 0.0
    settings: dict[str, Any] = {"max_tokens": 100, "ignore_end": True, "sampling": Sampling(temperature=1, seed=2)}
    assert model.generate([1, 2, 3], draft=draft, **settings).read().timings.drafted_tokens < 30
    draft.close()


def test_the_command_line_and_other_fronts_take_it(path: Path, tmp_path: Path) -> None:
    file = write_assistant(tmp_path / "drafter.gguf")
    facts = json.loads(_printed("info", file, "--json"))["drafter"]
    assert (
        facts | {"kind": "Gemma 4's assistant", "reads_keys_and_values": True, "shares": ["token embeddings"]} == facts
    )
    assert "keys and values of its last layers" in _printed("info", file)
    common = ("run", path, "--raw", "--prompt", "t1t2", "--seed", 3, "--max-tokens", 20, "--temperature", 1)
    assert _printed(*common, "--draft-model", file) == _printed(*common, "--no-draft")
    short = ("--prompt-tokens", 0, "--generate-tokens", 2, "--repeat", 1, "--json")
    price = json.loads(_printed("bench", path, *short, "--draft-tokens", 3, "--draft-model", file))
    assert price["draft"]["model_seconds"] > 0
    texts = []
    for draft in (None, str(file)):
        with Llama(path, n_ctx=128, n_threads=2, draft_model=draft) as llm:
            texts.append(llm([1, 2, 3], max_tokens=20, temperature=0.9, seed=4)["choices"][0]["text"])
    assert texts[0] == texts[1]


def _printed(*arguments: Any) -> str:
    result = CliRunner().invoke(command_line, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout
