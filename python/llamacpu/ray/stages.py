"""The code that runs in the actors of Ray Data, with one engine each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray

from llamacpu.engine.duty import Duty
from llamacpu.engine.priority import Priority
from llamacpu.errors import LlamaCpuError
from llamacpu.ray.answering import Answering
from llamacpu.ray.cluster import cores_of_this_actor
from llamacpu.ray.inputs import Part, read_part
from llamacpu.ray.parts import Folder, with_columns
from llamacpu.ray.rows import RowEngine

__all__ = ["Answerer", "PartAnswerer"]


class Answerer:
    """Answers the rows of a `ray.data.Dataset`; give the class to `map_batches`.

        answered = dataset.map_batches(
            llamacpu.ray.Answerer,
            fn_constructor_kwargs={"model": "/models/8b.gguf", "max_tokens": 200},
            concurrency=4, num_cpus=8, batch_size=128,
        )

    model      path of a .gguf file, the same on all machines
    answering  what is asked of every row; its fields may be given instead, as in the example
    threads    None for the cores that Ray gives the actor (`num_cpus` of `map_batches`)
    parallel   rows that are computed in one pass over the weights; `batch_size` should be a few times that
    context    the most tokens of a row, prompt and answer together; None for the model's training context
    kv_memory  bytes of keys and values; None for half of what the machine has left, which suits one actor per machine
    mmproj     file of the vision encoder, for rows of messages with pictures (data URLs); None for the one beside the
               model, False for none
    priority, duty  of the actor's process, as for `llamacpu.Model`

    Rows that cannot be answered give the reason in the column "error"; `llamacpu.ray.answering.COLUMNS` lists the
    columns. Batches of every format (NumPy, pandas, Arrow) are accepted, and returned in the same format.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        answering: Answering | None = None,
        threads: int | None = None,
        parallel: int = 16,
        context: int | None = None,
        kv_memory: int | None = None,
        mmproj: str | os.PathLike[str] | bool | None = None,
        priority: Priority | None = None,
        duty: Duty = None,
        **fields: Any,
    ) -> None:
        if answering is not None and fields:
            raise TypeError(f"{', '.join(fields)}: answering has its settings; give them to that")
        threads = threads or cores_of_this_actor()
        try:
            self.rows: RowEngine = RowEngine(
                model, answering or Answering(**fields),
                threads=threads, parallel=parallel, context=context, kv_memory=kv_memory, mmproj=mmproj,
                priority=priority, duty=duty,
            )  # fmt: skip
        except MemoryError as error:
            raise MemoryError(
                f"{model} does not fit into the memory of {_here()}: {error}; use fewer actors to a machine "
                "(num_cpus, memory), less kv_memory, or a smaller file"
            ) from error
        except (OSError, ValueError, LlamaCpuError) as error:
            raise type(error)(f"{_here()}: {error}") from error

    def __call__(self, batch: Any) -> Any:
        """Return the batch with the columns of the answers."""
        said = self.rows.answering
        names = batch.column_names if hasattr(batch, "column_names") else list(batch)
        both = set(said.columns).intersection(names)
        if both:
            raise ValueError(f"the dataset has a column {min(both)}, as the answer has; give a column_prefix")
        wanted = [name for name in (said.prompt, said.messages, *said.row_settings) if name in names]
        if hasattr(batch, "column_names"):
            columns = {name: batch.column(name).to_pylist() for name in wanted}
            count = batch.num_rows
        else:
            columns = {name: batch[name].tolist() for name in wanted}
            count = len(batch[names[0]]) if names else 0
        answers = list(self.rows.answers({name: columns[name][at] for name in wanted} for at in range(count)))
        return _joined(batch, answers)


class PartAnswerer(Answerer):
    """Answers parts of files: reads each part, and writes its file of answers when all of its rows are done."""

    def __init__(self, model: str, folder: Folder, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._folder = folder

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Return the number of rows and of errors of each part, int64 arrays by name."""
        import numpy as np

        counts: dict[str, list[int]] = {"part": [], "rows": [], "errors": []}
        for part in batch["part"]:
            rows, errors = self._answer(Part(**part))
            for name, value in (("part", part["number"]), ("rows", rows), ("errors", errors)):
                counts[name].append(value)
        return {name: np.asarray(values, dtype=np.int64) for name, values in counts.items()}

    def _answer(self, part: Part) -> tuple[int, int]:
        rows, table = read_part(part)
        answers = list(self.rows.answers(rows))
        column = f"{self.rows.answering.column_prefix}error"
        for row, answer in zip(rows, answers, strict=True):
            if None in row:
                answer[column] = row[None]  # type: ignore[index]
        self._folder.write(part, rows, table, answers)
        return len(rows), sum(answer[column] is not None for answer in answers)


def _joined(batch: Any, answers: list[dict[str, Any]]) -> Any:
    if hasattr(batch, "column_names"):
        return with_columns(batch, answers)
    columns: Mapping[str, list[Any]] = {name: [answer[name] for answer in answers] for name in (answers or [{}])[0]}
    if hasattr(batch, "assign"):
        return batch.assign(**columns)
    import numpy as np

    return {**batch, **{name: np.asarray(values, _kind(name)) for name, values in columns.items()}}


def _kind(name: str) -> Any:
    return "int64" if name.endswith("_tokens") else object


def _here() -> str:
    if not ray.is_initialized():
        return "this machine"
    context = ray.get_runtime_context()
    return f"node {context.get_node_id()[:12]} (cores of the actor: {cores_of_this_actor()})"
