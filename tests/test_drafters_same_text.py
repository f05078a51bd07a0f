"""Drafters change nothing: every text is that without them, whatever they propose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import further_families
from assistant_files import write_assistant
from drafter_files import LAYERS, PREDICTED, VOCABULARY, WIDTH, write_block, write_eagle, write_model
from llamacpu import Engine, LearnedDraft, Model, Sampling
from llamacpu.constraints.grammar import Grammar
from llamacpu.generation import generate

PROMPT = np.random.default_rng(1).integers(0, VOCABULARY, 20).tolist()
SAMPLINGS = {
    "greedy": Sampling(temperature=0, seed=1),
    "hot": Sampling(seed=3, temperature=2, top_k=0, top_p=1, min_p=0),
    "penalties": Sampling(seed=4, temperature=0.7, repeat_penalty=1.3, presence_penalty=0.2),
}
KINDS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "predictor": ("glm4moe", lambda path: "self"),
    "hybrid predictor": ("qwen3next", lambda path: "self"),
    "latent predictor": ("deepseek32", lambda path: "self"),
    "eagle": ("qwen35", lambda path: write_eagle(path, rows=30)),
    "block": ("qwen3next", write_block),
    "assistant": ("gemma4", write_assistant),
}


class Pair:
    """A model and a drafter."""

    def __init__(self, kind: str, folder: Path) -> None:
        name, source = KINDS[kind]
        path, keys = folder / "model.gguf", {f"{name}.{key}": value for key, value in PREDICTED.items()}
        if kind == "assistant":
            self.model = Model(further_families.write(path, name), threads=2)
        else:
            self.model = Model(write_model(path, name), threads=2, overrides=keys)
        self.path = source(folder / "drafter.gguf")
        self.draft = self.always()

    def always(self, tokens: int = 15) -> LearnedDraft:
        """A draft of so many tokens in each pass, however unlikely."""
        return LearnedDraft(self.model, self.path, tokens, adaptive=False, least_chance=0)


@pytest.fixture(scope="module", params=sorted(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(request.param, tmp_path_factory.mktemp("pair"))
    yield pair
    pair.draft.close()
    pair.model.close()


def written(source: Any, prompt: Any = PROMPT, **settings: Any) -> list[int]:
    """The tokens that follow the prompt."""
    generation = generate(source, prompt, **({"max_tokens": 40, "ignore_end": True} | settings))
    for _ in generation:
        pass
    result = generation.result
    if settings.get("draft") is not None:
        assert result.timings.drafted_tokens > 0
    return list(result.tokens)


@pytest.mark.parametrize("name", sorted(SAMPLINGS))
def test_at_every_temperature(pair: Pair, name: str) -> None:
    how = {"sampling": SAMPLINGS[name]}
    assert written(pair.model, draft=pair.draft, **how) == written(pair.model, draft=None, **how)


def test_in_a_conversation_that_is_cut_forked_and_saved(pair: Pair, tmp_path: Path) -> None:
    how: dict[str, Any] = {"sampling": SAMPLINGS["penalties"]}
    texts = []
    for draft in (None, pair.draft):
        session = pair.model.session(256)
        found = [written(session, draft=draft, **how)]
        held = session.tokens
        # The reply and a further question; then another question after a part of that, which the session shares.
        found.append(written(session, [*held, 1, 2, 3], draft=draft, **how))
        found.append(written(session, [*held[:30], 4], draft=draft, **how))
        fork = session.fork()
        fork.truncate(25)
        found.append(written(fork, [*fork.tokens, 9], draft=draft, **how))
        session.save(tmp_path / "session")
        again = pair.model.load_session(tmp_path / "session")
        found.append(written(again, [*again.tokens, 5], draft=draft, **how))
        # Somebody else continues the session between two texts.
        session.forward([6, 7, 8])
        found.append(written(session, [*session.tokens, 9], draft=draft, **how))
        found.append(session.tokens)
        texts.append(found)
    assert texts[0] == texts[1]


def test_when_the_context_is_shifted(pair: Pair) -> None:
    texts = [
        written(pair.model.session(48), draft=draft, overflow="shift", max_tokens=100, sampling=SAMPLINGS["hot"])
        for draft in (None, pair.always(4))
    ]
    assert texts[0] == texts[1]


def test_under_a_grammar(pair: Pair) -> None:
    texts = []
    for draft in (None, pair.draft):
        grammar = Grammar.gbnf('root ::= ("t2" | "t6" | "t7")*')
        constraint = grammar.constraint(pair.model.tokenizer, pair.model.vocab_size)
        texts.append(written(pair.model, draft=draft, logits_processors=[constraint], sampling=SAMPLINGS["hot"]))
    assert texts[0] == texts[1]


def test_for_several_clients_of_an_engine(pair: Pair) -> None:
    """Only a request that runs alone is drafted for; a drafter that was away goes on from where it comes back."""
    prompts = [PROMPT, PROMPT[:9], [*PROMPT, 3]]
    how = {"sampling": SAMPLINGS["hot"], "ignore_end": True, "max_tokens": 24}
    plain = [written(pair.model, prompt, **how | {"draft": None}) for prompt in prompts]
    with Engine(pair.model, context=128, prepare=False) as engine:
        for group in (prompts[:1], prompts, prompts[:1], prompts[1:2]):
            requests = [engine.submit(prompt, draft=pair.draft, **how) for prompt in group]
            for prompt, request in zip(group, requests, strict=True):
                assert list(request.read().result.tokens) == plain[prompts.index(prompt)]
        assert engine.statistics.drafted_tokens > 0


def test_long_prompts_are_read_in_pieces(pair: Pair) -> None:
    prompt = np.random.default_rng(2).integers(0, VOCABULARY, 1500).tolist()
    how: dict[str, Any] = {"max_tokens": 6, "sampling": SAMPLINGS["greedy"]}
    texts = [written(pair.model.session(2048), prompt, draft=draft, **how) for draft in (None, pair.draft)]
    assert texts[0] == texts[1]


def memoryless(path: Path, name: str) -> Path:
    """A model whose next token depends on the last one alone, and whose predictor knows that."""
    more: dict[str, Any] = {}
    write_model(path, name)
    import gguf

    for tensor in gguf.GGUFReader(path).tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        if "attn_output" in tensor.name or "ffn_down" in tensor.name or tensor.name.startswith(f"blk.{LAYERS}"):
            still = np.zeros(shape) if "norm" not in tensor.name else np.ones(shape)
            if "attn_output" not in tensor.name and "ffn_down" not in tensor.name:
                still = np.asarray(tensor.data, dtype=np.float64).reshape(shape)
            more[tensor.name] = still
    start = f"blk.{LAYERS}.nextn"
    more[f"{start}.eh_proj.weight"] = np.concatenate([np.eye(WIDTH), np.zeros((WIDTH, WIDTH))], axis=1)
    more[f"{start}.enorm.weight"] = np.ones(WIDTH)
    return further_families.write(path, name, more)


def test_drafts_that_are_right_are_accepted_and_save_passes(tmp_path: Path) -> None:
    path = memoryless(tmp_path / "model.gguf", "glm4moe")
    with Model(path, threads=2, overrides={f"glm4moe.{key}": value for key, value in PREDICTED.items()}) as model:
        draft = LearnedDraft(model, "self", 4, adaptive=False, least_chance=0)
        session = model.session(256)
        for prompt in (PROMPT, [*PROMPT, 3]):
            generation = generate(
                session, prompt, draft=draft, max_tokens=41, ignore_end=True, sampling=SAMPLINGS["greedy"]
            )
            for _ in generation:
                pass
            timings = generation.result.timings
            assert timings.accepted_tokens == timings.drafted_tokens == 32
            assert list(generation.result.tokens) == written(
                model, prompt, max_tokens=41, sampling=SAMPLINGS["greedy"], draft=None
            )
        draft.close()
