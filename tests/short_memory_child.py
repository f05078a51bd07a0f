"""Does one thing with less and less memory, each time in a fork of a process that has done it with enough.

Reads lines of JSON, [CASE, MODEL, FOLDER], and answers each with one: outcome -> how often, and what was wrong. Each
case runs in a fork of this process, which itself only imports.

A fork that gets `room` bytes of address space more than it has ends in one of three ways: it does the thing, with the
same result; or it says that memory is short, and does the thing when it gets more; or it dies, which is what is looked
for here.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import llamacpu
from llamacpu.constraints.gbnf import GbnfGrammar
from llamacpu.sampling import Sampler

KB = 1 << 10
# Around what any small thing needs, then up to all that these cases need.
ROOMS = [
    0,
    *(4 * KB << step for step in range(7)),
    *range(384 * KB, 4096 * KB, 256 * KB),
    *range(4096 * KB, 1 << 26, 2048 * KB),
]

Work = Callable[[], Any]
CASES: dict[str, Callable[[Path, Path], Work]] = {}


def case(function: Callable[[Path, Path], Work]) -> Callable[[Path, Path], Work]:
    CASES[function.__name__] = function
    return function


def text(size: int) -> str:
    words = ["abc", "de<s>", "a " * 5, "Ωλ", "b" * 70, "12345", "\n"]
    return " ".join(words[place % len(words)] for place in range(size // 8))


@case
def encode(path: Path, folder: Path) -> Work:
    tokenizer = llamacpu.Model(path).tokenizer
    given = text(150_000)
    return lambda: tokenizer.encode(given, parse_special=True)


@case
def encode_one_word(path: Path, folder: Path) -> Work:
    tokenizer = llamacpu.Model(path).tokenizer
    return lambda: tokenizer.encode("ab" * 50_000)


@case
def decode(path: Path, folder: Path) -> Work:
    tokenizer = llamacpu.Model(path).tokenizer
    ids = tokenizer.encode(text(150_000))
    return lambda: tokenizer.decode(ids)


@case
def tokenizer(path: Path, folder: Path) -> Work:
    file = llamacpu.GGUFFile(path)
    return lambda: llamacpu.Tokenizer(file).encode("abc de")


@case
def sessions(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    model.session().forward([2])

    def work() -> Any:
        kept = [model.session(kv_type=kind) for kind in ("f16", "f32", "q8_0") for _ in range(12)]
        return [session.forward([3 + place]).tobytes() for place, session in enumerate(kept)]

    return work


@case
def forward(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    session = model.session()

    def work() -> Any:
        session.truncate(0)
        rows = session.forward(list(range(2, 302)), logits="all").tobytes()
        other = session.fork()
        return rows, other.forward([5]).tobytes(), other.tokens

    return work


@case
def rewinding(path: Path, folder: Path) -> Work:
    """A fork, steps of one token and of many, a few tokens back, and far back."""
    model = llamacpu.Model(path, threads=2)
    session = model.session()
    session.forward(list(range(2, 42)), logits="none")

    def work() -> Any:
        session.truncate(40)
        other = session.fork()
        rows = [other.forward([5 + place]).tobytes() for place in range(8)]
        other.truncate(43)
        rows.append(other.forward([9]).tobytes())
        other.truncate(20)
        rows.append(other.forward([9]).tobytes())
        return rows

    return work


@case
def hidden(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    return lambda: model.session().hidden(list(range(2, 162)), layers=[0, -1]).tobytes()


@case
def embed(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    texts = ["ab " * length for length in (1, 7, 40)]
    assert model.tokenizer
    return lambda: model.embed(texts).tobytes()


def loading(path: Path, **settings: Any) -> Work:
    def work() -> Any:
        with llamacpu.Model(path, threads=3, **settings) as model:
            return model.session().forward([2, 3, 4]).tobytes()

    return work


@case
def load(path: Path, folder: Path) -> Work:
    return loading(path)


@case
def load_a_copy(path: Path, folder: Path) -> Work:
    return loading(path, load="copy")


@case
def prepare(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    session = model.session()

    def work() -> Any:
        model.prepare()
        session.truncate(0)
        return session.forward([2, 3]).tobytes()

    return work


@case
def restore(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    session = model.session()
    session.forward(list(range(2, 302)), logits="none")
    session.save(folder / "saved")

    def work() -> Any:
        again = model.load_session(folder / "saved")
        return again.tokens, again.forward([5]).tobytes()

    return work


@case
def generate(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    given = "ab " * 60
    sampling = llamacpu.Sampling(seed=1, dry_multiplier=1, typical_p=0.9)
    assert model.tokenizer
    return lambda: model.generate(given, max_tokens=30, sampling=sampling, log_probabilities=3).read().text


@case
def grammar(path: Path, folder: Path) -> Work:
    """A grammar of megabytes, and a text of many states under it."""
    tokenizer = llamacpu.Model(path).tokenizer
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = " | ".join(f'"{letter * place}" "." letter' for letter in letters for place in range(1, 40))
    letter = " | ".join(f'"{letter}"' for letter in letters)
    long = "ab" * 20_000
    given = f'root ::= ("<" letter{{0,1500}} ">")* long?\nletter ::= {letter} | "!" words\nwords ::= {words}\n'
    given += f'long ::= "{long}"'
    text = b"".join(b"<" + letters.encode() * count + b">" for count in (50, 50, 50, 50, 57)) + long.encode()

    def work() -> Any:
        matcher = GbnfGrammar(given, "root").matcher(tokenizer)
        return matcher.feed(text), matcher.accepting, matcher.allowed().tolist()

    return work


@case
def saving(path: Path, folder: Path) -> Work:
    model = llamacpu.Model(path, threads=2)
    session = model.session()
    session.forward(list(range(2, 302)), logits="none")
    number = iter(range(1000))

    def work() -> Any:
        target = folder / f"saved{os.getpid()}-{next(number)}"
        session.save(target)
        found = target.read_bytes()
        target.unlink()
        return found

    return work


@case
def sampling(path: Path, folder: Path) -> Work:
    """The steps of the sampler alone, over a vocabulary of 30,000."""
    given = np.random.default_rng(1).normal(size=30_000).astype(np.float32)
    settings = llamacpu.Sampling(
        seed=1, top_k=0, top_p=0.9, min_p=0.01, typical_p=0.9, repeat_penalty=1.1, dry_multiplier=1.0
    )

    def work() -> Any:
        chain = Sampler(settings)
        return [chain.sample(given, list(range(5)) * 4) for _ in range(2)]

    return work


def limit(room: int) -> None:
    """Lets the process have `room` bytes of address space more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + room, hard))


