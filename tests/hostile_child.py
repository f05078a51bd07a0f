"""Opens, loads and runs every file of one kind of `hostile_cases`, in a process with little memory.

usage: hostile_child.py KIND FOLDER      prints one JSON object; the last line of FOLDER/progress names the case at work

Every case must end in a `LlamaCpuError` or in a model that runs. When a batch of cases takes longer than `SECONDS`, the
process ends with a traceback; a case that needs more than `MEMORY` bytes ends in a MemoryError or an abort.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import hostile_cases
import llamacpu
from llamacpu.chat import Chat
from llamacpu.cli.info import describe

SECONDS = 100
MEMORY = 256 << 20


def limit_memory() -> None:
    """Lets the process grow by `MEMORY` from here, where the system can do that."""
    try:
        import resource
    except ImportError:
        return  # Windows
    status = Path("/proc/self/statm")
    if status.exists():
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def run(path: Path, chat: bool) -> str:
    """How far the file gets: described, its text encoded (with `chat` also a conversation), its logits computed."""
    with llamacpu.GGUFFile(path) as file:
        json.dumps(describe(file, None, "f16", True))
        try:
            tokenizer = llamacpu.Tokenizer(file)
            tokenizer.decode(tokenizer.encode("ab a b", parse_special=True))
            if chat:
                Chat(file.metadata, tokenizer).encode([{"role": "user", "content": "a </s> b"}])
        except llamacpu.LlamaCpuError:
            pass
    with llamacpu.Model(path, threads=1) as model:
        session = model.session()
        logits = session.forward([0, 1, 0])
        assert logits.dtype == np.float32
        assert logits.shape == (model.vocab_size,)
    return "ran"


def main(kind: str, folder: str) -> None:
    path = Path(folder) / "case.gguf"
    outcomes: Counter[str] = Counter()
    wrong = []
    path.write_bytes(hostile_cases.sound_file().bytes())
    chat = kind == "metadata values"  # templates take longer than all the rest, and are no part of other kinds
    run(path, True)  # whatever is imported late is imported before the limit
    limit_memory()
    # Overwritten in place: truncating a file on opening it waits for the disk.
    with path.open("r+b", 0) as case, (Path(folder) / "progress").open("w", 1) as progress:
        for number, (name, data) in enumerate(hostile_cases.KINDS[kind]()):
            if number % 64 == 0:
                faulthandler.dump_traceback_later(SECONDS, exit=True)
            progress.write(f"{name}\n")
            case.seek(0)
            case.write(data)
            case.truncate()
            try:
                outcomes[run(path, chat)] += 1
            except llamacpu.LlamaCpuError as error:
                outcomes[type(error).__name__] += 1
                if not str(error) or "\n" in str(error):
                    wrong.append(f"{name}: message {error}")
            except BaseException as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({"outcomes": outcomes, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
