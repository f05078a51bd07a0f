"""Rerankers: a query and a document read together, by every way in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

import llamacpu
from config_models import tensors
from llamacpu import ContextOverflow, ModelError
from llamacpu.families.config import Config
from llamacpu.llama import Llama
from llamacpu.model import Model
from llamacpu.tasks.reranking import pairs
from reference_encoder import ReferenceEncoder
from reference_functions import softmax
from tiny_encoders import ENCODERS, write_encoder

pytestmark = pytest.mark.instruction_set

QUERY = "the dog runs"
DOCUMENTS = ["once upon a time", "", "the moon was there, little girl.", "the dog runs"]
TEMPLATE = "<a>Is it so?\n{query}\n<b>{document}<a>"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder as BERT is made one: two types of tokens, one score."""
    shape = replace(ENCODERS["bert"], labels=("LABEL_0",), pooling=4, context=24)
    return write_encoder(tmp_path_factory.mktemp("rank") / "rank.gguf", shape)


def test_scores_against_exact_arithmetic(path: Path) -> None:
    reference = ReferenceEncoder(path)
    with Model(path, threads=2) as model:
        encode = model.tokenizer.encode
        first = encode(QUERY)
        whole = [[*first, *encode(text)[1:]] for text in DOCUMENTS]
        assert [pair.ids for pair in pairs(model, QUERY, DOCUMENTS, truncate=False)] == whole
        expected = np.stack([reference.classes(reference.states(ids, len(first))[0]) for ids in whole])[:, 0]
        got = model.rank(QUERY, DOCUMENTS)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()
        # The second type of tokens matters.
        plain = np.stack([reference.classes(reference.states(ids)[0]) for ids in whole])[:, 0]
        assert np.abs(got - plain).max() > 1e-2 * np.abs(expected).max()
        for document, score in zip(DOCUMENTS, got, strict=True):
            assert model.rank(QUERY, [document])[0] == score
        assert model.rank(QUERY, []).shape == (0,)
    with Llama(path, verbose=False) as llm:
        assert llm.rank(QUERY, DOCUMENTS) == got.tolist()


def test_long_documents_lose_their_end(path: Path) -> None:
    long = "once upon a time " * 20
    with Model(path) as model:
        (pair,) = pairs(model, QUERY, [long], truncate=True)
        assert len(pair.ids) == 24
        assert pair.ids[-1] == model.tokenizer.sep
        assert pair.ids[: len(pair.ids) - 1] == [*model.tokenizer.encode(QUERY), *model.tokenizer.encode(long)[1:]][:23]
        with pytest.raises(ContextOverflow, match="document 1 have 8"):
            model.rank(QUERY, ["the", long], truncate=False)
        with pytest.raises(ContextOverflow, match="query and document 0"):
            model.rank(long, ["the"])


def test_what_is_no_reranker_and_what_are_no_texts(path: Path, tmp_path: Path) -> None:
    with Model(path) as model:
        for documents in ("text", 3, [1]):
            with pytest.raises(TypeError, match="expected a list of texts"):
                model.rank(QUERY, documents)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="query"):
            model.rank(None, DOCUMENTS)  # type: ignore[arg-type]
    with (
        Model(write_encoder(tmp_path / "bert.gguf", ENCODERS["bert"])) as model,
        pytest.raises(ModelError, match="has no classifier; open a reranker"),
    ):
        model.rank(QUERY, DOCUMENTS)
    with (
        Model(write_encoder(tmp_path / "guard.gguf", ENCODERS["deberta"])) as model,
        pytest.raises(ModelError, match="sorts texts into 2 classes"),
    ):
        model.rank(QUERY, DOCUMENTS)


