"""What becomes of a model file, or of its reader, while somebody shortens, writes to or replaces the file.

usage: file_in_use_child.py CASE FILE FOLDER     prints one JSON object; a process of its own, since it may die

FILE is a model of which the case makes its own copy in FOLDER.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import llamacpu
from llamacpu.engine import opened_model

TOKENS = list(range(2, 40))
CASES: dict[str, Callable[[Path, Path], Any]] = {}


def case(function: Callable[[Path, Path], Any]) -> Callable[[Path, Path], Any]:
    CASES[function.__name__] = function
    return function


def copied(path: Path, folder: Path) -> Path:
    """A copy of the model; of a split model of all its files."""
    match = re.fullmatch(r"(.*)-00001-of-(\d+)\.gguf", path.name)
    for part in path.parent.glob(f"{match[1]}-*-of-{match[2]}.gguf") if match else [path]:
        shutil.copy(part, folder / part.name)
    return folder / path.name


def last_file(path: Path) -> Path:
    """Where the last weights are."""
    return sorted(path.parent.glob("*.gguf"))[-1]


def logits(model: llamacpu.Model) -> list[float]:
    """What the model says, as it would be said by any other process."""
    values = model.session().forward(TOKENS)
    assert np.isfinite(values).all()
    return [float(value) for value in values]


def outcome(work: Callable[[], Any]) -> str:
    try:
        work()
    except llamacpu.LlamaCpuError as error:
        return f"{type(error).__name__}: {error}"
    return "ran"


@case
def shortened_before_the_first_step(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    session = model.session()
    with last_file(own).open("r+b") as file:
        file.truncate(6000)
    found = [outcome(lambda: session.forward(TOKENS)), outcome(lambda: logits(model)), outcome(model.prepare)]
    assert session.position == 0
    model.close()
    # The process is none the worse for it.
    with llamacpu.Model(path, threads=2) as other:
        logits(other)
    return found


@case
def shortened_to_nothing_after_a_step(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    logits(model)
    last_file(own).write_bytes(b"")
    return [outcome(lambda: logits(model)), outcome(lambda: logits(model))]


@case
def shortened_and_made_whole_again(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    shutil.copy(last_file(path) if own.name != path.name else path, own)
    return [outcome(lambda: logits(model))]


@case
def shortened_while_a_step_runs(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    found = []
    for delay in range(6):
        shutil.copy(path, own)
        model = llamacpu.Model(own, threads=2)
        sessions = [model.session() for _ in range(4)]
        started = threading.Event()

        def run(model: llamacpu.Model = model, sessions: Any = sessions, started: threading.Event = started) -> None:
            started.set()
            model.step([(session, TOKENS * 3) for session in sessions])

        outcomes: list[str] = []
        thread = threading.Thread(target=lambda run=run, outcomes=outcomes: outcomes.append(outcome(run)))
        thread.start()
        started.wait()
        threading.Event().wait(0.002 * delay)
        own.write_bytes(b"")
        thread.join()
        found += outcomes
    return found


@case
def shortened_before_texts_are_classified(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    states = np.ones((1, model.config.embedding_length), dtype=np.float32)
    model.classify(states)
    model.embed("the dog")
    with own.open("r+b") as file:
        file.truncate(6000)
    return [outcome(lambda: model.classify(states)), outcome(lambda: model.embed("the dog"))]


@case
def shortened_before_a_past_is_computed_again(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    session = model.session()
    session.forward(TOKENS * 12, logits="none")
    session.truncate(20)
    assert model.fingerprint  # read now, so that it is the past that is lost
    faulthandler.enable()  # takes the signal over, as anybody may between two calls
    with own.open("r+b") as file:
        file.truncate(6000)
    found = [outcome(lambda: session.save(folder / "never")), outcome(lambda: session.forward([5]))]
    assert session.position == 20
    assert not (folder / "never").exists()
    return found


@case
def shortened_while_another_model_has_it(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    first, second = llamacpu.Model(own, threads=2), llamacpu.Model(own, threads=2)
    logits(first)
    first.close()
    with own.open("r+b") as file:
        file.truncate(6000)
    found = [outcome(lambda: logits(second)), outcome(lambda: llamacpu.Model(own, threads=2))]
    shutil.copy(path, folder / "new")
    (folder / "new").replace(own)
    found.append(outcome(lambda: logits(second)))
    with llamacpu.Model(own, threads=2) as third:
        logits(third)
    return found


@case
def written_to_in_place(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    threading.Event().wait(0.02)
    with last_file(own).open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
    return [outcome(lambda: logits(model))]


@case
def another_file_renamed_over_it(path: Path, folder: Path) -> list[float]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    (folder / "new").write_bytes(b"GGUF is something else")
    (folder / "new").replace(own)
    return logits(model)


@case
def another_model_renamed_over_it_while_it_is_opened(path: Path, folder: Path) -> list[float]:
    own = copied(path, folder)
    other = bytearray(own.read_bytes())
    other[-100_000:] = bytes(reversed(other[-100_000:]))
    (folder / "new").write_bytes(other)
    config_for = opened_model.config_for

    def replacing(file: llamacpu.GGUFFile) -> Any:
        (folder / "new").replace(own)
        return config_for(file)

    opened_model.config_for = replacing
    return logits(llamacpu.Model(own, threads=2))


@case
def copied_and_gone(path: Path, folder: Path) -> list[float]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2, load="copy")
    assert not model.mapped
    for part in own.parent.glob("*.gguf"):
        part.write_bytes(b"")
        part.unlink()
    assert model.tokenizer.decode(model.tokenizer.encode("a b"), skip_special=True) == "a b"
    session = model.session()
    session.forward(TOKENS[:5])
    session.save(folder / "saved")
    assert model.load_session(folder / "saved").tokens == TOKENS[:5]
    logits(model)
    return logits(model)


@case
def headers_of_a_shortened_file(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    file = llamacpu.GGUFFile(own)
    words = file.metadata["tokenizer.ggml.tokens"]
    with own.open("r+b") as shortened:
        shortened.truncate(64)
    last = file.tensors[0]
    return [
        outcome(lambda: words[0]),
        outcome(lambda: list(words)),
        outcome(lambda: llamacpu.Tokenizer(file)),
        outcome(lambda: file.tensor_bytes(last, 0, min(last.nbytes, 100))),
    ]


def lost_bytes(folder: Path) -> mmap.mmap:
    """A map that is none of ours, of bytes that are not there."""
    path = folder / "other"
    path.write_bytes(bytes(1 << 16))
    with path.open("r+b") as file:
        lost = mmap.mmap(file.fileno(), 0)
        file.truncate(0)
    return lost


@case
def lost_pages_of_others(path: Path, folder: Path) -> None:
    """Ends the process, as it would without us."""
    with llamacpu.Model(copied(path, folder), threads=2) as model:
        logits(model)
        sys.stdout.write("null")
        sys.stdout.flush()
        lost_bytes(folder)[5000]


@case
def lost_pages_of_others_with_a_traceback(path: Path, folder: Path) -> None:
    """Ends the process behind faulthandler's traceback, whoever came first."""
    with llamacpu.Model(copied(path, folder), threads=2) as model:
        faulthandler.enable()
        logits(model)
        sys.stdout.write("null")
        sys.stdout.flush()
        lost_bytes(folder)[5000]


@case
def shortened_after_faulthandler_came(path: Path, folder: Path) -> list[str]:
    own = copied(path, folder)
    model = llamacpu.Model(own, threads=2)
    faulthandler.enable()
    with last_file(own).open("r+b") as file:
        file.truncate(6000)
    found = [outcome(lambda: logits(model))]
    faulthandler.disable()
    return [*found, outcome(lambda: logits(model))]


@case
def a_signal_that_somebody_sent(path: Path, folder: Path) -> list[int]:
    """Goes to the handler of the program."""
    seen: list[int] = []
    signal.signal(signal.SIGBUS, lambda number, _frame: seen.append(number))
    with llamacpu.Model(copied(path, folder), threads=2) as model:
        logits(model)
        os.kill(os.getpid(), signal.SIGBUS)
        logits(model)
        os.kill(os.getpid(), signal.SIGBUS)
        logits(model)
    return seen


if __name__ == "__main__":
    name, model_path, target = sys.argv[1:]
    result = CASES[name](Path(model_path), Path(target))
    if result is not None:
        sys.stdout.write(json.dumps(result))
