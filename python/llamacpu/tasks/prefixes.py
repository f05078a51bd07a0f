"""Prefixes that embedding models expect before a text: one for a query, another for a document that may answer it.

The file stores them under sentence_transformers.prompts.NAME, with the names in config_sentence_transformers.json. Few
converters write these keys, so the prefixes of well-known models are listed here by name, as in their model cards. The
adapters of Jina Embeddings 3 for its tasks each have the prefix of theirs (arXiv:2409.10173).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

from llamacpu.errors import ModelError

__all__ = ["Task", "TaskAdapter", "prefix_for"]

Task = Literal["query", "document"]
"""The role of a text: a question or search query, or a document to be searched."""


class TaskAdapter(Protocol):
    """What is asked of an adapter; see `llamacpu.engine.adapters.Adapter`."""

    task_name: str
    prompt_prefix: str


_KEY = "sentence_transformers.prompts."
# The names that sentence-transformers and model cards use for the two tasks, most common first.
_NAMES: dict[Task, tuple[str, ...]] = {
    "query": ("query", "search_query", "s2p_query", "Retrieval-query", "retrieval.query"),
    "document": ("document", "passage", "search_document", "corpus", "Retrieval-document", "retrieval.passage"),
}
_SEARCH = "Represent this sentence for searching relevant passages: "
# Substrings of model names with the prefixes (query, document); the first match counts.
_CARDS = (
    (("nomic-embed-text", "nomic-bert"), ("search_query: ", "search_document: ")),
    (("embeddinggemma", "embedding-gemma"), ("task: search result | query: ", "title: none | text: ")),
    (
        ("qwen3-embedding",),
        (
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
            "",
        ),
    ),
    (
        ("e5-mistral", "multilingual-e5-large-instruct"),
        (
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
            "",
        ),
    ),
    (("snowflake-arctic-embed-l-v2", "snowflake-arctic-embed-m-v2"), ("query: ", "")),
    (("snowflake-arctic-embed", "mxbai-embed", "bge-small-en", "bge-base-en", "bge-large-en"), (_SEARCH, "")),
    (("e5-small", "e5-base", "e5-large"), ("query: ", "passage: ")),
)
# Models whose cards ask for no prefix.
_WITHOUT = ("bge-m3", "all-minilm", "all-mpnet", "gte-", "jina-embeddings-v2")


def prefix_for(metadata: Mapping[str, object], task: Task, adapters: Sequence[TaskAdapter] = ()) -> str:
    """The prefix of a text for this task, which an adapter knows that was trained for it.

    Raises ModelError if neither the adapters nor the file's keys nor the model's name determine it, and if an adapter
    was trained for the other task; ValueError for an unknown task.
    """
    if task not in get_args(Task):
        raise ValueError(f'task is {task!r}; expected "query" or "document"')
    for adapter in adapters:
        trained = next((known for known, names in _NAMES.items() if adapter.task_name in names), None)
        if trained == task:
            return adapter.prompt_prefix
        if trained is not None:
            raise ModelError(
                f"the adapter's task is {adapter.task_name!r:.40}, for a {trained}, and the text is a {task}; "
                "use the adapter for that"
            )
    prompts = {key[len(_KEY) :]: value for key, value in metadata.items() if key.startswith(_KEY)}
    found = next((prompts[name] for name in _NAMES[task] if name in prompts), None)
    if found is not None:
        if not isinstance(found, str):
            raise ModelError(f"a key below {_KEY} holds {found!r:.40}; expected a text")
        return found
    if prompts:
        # A model that has a prompt only for queries takes documents as they are.
        return ""
    names = [str(metadata.get(f"general.{key}", "")) for key in ("name", "basename")]
    plain = " ".join(names).lower().replace(" ", "-").replace("_", "-")
    for parts, prefixes in _CARDS:
        if any(part in plain for part in parts):
            return prefixes[0 if task == "query" else 1]
    if any(part in plain for part in _WITHOUT):
        return ""
    raise ModelError(
        f"what this model wants before a {task} is in no metadata key ({_KEY}{task}), and its name, "
        f"{names[0][:60]!r}, is not known; give the text that its model card asks for as the prefix"
    )