def fill_the_heap() -> None:
    """Takes what the heap has free, which would otherwise hide what is asked of the system."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    limit(0)
    for size in (1 << 20, 1 << 16, 1 << 13, 1 << 11, 512, 128):
        while libc.malloc(ctypes.c_size_t(size)):
            pass
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def attempt(work: Work, room: int, wanted: Any) -> str:
    """The end of a fork, in words."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    fill_the_heap()
    limit(room)
    try:
        found = work()
        end = "done" if found == wanted else "wrong: another result"
    except MemoryError:
        end = "MemoryError"
    except llamacpu.LlamaCpuError as error:
        end = type(error).__name__
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return end if work() == wanted else "wrong: another result with more memory"


def forked(work: Work, room: int, wanted: Any) -> str:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            end = attempt(work, room, wanted)
        except BaseException:
            end = "wrong: " + traceback.format_exc()[-800:]
        os.write(write, end.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return said if code == 0 and said else f"wrong: ended with {code}"


def sweep(name: str, path: str, folder: str) -> dict[str, Any]:
    work = CASES[name](Path(path), Path(folder))
    # With another model, so that what is imported late has been, and the forks find everything as cold as at first.
    wanted = CASES[name](Path(path), Path(folder))()
    outcomes: Counter[str] = Counter()
    wrong = []
    done = 0
    # LLAMACPU_THOROUGH: every room; otherwise every third one, which ones by the name.
    rooms = ROOMS if os.environ.get("LLAMACPU_THOROUGH") else ROOMS[len(name) % 3 :: 3]
    for room in rooms:
        end = forked(work, room, wanted)
        outcomes[end.split(":")[0]] += 1
        if end.startswith("wrong"):
            wrong.append(f"{room} bytes: {end}")
        done = done + 1 if end == "done" else 0
        if done == 3 or len(wrong) == 3:
            break
    return {"outcomes": outcomes, "wrong": wrong}


def answer(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                answer(sweep(*json.loads(line)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            answer({"outcomes": {}, "wrong": [f"the sweep ended with {code}"]})


if __name__ == "__main__":
    main()
