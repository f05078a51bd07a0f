"""Beyond one machine, with Ray: from files of prompts to files of answers, and replicas of the server.

answering          what is asked of every row, and the columns of its answer
rows               rows with a prompt -> an engine -> columns of the answer; independent of Ray
inputs             the rows of JSONL and Parquet files, and where the files can be split into parts
parts              what is to be computed, what exists already, and the files it is written to
cluster            whether the cluster has the resources that are requested
stages, batch      `Answerer` for datasets of Ray Data; `answer_files`, which can be resumed
affinity           requests -> the key of their prefix -> replicas in order of preference; independent of Ray
forwarding         HTTP requests to a replica and its responses back; independent of Ray
router, serving    `application` for Ray Serve: replicas of the server behind a prefix-aware front

Requires the extra `llamacpu[ray]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamacpu.ray.answering import Answering
    from llamacpu.ray.batch import Summary, answer_files
    from llamacpu.ray.serving import application
    from llamacpu.ray.stages import Answerer

__all__ = ["Answerer", "Answering", "Summary", "answer_files", "application"]

_MODULES = {
    "Answerer": "stages",
    "Answering": "answering",
    "Summary": "batch",
    "answer_files": "batch",
    "application": "serving",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'llamacpu.ray' has no attribute {name!r}")
    _require()
    try:
        return getattr(importlib.import_module(f"llamacpu.ray.{_MODULES[name]}"), name)
    except ImportError as error:
        # Plain Ray is installed without the dependencies of its libraries.
        raise _missing(error) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _require() -> None:
    try:
        import pyarrow  # noqa: F401
        import ray  # noqa: F401
    except ImportError as error:
        raise _missing(error) from None


def _missing(error: ImportError) -> ImportError:
    return ImportError(f"llamacpu.ray needs {error.name}; install it with: pip install llamacpu[ray]", name=error.name)
