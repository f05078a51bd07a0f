"""`answer_files`: from files of prompts to a folder of answers, on a cluster, in as many runs as it takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.data

from llamacpu.engine.priority import Priority
from llamacpu.ray.answering import Answering
from llamacpu.ray.cluster import PROCESS_BYTES, check_fits, weights_of
from llamacpu.ray.inputs import files_in, format_of, parts_of
from llamacpu.ray.parts import Folder
from llamacpu.ray.stages import PartAnswerer

__all__ = ["Summary", "answer_files"]

log: logging.Logger = logging.getLogger("llamacpu.ray")


class Summary(NamedTuple):
    """Summary of a run.

    rows     rows that it answered
    errors   rows among these whose column "error" says why there is no answer
    parts    files that it wrote
    skipped  files that existed already
    """

    rows: int
    errors: int
    parts: int
    skipped: int


def answer_files(
    model: str | os.PathLike[str],
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    outputs: str | os.PathLike[str],
    *,
    actors: int | tuple[int, int] = 1,
    num_cpus: int = 1,
    parallel: int = 16,
    rows_per_part: int = 256,
    context: int | None = None,
    kv_memory: int | None = None,
    mmproj: str | os.PathLike[str] | bool | None = None,
    priority: Priority | None = None,
    duty: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **answering: Any,
) -> Summary:
    """Answer the rows of JSONL or Parquet files, and write them with their answers into a folder, in the same format.

    A run that ended early for any reason is resumed by the same call, which computes the parts that are not written
    yet. A part is a file that is moved into place when it is complete, so no row is lost or duplicated, whatever dies:
    an actor (Ray starts another one), a machine, the program. Rows stay in order; empty lines are left out.

    model         a .gguf file. It, the inputs and the outputs are paths that all machines can read
    inputs        files and folders
    outputs       an empty or new folder, or that of an earlier run with the same model, inputs and settings; only one
                  run at a time may write to it
    actors        engines, each with its own copy of the weights: a number, or the least and the most
    num_cpus      cores of each actor, which are the threads of its engine
    parallel      rows of an actor that share each pass over the weights
    rows_per_part rows in a file of answers, and the most that each actor recomputes after being killed
    context       the most tokens of a row, prompt and answer together; None for the model's training context
    kv_memory     bytes of keys and values of an actor; None for half of what its machine has left
    mmproj        file of the vision encoder, for rows of messages with pictures (data URLs); None for the one beside
                  the model, False for none
    priority, duty  of the actors' processes, as for `llamacpu.Model`
    on_progress   called with (parts done, total parts)
    answering     the fields of `llamacpu.ray.Answering`: max_tokens, sampling, system, stop, and row_settings
                  for columns with per-row settings

    Joins the cluster that `ray.init` has connected to, or starts a local one. Raises ValueError for inputs and outputs
    that do not match and for more cores or memory than a machine has, what opening the model raises, and Ray's errors
    if actors cannot be started.
    """
    if rows_per_part < 1 or parallel < 1:
        raise ValueError(f"rows_per_part is {rows_per_part} and parallel {parallel}; expected 1 or more of each")
    asked = Answering(**answering)
    path = Path(model).resolve()
    encoder = str(Path(mmproj).resolve()) if isinstance(mmproj, (str, os.PathLike)) else mmproj
    weights = weights_of(path) + (weights_of(encoder) if isinstance(encoder, str) else 0)
    files = files_in(inputs)
    folder = Folder(outputs, format_of(files[0]))
    if any(file.is_relative_to(folder.path) for file in files):
        raise ValueError(f"{folder.path} holds the inputs; give another folder for the answers")
    parts, digest = parts_of(files, rows_per_part, asked.columns)
    sees = {"mmproj": Path(encoder).name} if isinstance(encoder, str) else {}
    manifest = {
        "version": 1,
        "model": {"name": path.name, "bytes": path.stat().st_size},
        "inputs": {"sha256": digest, "files": len(files), "rows": sum(part.count for part in parts)},
        "settings": {**asked.described(), "context": context, **sees},
        "rows_per_part": rows_per_part,
    }
    if not ray.is_initialized():
        ray.init()
    memory = PROCESS_BYTES + weights + (kv_memory or 0)
    check_fits(path, num_cpus, memory)
    with folder.locked():
        folder.begin(manifest)
        missing = folder.missing(parts)
        done, rows, errors = len(parts) - len(missing), 0, 0
        log.info("%d of %d parts are there", done, len(parts))
        skipped = done
        if missing:
            low, high = (actors, actors) if isinstance(actors, int) else actors
            settings = {
                "answering": asked, "parallel": parallel, "context": context, "kv_memory": kv_memory,
                "mmproj": encoder, "priority": priority, "duty": duty,
            }  # fmt: skip
            dataset = ray.data.from_items(
                [{"part": asdict(part)} for part in missing], override_num_blocks=len(missing)
            )
            answered = dataset.map_batches(
                PartAnswerer,
                fn_constructor_args=(str(path), folder),
                fn_constructor_kwargs=settings,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=low, max_size=high, max_tasks_in_flight_per_actor=2),
                num_cpus=num_cpus,
                memory=memory,
            )
            for row in answered.iter_rows():
                done, rows, errors = done + 1, rows + int(row["rows"]), errors + int(row["errors"])
                if on_progress is not None:
                    on_progress(done, len(parts))
    if left := folder.missing(parts):
        raise RuntimeError(f"{len(left)} parts have no answers, {folder.file(left[0])} first; run it again")
    return Summary(rows, errors, len(missing), skipped)
