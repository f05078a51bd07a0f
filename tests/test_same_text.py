"""A seed gives the same text on every instruction set, for every number of threads, and with any functions of NumPy.

The instruction set is chosen once a process, and so are NumPy's own functions: each case is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llamacpu
from llamacpu import _native

WRITER = """
import hashlib, json, sys
from importlib import resources
import numpy as np
import llamacpu
from llamacpu.sampling import Sampler
from llamacpu.sampling.candidates import from_logits, entropy, probabilities
from llamacpu.sampling.functions import power, powers
from llamacpu.sampling.truncation import typical

CHAINS = {
    "default": {},
    "temperature alone": dict(top_k=0, top_p=1, min_p=0),
    "mirostat 1": dict(mirostat=1),
    "mirostat 2": dict(mirostat=2, mirostat_tau=3),
    "typical": dict(typical_p=0.7, top_k=0),
    "XTC": dict(xtc_probability=0.5, xtc_threshold=0.05),
    "DRY and penalties": dict(dry_multiplier=0.8, repeat_penalty=1.1, frequency_penalty=0.1, presence_penalty=0.1),
    "dynamic temperature": dict(dynatemp_range=0.5, dynatemp_exponent=1.3, top_n_sigma=2),
    "adaptive": dict(adaptive_target=0.3),
    "all": dict(typical_p=0.95, xtc_probability=0.3, dry_multiplier=0.8, dynatemp_range=0.3, repeat_penalty=1.05),
}
threads = int(sys.argv[1])
found = {}
for path in [str(resources.files("llamacpu") / "data" / "demo.gguf"), *sys.argv[2:]]:
    with llamacpu.Model(path, threads=threads) as model:
        for name, settings in CHAINS.items():
            sampling = llamacpu.Sampling(temperature=0.8, seed=7, **settings)
            prompt = "Once upon a time there was"
            pieces = model.generate(prompt, max_tokens=40, sampling=sampling, ignore_end=True)
            found[path + ": " + name] = "".join(pieces)
# What a large vocabulary brings: every number that the steps compute, to the last bit.
random = np.random.default_rng(3)
bits = hashlib.sha256()
for _ in range(20):
    candidates = from_logits((random.standard_normal(50_000) * 3).astype(np.float32))
    chances = probabilities(candidates)
    bits.update(chances.tobytes())
    bits.update(np.array([entropy(chances), power(random.random(), 1.7)]).tobytes())
    bits.update(powers(1.75, 50).tobytes())
    bits.update(typical(candidates, 0.8, 0).ids.tobytes())
found["bits"] = bits.hexdigest()
print(json.dumps(found))
"""


def written(model: Path, threads: int, **environment: str) -> dict[str, str]:
    """The texts of all chains, written by a process with these environment variables."""
    source = str(Path(llamacpu.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WRITER, str(threads), str(model)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


def numpy_features() -> list[str]:
    """The processor features that NumPy would choose its functions by."""
    try:
        from numpy._core import _multiarray_umath as core
    except ImportError:  # NumPy 1
        from numpy.core import _multiarray_umath as core
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]


@pytest.fixture(scope="module")
def reference(tiny_model: Callable[..., Path]) -> dict[str, str]:
    """What a process of one thread writes with the kernels for any processor."""
    return written(tiny_model("gqa"), 1, LLAMACPU_ISA="scalar")


def test_the_chains_write_different_texts(reference: dict[str, str]) -> None:
    assert len(set(reference.values())) > len(reference) * 2 // 3
    assert all(reference.values())


@pytest.mark.parametrize("name", _native.cpu_facts()["available"])
def test_a_seed_gives_the_same_text_on_every_instruction_set(
    name: str, reference: dict[str, str], tiny_model: Callable[..., Path]
) -> None:
    assert written(tiny_model("gqa"), 2, LLAMACPU_ISA=name) == reference


def test_the_functions_of_numpy_do_not_matter(reference: dict[str, str], tiny_model: Callable[..., Path]) -> None:
    features = numpy_features()
    if not features:
        pytest.skip("this NumPy has only one kind of functions for this processor")
    assert written(tiny_model("gqa"), 3, NPY_DISABLE_CPU_FEATURES=" ".join(features)) == reference
