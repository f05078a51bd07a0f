"""What embedding models want before a text, and what stays at the end of one that is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from llamacpu.cli.group import command_line
from llamacpu.errors import ModelError
from llamacpu.model import Model
from llamacpu.tasks.prefixes import prefix_for
from vocabulary_files import CONTROL, NORMAL, bpe, load, vocabulary_pairs

KEY = "sentence_transformers.prompts."


@pytest.mark.parametrize(
    ("metadata", "query", "document"),
    [
        ({KEY + "query": "q: ", KEY + "document": "d: "}, "q: ", "d: "),
        ({KEY + "query": "q: ", KEY + "passage": "p: "}, "q: ", "p: "),
        ({KEY + "s2p_query": "q: "}, "q: ", ""),
        # The file counts more than the name.
        ({KEY + "query": "q: ", "general.name": "Nomic Embed Text v1.5"}, "q: ", ""),
        ({"general.name": "Nomic Embed Text v1.5"}, "search_query: ", "search_document: "),
        ({"general.name": "E5 Small v2"}, "query: ", "passage: "),
        ({"general.basename": "multilingual-e5-base"}, "query: ", "passage: "),
        ({"general.name": "bge-small-en-v1.5"}, "Represent this sentence for searching relevant passages: ", ""),
        ({"general.name": "embeddinggemma-300m"}, "task: search result | query: ", "title: none | text: "),
        ({"general.name": "All MiniLM L6 v2"}, "", ""),
        ({"general.name": "Snowflake Arctic Embed L v2.0"}, "query: ", ""),
    ],
)
def test_the_prefix_of_a_task(metadata: dict[str, Any], query: str, document: str) -> None:
    assert (prefix_for(metadata, "query"), prefix_for(metadata, "document")) == (query, document)


def test_what_nobody_knows_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"sentence_transformers\.prompts\.query.*'Llama'"):
        prefix_for({"general.name": "Llama"}, "query")
    with pytest.raises(ModelError, match="expected a text"):
        prefix_for({KEY + "query": 3}, "query")
    with pytest.raises(ValueError, match='"query" or "document"'):
        prefix_for({}, "search")  # type: ignore[arg-type]


def test_a_prefix_is_part_of_the_text(tiny_model: Callable[..., Path]) -> None:
    path = tiny_model("gqa")
    with Model(path, overrides={KEY + "query": "once upon "}) as model:
        expected = model.embed("once upon a time")
        assert np.array_equal(model.embed("a time", task="query"), expected)
        assert np.array_equal(model.embed("a time", task="document"), model.embed("a time"))
        assert np.array_equal(model.embed(["a time"], prefix="once upon ")[0], expected)
        with pytest.raises(ValueError, match="give one of them"):
            model.embed("a", task="query", prefix="x")
    for arguments in (["--prefix", "once upon "], ["--task", "query", "--override", f"{KEY}query=str:once upon "]):
        result = CliRunner().invoke(command_line, ["embed", str(path), "a time", *arguments])
        assert result.exit_code == 0, result.output
        assert np.array_equal(np.array(result.stdout.split(), np.float32), expected)
    both = CliRunner().invoke(command_line, ["embed", str(path), "a", "--prefix", "b", "--task", "query"])
    assert both.exit_code == 2
    unknown = CliRunner().invoke(command_line, ["embed", str(path), "a", "--task", "query"])
    assert unknown.exit_code == 1
    assert "model card" in unknown.output


def test_the_end_of_a_text_that_is_cut_stays(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁a", "▁b"]
    kinds = [CONTROL] * 4 + [NORMAL] * 2
    keys = {"unknown_token_id": 1, "bos_token_id": 2, "seperator_token_id": 3}
    encoder = load(tmp_path, vocabulary_pairs("bert", tokens, kinds, **keys))
    ids = encoder.encode("a b a b")
    assert encoder.truncate(ids, 4) == [2, 4, 5, 3]
    assert [encoder.truncate(ids, length) for length in (6, 9, 1, 0)] == [ids, ids, [3], []]
    decoder = bpe(tmp_path, [])
    assert decoder.truncate([1, 2, 3], 2) == [1, 2]
