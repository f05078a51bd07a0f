"""Model and Session as objects: arguments, errors, cancellation, threads, memory."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

import llamacpu
from llamacpu.model import CancelToken, Model
from tiny_models import Shape

pytestmark = pytest.mark.instruction_set

TinyModel = Callable[..., Path]

# Slow enough to be interrupted in the middle, small enough to be written in a moment.
SLOW = Shape(width=512, feed_forward=1536, layers=8, heads=8, kv_heads=8, context=100_000)


@pytest.fixture
def model(tiny_model: TinyModel) -> Iterator[Model]:
    with Model(tiny_model("gqa"), threads=2) as model:
        yield model


def test_what_a_model_says(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    with llamacpu.Model(path, threads=2) as model:
        assert model.metadata["general.architecture"] == "llama"
        assert model.config["heads"] == [8, 8]
        assert model.vocab_size == len(model.metadata["tokenizer.ggml.tokens"])
        assert model.context_length == 512
        assert model.threads == 2
        assert model.threads_reason == "asked for"
        assert model.isa in ("scalar", "amx-software", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm")
        assert model.path == path
        assert 0 < model.weight_bytes < path.stat().st_size
        assert path.name in repr(model)


@pytest.mark.instruction_set(one_in=None)
def test_the_default_number_of_threads_has_a_reason(tiny_model: TinyModel) -> None:
    with Model(tiny_model("gqa")) as model:
        assert 1 <= model.threads <= (os.cpu_count() or 1)
        assert model.threads_reason not in ("", "asked for")


def test_a_session_grows_forks_and_rewinds(model: Model) -> None:
    session = model.session()
    assert (session.position, session.tokens, session.nbytes, session.context) == (0, [], 0, 512)
    session.forward([3, 1, 2], logits="none")
    assert (session.position, session.tokens) == (3, [3, 1, 2])
    page = session.nbytes
    session.forward([5] * 61, logits="none")
    assert session.nbytes == page
    session.forward([5], logits="none")
    assert session.nbytes == 2 * page
    fork = session.fork()
    fork.truncate(2)
    assert (fork.tokens, fork.nbytes, session.position) == ([3, 1], page, 65)
    fork.truncate(2)
    assert fork.position == 2
    assert fork.model is model


@pytest.mark.parametrize("ids", [np.array([1, 2, 3]), np.array([1, 2, 3], dtype=np.uint16), (1, 2, 3), range(1, 4)])
def test_ids_from_any_sequence(model: Model, ids: object) -> None:
    session = model.session()
    assert np.array_equal(session.forward(ids), model.session().forward([1, 2, 3]))  # type: ignore[call-overload]
    assert session.tokens == [1, 2, 3]


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize(
    ("ids", "exception", "message"),
    [
        ([], ValueError, "at least one"),
        ([0, 10**6], ValueError, "outside the vocabulary"),
        ([-1], ValueError, "outside the vocabulary"),
        ([2**80], ValueError, "outside the vocabulary"),
        ([1.5], TypeError, "integers"),
        (["a"], TypeError, "integers"),
        ("text", TypeError, "not text"),
        ([[1, 2]], TypeError, "integers"),
        (np.zeros((2, 2), dtype=np.int64), TypeError, "integers"),
        (None, TypeError, "integers"),
    ],
)
def test_wrong_ids(model: Model, ids: object, exception: type[Exception], message: str) -> None:
    session = model.session()
    session.forward([1, 2], logits="none")
    with pytest.raises(exception, match=message):
        session.forward(ids)  # type: ignore[call-overload]
    assert session.tokens == [1, 2]


@pytest.mark.instruction_set(one_in=None)
def test_wrong_arguments(model: Model, tiny_model: TinyModel) -> None:
    session = model.session()
    with pytest.raises(ValueError, match='logits is "first"'):
        session.forward([1], logits="first")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match='kv_type is "f8"'):
        model.session(kv_type="f8")  # type: ignore[arg-type]
    for context in (0, -5):
        with pytest.raises(ValueError, match="at least 1"):
            model.session(context=context)
    for tokens in (1, -1):
        with pytest.raises(ValueError, match="truncate"):
            session.truncate(tokens)
    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads"):
            Model(tiny_model("gqa"), threads=threads)
    with pytest.raises(ValueError, match="twice"):
        model.step([(session, [1]), (session, [2])])
    with Model(tiny_model("mha"), threads=1) as other, pytest.raises(ValueError, match="another model"):
        model.step([(other.session(), [1])])
    assert model.step([]) == []
    assert session.position == 0


def test_a_full_context_is_an_error_that_counts(model: Model) -> None:
    session = model.session(context=10)
    session.forward([1] * 8, logits="none")
    with pytest.raises(llamacpu.ContextOverflow, match=r"8 tokens are there and 3 more do not fit into 10"):
        session.forward([1] * 3)
    assert session.position == 8
    session.forward([1, 1])
    assert session.position == session.context


def test_one_bad_item_moves_no_session(model: Model) -> None:
    full, free = model.session(context=2), model.session()
    full.forward([1, 2], logits="none")
    with pytest.raises(llamacpu.ContextOverflow):
        model.step([(free, [1, 2, 3]), (full, [3])])
    assert (free.position, full.position) == (0, 2)


@pytest.mark.instruction_set(one_in=None)
def test_a_closed_model_says_so(tiny_model: TinyModel) -> None:
    model = Model(tiny_model("gqa"), threads=1)
    session = model.session()
    model.close()
    model.close()
    assert model.closed
    with pytest.raises(llamacpu.LlamaCpuError, match="closed"):
        session.forward([1])
    with pytest.raises(llamacpu.LlamaCpuError, match="closed"):
        model.session()


def rewritten(source: Path, target: Path, rename: Callable[[str], str | None]) -> Path:
    """A copy of a model file with tensors renamed or, for `None`, left out."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        if (name := rename(tensor.name)) is not None:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize("missing", ["blk.1.attn_q.weight", "output_norm.weight", "token_embd.weight"])
