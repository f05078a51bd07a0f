"""No bit of a result changes unnoticed: every format on every instruction set is compared with committed digests.

`python tests/test_digests.py` writes those of this build. Other digests are another definition of results, which the
CHANGELOG has to state.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from config_models import open_config_model, tensors, write_config_model
from deterministic import Stream
from digest_families import ENCODERS, FAMILIES
from llamacpu import _native, kernels
from llamacpu.engine.pictures import Embeddings, MixedTokens
from llamacpu.gguf.file import GGUFFile
from llamacpu.model import Model
from llamacpu.vision.config import VisionConfig
from lora_files import EMBEDDING, write_adapter
from reference_vision import tensors as vision_tensors
from reference_vision import write
from test_vision_switches import encoded, native
from thorough import THOROUGH
from tiny_models import QUANTIZABLE, VARIANTS, Shape, stored, write_model

COMMITTED = Path(__file__).with_name("digests.json")
ISAS: list[str] = _native.cpu_facts()["available"]
FORMATS = sorted(kernels.FORMATS)
EXPERTS = replace(VARIANTS["mixtral"], width=256, feed_forward=256)


def digest(*arrays: NDArray[Any]) -> str:
    """Little-endian bytes, all NaNs alike."""
    found = hashlib.sha256()
    for array in arrays:
        if array.dtype == np.float32:
            array = np.where(np.isnan(array), np.float32(np.nan), array)
        found.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()[:16]


def floats(name: str, *shape: int) -> NDArray[np.float32]:
    return Stream(name).standard_normal(shape).astype(np.float32)


def weights(name: str, rows: int, columns: int) -> NDArray[np.uint8]:
    """Rows of blocks that no quantizer of ours has made."""
    kind = gguf.GGMLQuantizationType[name]
    matrix = stored(kind, (rows, columns), Stream(f"weights {name}"), spread=columns**-0.5)
    return np.ascontiguousarray(matrix).view(np.uint8).reshape(rows, -1)


def _matmul(name: str, isa: str) -> str:
    # Columns beyond one unit of 1024, rows that fill no group of 16, batches for every kind of kernel.
    rows, columns = 37, 1280
    packed = weights(name, rows, columns)
    return digest(*(kernels.matmul(floats("x", n, columns), packed, name, isa=isa) for n in (1, 2, 5, 17, 70)))


def _rope(isa: str) -> str:
    heads = floats("heads", 6, 3, 80)
    positions = [0, 1, 77, 4095, 1_000_003, 2**29 + 1]
    styles: list[dict[str, Any]] = [
        {"style": "interleaved", "base": 5e5},
        {"style": "neox", "size": 64, "scaling": "linear", "factor": 4.0},
        {"style": "neox", "base": 1e6, "scaling": "yarn", "factor": 8.0, "factors": np.linspace(1, 8, 40).tolist()},
    ]
    return digest(*(kernels.rope(heads, positions, isa=isa, **style) for style in styles))


def _attention(isa: str) -> str:
    queries, keys, values = floats("q", 9, 6, 40), floats("k", 600, 2, 40), floats("v", 600, 2, 24)
    types: tuple[Any, ...] = ("f32", "f16", "q8_0")
    return digest(*(kernels.attention(queries, keys, values, kv_type=kind, isa=isa) for kind in types))


KERNELS: dict[str, Callable[[str], str]] = {
    **{f"matmul {name}": lambda isa, name=name: _matmul(name, isa) for name in FORMATS},  # type: ignore[misc]
    "rms_norm": lambda isa: digest(kernels.rms_norm(floats("x", 3, 1001), floats("w", 1001), isa=isa)),
    "softmax": lambda isa: digest(kernels.softmax(9 * floats("x", 3, 1001), isa=isa)),
    "swiglu": lambda isa: digest(kernels.swiglu(9 * floats("gate", 1001), floats("up", 1001), isa=isa)),
    "rope": _rope,
    "attention": _attention,
}


def blocks() -> dict[str, str]:
    """What does not depend on the instruction set: reading and writing blocks."""
    found = {f"dequantize {name}": digest(kernels.dequantize(weights(name, 8, 512), name)) for name in FORMATS}
    values = np.concatenate([floats("values", 8, 512), 1e-41 * floats("small", 1, 512)]).astype(np.float32)
    importance = np.exp(floats("importance", 512)).astype(np.float32)
    for name in FORMATS:
        with_importance = kernels.quantize(values, name, importance)
        found[f"quantize {name}"] = digest(kernels.quantize(values, name), with_importance)
    return found


def logits(folder: Path, first: int = 0, step: int = 1) -> dict[str, str]:
    """A prompt and a token more, in every format and current family, with experts and with adapters, or in each
    `step`-th of these; by the instruction set in use."""
    models, adapters = sorted(folder.glob("*.gguf")), sorted(folder.glob("* adapter"))
    chosen = [*models, *adapters][first::step]
    found = {f"logits {path.stem}": _logits(path) for path in chosen if path in models}
    return found | {f"logits {path.name}": _logits(folder / "Q4_K.gguf", path) for path in chosen if path in adapters}


def _logits(path: Path, *adapters: Path) -> str:
    if path.stem in ENCODERS:
        encoder = native(path, ENCODERS[path.stem])
        return digest(*(encoded(encoder, floats("pixels", 2, *size, 3)) for size in ((24, 24), (16, 40), (72, 48))))
    family = FAMILIES.get(path.stem)
    with Model(path, threads=2) if family is None else open_config_model(path, family) as model:
        tokens: Any = [int(byte) % model.vocab_size for byte in Stream("tokens").bytes(75)]
        if family is not None and family.picture_layers:
            rows = floats("picture", 35, family.embedding_length * (1 + family.picture_layers))
            tokens = MixedTokens([tokens[:20], Embeddings(rows, b"picture", grid=(7, 5)), tokens[20:]])
        lora = [(adapter, 0.75) for adapter in adapters]
        sessions = [model.session(kv_type=kind, lora=lora) for kind in ("f32", "f16", "q8_0")]  # type: ignore[arg-type]
        return digest(*(row for s in sessions for row in (s.forward(tokens, logits="all"), s.forward([1]))))


def write_models(folder: Path) -> None:
    models: list[tuple[str, Shape]] = [(name, QUANTIZABLE) for name in FORMATS] + [("Q4_K", EXPERTS), ("F16", EXPERTS)]
    for name, shape in models:
        stem = f"{name} with experts" if shape.experts else name
        write_model(folder / f"{stem}.gguf", shape, gguf.GGMLQuantizationType[name], Stream(stem))
    for name, config in FAMILIES.items():
        values = tensors(config, Stream(name), biases=False, tied=False)
        write_config_model(folder / f"{name}.gguf", config, values=values)
    for name, encoder in ENCODERS.items():
        write(folder / f"{name}.gguf", _encoder_tensors(name, encoder))
    with GGUFFile(folder / "Q4_K.gguf") as file:
        shapes = {tensor.name: tensor.shape[::-1] for tensor in file.tensors if len(tensor.shape) == 2}
    for name in ("F32", "F16"):
        write_adapter(folder / f"{name} adapter", _pairs(shapes, Stream(f"adapter {name}")), type_name=name)


def _encoder_tensors(name: str, config: VisionConfig) -> dict[str, Any]:
    """Those of a vision encoder, whose matrices are in half precision."""
    found = {}
    for part, tensor in sorted(vision_tensors(config, table=3).items()):
        values = floats(f"{name} {part}", *tensor.shape)
        is_matrix = tensor.ndim == 2 and "position" not in part
        found[part] = (values * tensor.shape[-1] ** -0.5).astype(np.float16) if is_matrix else values
    return found


def _pairs(shapes: dict[str, tuple[int, ...]], random: Stream) -> dict[str, tuple[Any, Any]]:
    """A and B of every matrix; of the embedding, the rows of A are tokens."""
    pairs = {}
    for name, (rows, columns) in shapes.items():
        inputs = (rows, 5) if name == EMBEDDING else (5, columns)
        outputs = (columns if name == EMBEDDING else rows, 5)
        pairs[name] = (columns**-0.5 * random.standard_normal(inputs), random.standard_normal(outputs))
    return pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digests")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def committed() -> dict[str, str]:
    found: dict[str, str] = json.loads(COMMITTED.read_text())
    return found


def changed(found: dict[str, str], committed: dict[str, str]) -> list[str]:
    return [name for name, value in found.items() if committed.get(name) != value]


@pytest.mark.parametrize("isa", ISAS)
def test_kernels(committed: dict[str, str], isa: str) -> None:
    assert not changed({name: kernel(isa) for name, kernel in KERNELS.items()}, committed)


def test_blocks(committed: dict[str, str]) -> None:
    assert not changed(blocks(), committed)


@pytest.mark.parametrize("isa", ISAS)
def test_logits(folder: Path, committed: dict[str, str], isa: str) -> None:
    """All with the best set; a sixth with each other one, whose kernels `test_kernels` compares in every format."""
    step = 1 if THOROUGH or isa == ISAS[-1] else 6
    code = (
        "import sys, json, pathlib, test_digests\n"
        "print(json.dumps(test_digests.logits(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))))"
    )
    environment = {**os.environ, "LLAMACPU_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(folder), str(ISAS.index(isa) % step), str(step)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found) >= (len(FORMATS) + len(FAMILIES) + 4) // step
    assert not changed(found, committed)


def test_every_committed_digest_is_compared(folder: Path, committed: dict[str, str]) -> None:
    files = [*(path.stem for path in folder.glob("*.gguf")), *(path.name for path in folder.glob("* adapter"))]
    assert set(committed) == {*KERNELS, *blocks(), *(f"logits {name}" for name in files)}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        write_models(Path(temporary))
        everything = {name: kernel(ISAS[0]) for name, kernel in KERNELS.items()} | blocks() | logits(Path(temporary))
    COMMITTED.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")
