"""What an embedding model wants to read before a text: one thing before a question, another before what may answer it.

The file tells under sentence_transformers.prompts.NAME, as config_sentence_transformers.json has them. Few converters
write these keys, so the prefixes of well-known models are here too, by their names, from their cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from llamacpu.errors import ModelError

__all__ = ["Task", "prefix_for"]

Task = Literal["query", "document"]
"""What a text is: a question or search, or what is searched."""

_KEY = "sentence_transformers.prompts."
# What sentence-transformers and model cards call the two, the most usual first.
_NAMES: dict[Task, tuple[str, ...]] = {
    "query": ("query", "search_query", "s2p_query", "Retrieval-query", "retrieval.query"),
    "document": ("document", "passage", "search_document", "corpus", "Retrieval-document", "retrieval.passage"),
}
_SEARCH = "Represent this sentence for searching relevant passages: "
# The name of a model has one of these parts; the first that fits counts. (query, document)
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
# Cards that ask for nothing.
_WITHOUT = ("bge-m3", "all-minilm", "all-mpnet", "gte-", "jina-embeddings-v2")


def prefix_for(metadata: Mapping[str, object], task: Task) -> str:
    """The prefix of a text for this task. Raises ModelError where neither the file nor its name tells."""
    if task not in get_args(Task):
        raise ValueError(f'task is {task!r}; expected "query" or "document"')
    prompts = {key[len(_KEY) :]: value for key, value in metadata.items() if key.startswith(_KEY)}
    found = next((prompts[name] for name in _NAMES[task] if name in prompts), None)
    if found is not None:
        if not isinstance(found, str):
            raise ModelError(f"a key below {_KEY} holds {found!r:.40}; expected a text")
        return found
    if prompts:
        # A model with a prompt for questions alone wants texts as they are.
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