def test_a_missing_tensor_is_named(tiny_model: TinyModel, tmp_path: Path, missing: str) -> None:
    path = rewritten(tiny_model("gqa"), tmp_path / "m.gguf", lambda name: None if name == missing else name)
    with pytest.raises(llamacpu.ModelError, match=missing):
        Model(path)


@pytest.mark.instruction_set(one_in=None)
def test_a_tensor_of_another_shape_is_named(tiny_model: TinyModel, tmp_path: Path) -> None:
    names = {"blk.0.ffn_up.weight": "blk.0.ffn_down.weight", "blk.0.ffn_down.weight": "blk.0.ffn_up.weight"}
    path = rewritten(tiny_model("gqa"), tmp_path / "m.gguf", lambda name: names.get(name, name))
    with pytest.raises(llamacpu.ModelError, match=r"blk\.0\.ffn_(up|down)\.weight.*shape"):
        Model(path)


@pytest.mark.instruction_set(one_in=None)
def test_an_unread_tensor_of_a_layer_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A norm of the queries, as other architectures have it, would silently be left out."""
    source = tiny_model("bias")
    spare = "blk.0.attn_q.bias"
    path = rewritten(source, tmp_path / "m.gguf", lambda name: "blk.0.attn_q_norm.weight" if name == spare else name)
    with pytest.raises(llamacpu.ModelError, match=r"attn_q_norm"):
        Model(path)


@pytest.mark.instruction_set(one_in=None)
def test_other_unread_tensors_are_refused_too(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = rewritten(
        tiny_model("freqs"), tmp_path / "m.gguf", lambda name: "spare.weight" if name == "rope_freqs.weight" else name
    )
    with pytest.raises(llamacpu.ModelError, match=r"no use for the tensors spare\.weight"):
        Model(path)


@pytest.mark.instruction_set(one_in=None)
def test_frequencies_that_old_converters_stored_are_logged(
    tiny_model: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = "blk.0.rope_freqs.weight"
    path = rewritten(
        tiny_model("freqs"), tmp_path / "m.gguf", lambda name: stored if name == "rope_freqs.weight" else name
    )
    with caplog.at_level(logging.WARNING, "llamacpu"), Model(path):
        pass
    assert stored in caplog.text


@pytest.mark.instruction_set(one_in=None)
def test_a_token_stops_a_step_from_another_thread(tiny_model: TinyModel) -> None:
    with Model(tiny_model(SLOW), threads=2) as model:
        session = model.session()
        session.forward([1, 2, 3], logits="none")
        token = CancelToken()
        timer = threading.Timer(0.1, token.cancel)
        timer.start()
        with pytest.raises(llamacpu.Cancelled):
            session.forward([1] * 50_000, cancel=token)
        timer.join()
        assert token.cancelled
        assert session.tokens == [1, 2, 3]
        with pytest.raises(llamacpu.Cancelled):
            session.forward([4], cancel=token)
        expected = model.session().forward([1, 2, 3, 4])
        assert np.array_equal(session.forward([4]), expected)


@pytest.mark.instruction_set(one_in=None)
def test_a_token_is_cancelled_with_its_parent() -> None:
    first = CancelToken()
    second = CancelToken(parent=first)
    third = CancelToken(100.0, second)
    second.cancel()
    assert (first.cancelled, second.cancelled, third.cancelled) == (False, True, True)
    assert CancelToken(parent=CancelToken(timeout=0.0)).cancelled


@pytest.mark.instruction_set(one_in=None)
def test_a_timeout_stops_a_step(tiny_model: TinyModel) -> None:
    with Model(tiny_model(SLOW), threads=2) as model:
        session = model.session()
        with pytest.raises(llamacpu.Cancelled):
            session.forward([1] * 50_000, cancel=CancelToken(timeout=0.1))
        assert session.position == 0
        assert session.forward([1], cancel=CancelToken(timeout=1e300)).shape == (model.vocab_size,)
    for timeout in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            CancelToken(timeout=timeout)


INTERRUPTED = """
import os, signal, sys, threading, time
from llamacpu import Model
def press_control_c():
    while True:
        try:
            session.fork()
        except RuntimeError:  # A step is running.
            return os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)
