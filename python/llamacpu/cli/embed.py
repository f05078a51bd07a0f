"""`llamacpu embed`: embeddings of texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from llamacpu.cli import adapter_options, opening, options
from llamacpu.cli.terminal import write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import Load
    from llamacpu.engine.priority import Priority
    from llamacpu.text.tokenizer import Tokenizer

# Input pause after which the texts read so far are computed, and how many lines are read ahead of the model.
_PAUSE_SECONDS = 0.02
_LINES_AHEAD = 64


@click.command("embed", short_help="Compute embeddings of texts.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("texts", nargs=-1, callback=options.utf8)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "last", "cls", "rank", "none"]),
    help="Make one vector of those of all tokens, of the last or of the first one; 'rank' prints the scores of the "
    "model's classifier, 'none' a vector for each token. "
    "[default: what the file recommends, else mean]",
)
@click.option("--normalize", is_flag=True, help="Scale every vector to Euclidean length 1.")
@click.option(
    "--task",
    type=click.Choice(["query", "document"]),
    help="Put the prefix for queries, or for documents, before every text: the adapter's, or the model's.",
)
@click.option("--prefix", help="Put this text before every text.")
@click.option("--no-truncate", is_flag=True, help="Refuse texts that are too long, instead of truncating them.")
@options.context
@options.kv_type
@options.threads
@options.priority
@options.duty
@options.load
@options.overrides
@adapter_options.adapters
@options.as_json
@click.option(
    "--jsonl", is_flag=True, help="Print one JSON object per line (JSON Lines), each as soon as its batch is done."
)
def command(
    model: str,
    texts: tuple[str, ...],
    pooling: Any,
    normalize: bool,
    task: Any,
    prefix: str | None,
    no_truncate: bool,
    context: int | None,
    kv_type: Any,
    threads: int | None,
    priority: Priority | None,
    duty: DutyCycle | None,
    load: Load,
    overrides: dict[str, Any],
    lora: Any,
    control_vectors: Any,
    as_json: bool,
    jsonl: bool,
) -> None:
    """Print the embedding of every TEXT, or of every line on stdin, made by MODEL, a .gguf file or a name.

    Without --json or --jsonl, each line holds the numbers of one vector; with --pooling none, an empty line follows the
    vectors of each text. Texts are processed in batches.
    """
    from llamacpu.tasks import embeddings

    if as_json and jsonl:
        raise click.UsageError("more than one form of output; give one of --json and --jsonl")
    if task and prefix is not None:
        raise click.UsageError("what is put before the texts is given twice; give one of --task and --prefix")
    if not texts and sys.stdin.isatty():
        raise click.UsageError("no text; give TEXT, or lines on stdin")
    with opening.opened(
        model,
        threads=threads,
        priority=priority,
        duty=duty,
        load=load,
        overrides=overrides,
        **adapter_options.opened(lora, control_vectors),
    ) as opened:
        pooling = pooling or embeddings.default_pooling(opened.metadata)
        before = embeddings.before_texts(opened.metadata, task, prefix, [one for one, _ in opened.adapters.lora])
        limit = embeddings.most_tokens(opened, context)
        given = _Texts(texts or _lines(), before, opened.tokenizer, limit, not no_truncate)
        vectors = embeddings.vectors(opened, given, pooling, normalize=normalize, kv_type=kv_type)
        entries = ({**given.pop(), "embedding": _numbers(vector)} for vector in vectors)
        if as_json:
            document = {
                "model": str(opened.path),
                "pooling": pooling,
                "normalized": normalize,
                "dimensions": opened.config["classes" if pooling == "rank" else "embedding_length"],
                "embeddings": list(entries),
            }
            write(json.dumps(document) + "\n")
            return
        for entry in entries:
            rows = entry["embedding"]
            if jsonl:
                write(json.dumps(entry) + "\n")
            elif pooling == "none":
                write("".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n")
            else:
                write(" ".join(map(str, rows)) + "\n")


class _Texts:
    """An iterable of the tokens of texts that also records the facts to print with each."""

    def __init__(
        self, texts: Iterable[str | None], before: str, tokenizer: Tokenizer, limit: int, truncate: bool
    ) -> None:
        self._texts, self._before = texts, before
        self._tokenizer = tokenizer
        self._limit = limit
        self._truncate = truncate
        self._facts: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[list[int] | None]:
        index = -1
        for text in self._texts:
            if text is None:
                yield None
                continue
            index += 1
            ids = self._tokenizer.encode(self._before + text)
            too_long = len(ids) > self._limit
            if not ids:
                raise click.ClickException(
                    f"text {index} (counted from 0) is empty, and the model puts no start token before it; leave it out"
                )
            if too_long and not self._truncate:
                raise click.ClickException(
                    f"text {index} (counted from 0) has {len(ids)} tokens, and the context holds {self._limit}; "
                    "shorten it, use a larger --context, or leave out --no-truncate"
                )
            if too_long:
                click.echo(f"Text {index} is cut from {len(ids)} to {self._limit} tokens.", err=True)
            ids = self._tokenizer.truncate(ids, self._limit)
            self._facts.append({"index": index, "tokens": len(ids), "truncated": too_long})
            yield ids

    def pop(self) -> dict[str, Any]:
        """The index and token count of the next text, and whether it was truncated."""
        return self._facts.pop(0)


def _lines() -> Iterator[str | None]:
    """Yield the lines of stdin as they arrive, and None when the next one is not available yet."""
    number = 0
    for line in _as_they_come(sys.stdin.buffer):
        if line is None:
            yield None
            continue
        number += 1
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise click.ClickException(f"line {number} of stdin is not UTF-8 text; expected a text file") from None


def _as_they_come(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines of a stream, read by a thread: the only way to wait for a pipe with a timeout on every system."""
    lines: Queue[bytes | BaseException | None] = Queue(_LINES_AHEAD)

    def read() -> None:
        try:
            for line in stream:
                lines.put(line)
            lines.put(None)
        except BaseException as error:
            lines.put(error)

    Thread(target=read, daemon=True, name="llamacpu-stdin").start()
    while True:
        try:
            line = lines.get(timeout=_PAUSE_SECONDS)
        except Empty:
            yield None
            line = lines.get()
        if line is None:
            return
        if isinstance(line, BaseException):
            raise line
        yield line


def _numbers(vector: NDArray[np.float32]) -> Any:
    """The elements as (nested) lists, each with just enough digits to identify its float32 value."""
    if vector.ndim > 1:
        return [_numbers(row) for row in vector]
    return [float(text) for text in vector.astype(str)]
