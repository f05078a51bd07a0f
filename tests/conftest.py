"""Fixtures that every test file shares: tiny model files, and the golden outputs where they are at hand."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from gguf import GGMLQuantizationType

from page_browser import api, browser, chat  # noqa: F401
from selection import pytest_collection_modifyitems  # noqa: F401
from tiny_models import QUANTIZABLE, VARIANTS, Shape, write_model

REPOSITORY = Path(__file__).resolve().parent.parent

# How long an example takes says nothing about the code on a machine that does other things too.
hypothesis.settings.register_profile("no time is asserted", deadline=None)
hypothesis.settings.load_profile("no time is asserted")

# A suite that was started in the background may have inherited an ignored SIGINT, and would hand it on to the commands
# that it starts in order to interrupt them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The configuration file of whoever runs the tests says nothing about the code, here and in commands that are started.
os.environ["LLAMACPU_CONFIG"] = ""
# No test, and no process that one starts, reaches for the network or for what other programs keep on this machine.
os.environ["LLAMACPU_OFFLINE"] = "1"
os.environ["LLAMACPU_MODELS"] = os.environ["OLLAMA_MODELS"] = os.devnull
# A client reads the certificates of all authorities when it is made, which takes as long as many of its requests.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull


@pytest.fixture(autouse=True)
def drawn_seeds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the seeds that a test does not name from its own name: it samples the same tokens in every run.

    LLAMACPU_TEST_SEED=N draws others, to find tests that depend on what is sampled.
    """
    draws = random.Random(request.node.nodeid + os.environ.get("LLAMACPU_TEST_SEED", ""))
    monkeypatch.setattr("secrets.randbelow", draws.randrange)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A command that a test runs with -v in this process turns the log on for that test alone."""
    log = logging.getLogger("llamacpu")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference outputs, which is not part of the repository."""
    folder = Path(os.environ.get("LLAMACPU_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no reference outputs at {folder} (set LLAMACPU_GOLDEN)")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model("gqa")`, `tiny_model("mha", "Q4_K")` or `tiny_model(Shape(...))`: the path of a seeded model file.

    A quantized type uses rows of 256 where the variant has others. Files are written once a test session.
    """
    folder = tmp_path_factory.mktemp("models")
    written: dict[tuple[object, str, int], Path] = {}

    def path(variant: str | Shape = "gqa", weight_type: str = "F32", seed: int = 0) -> Path:
        key = (repr(variant), weight_type, seed)
        if key not in written:
            shape = variant if isinstance(variant, Shape) else VARIANTS[variant]
            if weight_type not in ("F32", "F16", "BF16"):
                shape = replaced_sizes(shape)
            name = variant if isinstance(variant, str) else f"shape{len(written)}"
            file = folder / f"{name}-{weight_type.lower()}-{seed}.gguf"
            written[key] = write_model(file, shape, GGMLQuantizationType[weight_type], seed)
        return written[key]

    return path


def replaced_sizes(shape: Shape) -> Shape:
    """The same switches with rows that every block format divides."""
    if shape.width % 256 == 0 and isinstance(shape.feed_forward, int) and shape.feed_forward % 256 == 0:
        return shape
    return replace(shape, width=QUANTIZABLE.width, feed_forward=QUANTIZABLE.feed_forward)


@pytest.fixture(scope="session")
def demo_url() -> Iterator[str]:
    """The address of a server of the demo model, which all tests share; it has the name tiny, too."""
    pytest.importorskip("starlette", reason="the extra [server] is not installed")
    import llamacpu

    demo = REPOSITORY / "python" / "llamacpu" / "data" / "demo.gguf"
    with llamacpu.serve(demo, aliases={"tiny": "demo"}, origins=("https://friend.example",)) as url:
        yield url