with Model(sys.argv[1], threads=2) as model:
    session = model.session()
    session.forward([1, 2, 3], logits="none")
    try:
        threading.Thread(target=press_control_c, daemon=True).start()
        while True:
            try:
                session.forward([1] * 50_000)
            except RuntimeError:  # The other thread was forking the session.
                pass
    except KeyboardInterrupt:
        print("interrupted at", session.position, len(session.forward([4])), flush=True)
"""


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child process")
def test_control_c_stops_a_step(tiny_model: TinyModel) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", INTERRUPTED, str(tiny_model(SLOW))]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.startswith("interrupted at 3 ")


@pytest.mark.instruction_set(one_in=None)
def test_the_gil_is_free_during_a_step(tiny_model: TinyModel) -> None:
    """While one thread steps, this one counts; and the stepped session refuses a second step."""
    with Model(tiny_model(SLOW), threads=1) as model:
        session, token = model.session(), CancelToken(timeout=100)
        errors: list[BaseException] = []

        def work() -> None:
            while not errors:
                try:
                    session.forward([1] * 50_000, cancel=token)
                except llamacpu.Cancelled as error:
                    errors.append(error)
                except RuntimeError:  # The other thread was truncating the session.
                    pass

        thread = threading.Thread(target=work)
        thread.start()
        refused = False
        while thread.is_alive():
            try:
                session.truncate(0)
            except RuntimeError as error:
                refused = "another step" in str(error)
                break
            time.sleep(0.001)
        token.cancel()
        thread.join()
        assert refused
        assert len(errors) == 1


@pytest.mark.instruction_set(one_in=None)
def test_threads_may_share_a_model(tiny_model: TinyModel) -> None:
    with Model(tiny_model("gqa"), threads=2) as model:
        prompts = [np.random.default_rng(seed).integers(0, model.vocab_size, 100).tolist() for seed in range(6)]
        expected = [model.session().forward(prompt) for prompt in prompts]
        results: dict[int, bool] = {}

        def work(index: int) -> None:
            good = True
            for _ in range(5):
                session = model.session()
                session.forward(prompts[index][:60], logits="none")
                good &= np.array_equal(session.fork().forward(prompts[index][60:]), expected[index])
            results[index] = good

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == dict.fromkeys(range(len(prompts)), True)


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_go_on(model: Model) -> None:
    session = model.session()
    session.forward([1, 2, 3], logits="none")
    expected = session.fork().forward([4])
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(session.forward([4]), expected) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_given_back(tiny_model: TinyModel) -> None:
    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    with Model(tiny_model(SLOW), threads=1) as model:
        for _ in range(2):
            model.session().forward([1, 2, 3], logits="none")
        before = resident()
        for _ in range(30):
            # Every session takes a page of 64 tokens: 1 MB.
            assert model.session().nbytes == 0
            model.session().forward([1, 2, 3], logits="none")
        assert resident() - before < 8 << 20


def test_a_step_takes_sessions_that_a_model_made(model: Model) -> None:
    with pytest.raises(TypeError, match="an item of the step is a str; expected a session"):
        model.step([("session", [1])])  # type: ignore[list-item]
