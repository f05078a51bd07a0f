"""Reranking: how well documents answer a query, judged by a model that reads both together (a cross-encoder).

with llamacpu.Model("bge-reranker-v2-m3.gguf") as model:
    model.rank("what is a panda?", ["a bear of China", "a pan of iron"])      # float32[2], higher is better
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llamacpu.arguments import described
from llamacpu.errors import ContextOverflow, ModelError
from llamacpu.sampling.functions import exp
from llamacpu.tasks.embeddings import TextPair, most_tokens, vectors

if TYPE_CHECKING:
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken, ModelLike

__all__ = ["check", "pairs", "rank", "scores"]

_TEMPLATE = "tokenizer.chat_template.rerank"


def rank(
    model: ModelLike,
    query: str,
    documents: Sequence[str],
    *,
    truncate: bool = True,
    cancel: CancelToken | None = None,
) -> npt.NDArray[np.float32]:
    """The scores of the documents, in order: float32[documents]; see `Model.rank`."""
    if not isinstance(query, str):
        raise TypeError(f"query is {described(query)}; expected a text")
    if isinstance(documents, str) or not isinstance(documents, Sequence):
        raise TypeError(f"documents is {described(documents)}; expected a list of texts")
    if not all(isinstance(text, str) for text in documents):
        raise TypeError("documents holds something else than texts; expected a list of texts")
    return scores(model, pairs(model, query, documents, truncate=truncate), cancel)


def scores(model: ModelLike, texts: Iterator[TextPair], cancel: CancelToken | None = None) -> npt.NDArray[np.float32]:
    """The scores of pairs of a query and a document, given as token ids: float32[documents].

    A classifier with one class gives the score itself. With the classes "yes" and "no" (Qwen 3), the score is the
    probability of "yes".
    """
    probability = check(model)
    found = [vector.astype(np.float64) for vector in vectors(model, texts, "rank", cancel=cancel)]
    if probability:
        powers = [exp(row - row.max()) for row in found]
        found = [row[:1] / row.sum() for row in powers]
    return np.array([row[0] for row in found], dtype=np.float32)


def check(model: ModelLike) -> bool:
    """Whether the classifier has the classes "yes" and "no"; otherwise it has one class, the score.

    Raises ModelError for any other classifier, and for a model without one.
    """
    name, classes = model.config.architecture, model.config.classes
    if not classes:
        raise ModelError(f"the model ({name}) has no classifier; open a reranker, such as bge-reranker-v2-m3")
    key = f"{name}.classifier.output_labels"
    labels = list(model.metadata.strings(key)) if key in model.metadata else []
    if classes != 1 and labels != ["yes", "no"]:
        raise ModelError(
            f"the model ({name}) sorts texts into {classes} classes; expected a reranker, which gives one score or "
            "says yes or no"
        )
    return classes != 1


def pairs(model: ModelLike, query: str, documents: Sequence[str], *, truncate: bool) -> Iterator[TextPair]:
    """Yield the query and each document as the model reads them together, truncated at the end of the document.

    Raises ContextOverflow if a pair does not fit and `truncate` is False, or if the document has too few tokens to cut.
    """
    limit = most_tokens(model, model.context_length)
    template = model.metadata.text(_TEMPLATE) if _TEMPLATE in model.metadata else None
    for number, document in enumerate(documents):
        found = _framed(model, query, document) if template is None else _filled(model, template, query, document)
        over = len(found.ids) - limit
        if over > 0:
            tail = found.tail
            if not truncate or len(found.ids) - found.first - tail < over:
                raise ContextOverflow(
                    f"query and document {number} have {len(found.ids)} tokens, and the model reads {limit}; "
                    "shorten them"
                )
            end = len(found.ids) - tail
            found = found._replace(ids=[*found.ids[: end - over], *found.ids[end:]])
        yield found


def _framed(model: ModelLike, query: str, document: str) -> TextPair:
    """BOS, query, separator, document, end, as BERT, RoBERTa and related models were trained."""
    tokenizer = model.tokenizer
    begin = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
    mark = tokenizer.eos if tokenizer.add_eos else tokenizer.sep
    last = [] if mark is None else [mark]
    # RoBERTa and XLM-R put two </s> between two texts, BERT one [SEP].
    between = 2 * last if mark is not None and tokenizer.id_to_piece(mark) == "</s>" else last
    first = [*begin, *tokenizer.encode(query, add_special=False), *between]
    second = tokenizer.encode(document, add_special=False)
    return TextPair([*first, *second, *last], len(first), len(last))


def _filled(model: ModelLike, template: str, query: str, document: str) -> TextPair:
    """The file's template with both texts filled in; names of control tokens in these texts stay plain text."""
    from llamacpu.chat import Chat
    from llamacpu.chat.segments import cut
    from llamacpu.chat.traced import Traced, concatenate

    before, middle, after = _template_parts(template)
    chat = Chat(model.metadata, model.tokenizer)
    text = concatenate([before, Traced(query), middle, Traced(document), after])
    ids = chat.encode_segments(cut(text, chat.control_tokens))
    # The position of the document among the tokens, needed to truncate it.
    tail = len(model.tokenizer.encode(after, add_special=False, parse_special=True))
    head = len(model.tokenizer.encode(f"{before}{query}{middle}", add_special=False, parse_special=True))
    return TextPair(ids, head, tail)


def _template_parts(template: str) -> tuple[str, str, str]:
    before, query, rest = template.partition("{query}")
    middle, document, after = rest.partition("{document}")
    if not query or not document:
        raise ModelError(f"{_TEMPLATE} has no {{query}} before a {{document}}; the file was converted wrongly")
    return before, middle, after