def decoder(path: Path, template: str | None = TEMPLATE) -> Path:
    """A reranker as Qwen 3 is made one: the last token's "yes" and "no", and a template for both texts."""
    config = Config(
        architecture="qwen3", vocab_size=260, context_length=128, embedding_length=32, layers=2, feed_forward=[24] * 2,
        heads=[4] * 2, kv_heads=[2] * 2, key_size=8, value_size=8, norm_epsilon=1e-5, rope_size=8,
        rope_original_context=128, query_key_norm=["head"] * 2,
    )  # fmt: skip
    random = np.random.default_rng(4)
    weights = tensors(config, random, biases=False, tied=True)
    weights["cls.output.weight"] = random.standard_normal((2, 32)) * 0.3
    writer = gguf.GGUFWriter(path, "qwen3")
    letters = [chr(code) if 33 <= code < 127 else f"<0x{code:02X}>" for code in range(258)]
    writer.add_token_list([*letters, "<a>", "<b>"])
    writer.add_token_types([1] * 258 + [3] * 2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_merges(["a b"])
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(8)
    writer.add_value_length(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    if template is not None:
        writer.add_string("tokenizer.chat_template.rerank", template)
    for name, data in weights.items():
        writer.add_tensor(name, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_decoder_says_yes_or_no_behind_its_template(tmp_path: Path) -> None:
    with Model(decoder(tmp_path / "model.gguf")) as model:
        encode = model.tokenizer.encode
        query, document = "a?", "<b>c"
        ids = encode("<a>Is it so?\n", parse_special=True) + encode("a?\n") + encode("<b>", parse_special=True)
        ids += encode(document) + encode("<a>", parse_special=True)
        (pair,) = pairs(model, query, [document], truncate=False)
        assert pair.ids == ids
        states = model.session().hidden(ids)[0]
        expected = softmax(model.classify(states[-1:])[0].astype(np.float64))[0]
        assert abs(model.rank(query, [document])[0] - expected) < 1e-6
        (cut,) = pairs(model, query, ["x" * 500], truncate=True)
        assert len(cut.ids) == 128
        assert cut.ids[-1] == ids[-1]
    with (
        Model(decoder(tmp_path / "broken.gguf", "{document} {query}")) as model,
        pytest.raises(ModelError, match=r"no \{query\} before a \{document\}"),
    ):
        model.rank("a", ["b"])


@pytest.mark.instruction_set(one_in=None)
def test_over_http(path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("starlette", reason="the extra [server] is not installed")
    with llamacpu.serve(path) as url, httpx.Client(base_url=url, timeout=60) as client, Model(path) as model:
        scores: Any = model.rank(QUERY, DOCUMENTS)
        order = [int(index) for index in np.argsort(-scores, kind="stable")]
        for name in ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking"):
            found = client.post(name, json={"query": QUERY, "documents": DOCUMENTS}).json()
            assert [row["index"] for row in found["results"]] == order
            assert [row["relevance_score"] for row in found["results"]] == [float(scores[index]) for index in order]
            assert found["usage"]["total_tokens"] > 0
        best = client.post(
            "/rerank", json={"query": QUERY, "documents": DOCUMENTS, "top_n": 1, "return_documents": True}
        )
        assert best.json()["results"][0]["document"] == {"text": DOCUMENTS[order[0]]}
        texts = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "return_text": True}).json()
        assert texts[0] == {"index": order[0], "score": float(scores[order[0]]), "text": DOCUMENTS[order[0]]}
        for body in ({"query": QUERY}, {"query": QUERY, "documents": []}, {"documents": DOCUMENTS}):
            assert client.post("/rerank", json=body).status_code == 400
    with llamacpu.serve(Path(llamacpu.__file__).parent / "data" / "demo.gguf") as url:
        found = httpx.post(f"{url}/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}, timeout=60)
        assert found.status_code == 400
        assert "has no classifier" in found.text


def test_roberta_doubles_what_stands_between_two_texts() -> None:
    class Tokenizer:
        bos, eos, sep, add_bos, add_eos, add_sep = 0, 2, 2, True, True, False

        def encode(self, text: str, add_special: bool = True) -> list[int]:
            return [10 + len(text)]

        def id_to_piece(self, token: int) -> str:
            return {0: "<s>", 2: self.end}[token]

        end = "</s>"

    model: Any = SimpleNamespace(tokenizer=Tokenizer(), metadata={}, context_length=512, config={})
    (pair,) = pairs(model, "a", ["bc"], truncate=False)
    assert pair == ([0, 11, 2, 2, 12, 2], 4, 1)
    Tokenizer.end = "[SEP]"
    (pair,) = pairs(model, "a", ["bc"], truncate=False)
    assert pair == ([0, 11, 2, 12, 2], 3, 1)
