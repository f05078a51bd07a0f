"""Adapters as files: GGUF as llama.cpp's converter writes it, and a folder of Hugging Face's PEFT."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from llamacpu.checkpoints.safetensors_writer import write_safetensors
from llamacpu.errors import GGUFError, TrainingError
from llamacpu.files import replacing
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.writer import NewTensor, Typed, write_gguf
from llamacpu.tools.train.hf_names import hf_name, hf_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.engine.model import EngineModel

__all__ = ["Adapter", "check_peft", "read_gguf_adapter", "write_gguf_adapter", "write_peft_folder"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EMBEDDING = "token_embd"


class Adapter(NamedTuple):
    """A LoRA adapter: the matrix `target` of the model changes by alpha / rank times B A.

    matrices  target ("blk.0.attn_q") to A, float32[rank, columns], and B, float32[rows, rank]; the columns of
              "token_embd" are tokens
    alpha     as runtimes divide it by the rank
    """

    matrices: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    alpha: float

    @classmethod
    def of(cls, names: Sequence[tuple[str, int, int]], values: NDArray[np.float32], alpha: float) -> Adapter:
        """The adapter whose parameters, named TARGET.lora_a and TARGET.lora_b, are given as one flat array."""
        parts = dict(_parts(names, values))
        targets = dict.fromkeys(name.rpartition(".")[0] for name, _, _ in names)
        return cls({target: (parts[f"{target}.lora_a"], parts[f"{target}.lora_b"]) for target in targets}, alpha)

    def flat(self, names: Sequence[tuple[str, int, int]]) -> NDArray[np.float32]:
        """The parameters as one flat array, in the order of the names."""
        found = []
        for name, _, _ in names:
            target, _, kind = name.rpartition(".")
            found.append(self.matrices[target][kind == "lora_b"].reshape(-1))
        return np.concatenate(found)


def _parts(
    names: Sequence[tuple[str, int, int]], values: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    start = 0
    for name, rows, columns in names:
        yield name, values[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns


def write_gguf_adapter(path: str | os.PathLike[str], model: EngineModel, adapter: Adapter) -> None:
    """Write an adapter in F32, as llama.cpp's convert_lora_to_gguf.py does. Raises what `write_gguf` raises."""
    architecture = model.config.architecture
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.name": f"{model.metadata.get('general.name') or Path(model.path).stem} LoRA",
        "adapter.lora.alpha": Typed(adapter.alpha, "float32"),
        "general.quantization_version": Typed(2, "uint32"),
    }
    tensors = []
    for target in _in_order(architecture, adapter):
        a, b = adapter.matrices[target]
        # The numbers of a token are a row in the file.
        tensors.append(_tensor(f"{target}.weight.lora_a", a.T if target == EMBEDDING else a))
        tensors.append(_tensor(f"{target}.weight.lora_b", b))
    write_gguf(path, metadata, tensors, inputs=model.file.paths)


def _tensor(name: str, array: NDArray[np.float32]) -> NewTensor:
    return NewTensor(name, array.shape, "F32", lambda: [np.ascontiguousarray(array, "<f4")])


def _in_order(architecture: str, adapter: Adapter) -> list[str]:
    """The targets in the order of the PEFT file, which converters keep, or in the model's own."""
    try:
        return sorted(adapter.matrices, key=lambda target: hf_name(architecture, target))
    except TrainingError:
        return list(adapter.matrices)


def read_gguf_adapter(path: str | os.PathLike[str], architecture: str) -> Adapter:
    """Read an adapter of F32 or F16 tensors.

    Raises GGUFError for a file that is not GGUF, TrainingError for one that is no LoRA adapter of such a model.
    """
    with GGUFFile(path) as file:
        name, metadata = file.path.name, file.metadata
        if metadata.scalar("general.type") != "adapter" or metadata.scalar("adapter.type") != "lora":
            raise TrainingError(f"{name}: this is no LoRA adapter; give one that llamacpu train or a converter wrote")
        if metadata.scalar("general.architecture") != architecture:
            raise TrainingError(
                f"{name}: an adapter for the architecture {metadata.get('general.architecture')!r:.60}; "
                f"the model's is {architecture!r}"
            )
        parts: dict[str, dict[str, NDArray[np.float32]]] = {}
        for tensor in file.tensors:
            target, _, kind = tensor.name.rpartition(".weight.lora_")
            dtype = {"F32": "<f4", "F16": "<f2"}.get(tensor.type_name)
            if kind not in ("a", "b") or dtype is None or len(tensor.shape) != 2:
                raise TrainingError(
                    f"{name}: the tensor {tensor.name!r:.80} ({tensor.type_name}) cannot be trained further; "
                    "expected matrices lora_a and lora_b in F32 or F16"
                )
            raw = np.frombuffer(file.tensor_bytes(tensor, 0, tensor.nbytes), dtype)
            array = raw.astype(np.float32).reshape(tensor.shape[::-1])
            parts.setdefault(target, {})[kind] = array.T if (target, kind) == (EMBEDDING, "a") else array
        alpha = metadata.number("adapter.lora.alpha")
    for target, found in parts.items():
        if len(found) != 2 or found["a"].shape[0] != found["b"].shape[1]:
            raise GGUFError(f"{name}: the matrices lora_a and lora_b of {target!r:.80} do not belong together")
    return Adapter({target: (found["a"], found["b"]) for target, found in parts.items()}, alpha)


def check_peft(folder: str | os.PathLike[str], architecture: str, targets: Sequence[str]) -> None:
    """Raise an error if the folder cannot be written: for a family without known names, or because of what is there."""
    for target in targets:
        hf_name(architecture, target)
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise FileExistsError(17, "this is a file; give the name of a folder for the PEFT adapter", str(folder))
    others = [entry.name for entry in path.iterdir() if entry.name not in (CONFIG, WEIGHTS)] if path.is_dir() else []
    if others:
        raise FileExistsError(
            17, f"the folder holds other files ({others[0]!r:.60}); give the name of a new folder", str(folder)
        )


def write_peft_folder(
    folder: str | os.PathLike[str], model: EngineModel, adapter: Adapter, *, alpha: float, rslora: bool
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, as PEFT's `save_pretrained` does.

    alpha: as PEFT means it, divided by the root of the rank with `rslora`. Raises what `check_peft` raises.
    """
    config = model.config
    architecture = config.architecture
    check_peft(folder, architecture, list(adapter.matrices))
    tensors: dict[str, NDArray[np.float32]] = {}
    rank = 0
    for target, (a, b) in adapter.matrices.items():
        name = f"base_model.model.{hf_name(architecture, target)}"
        rank = len(a)
        if target == EMBEDDING:
            tensors |= {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
            continue
        layer = int(target.split(".")[1]) if target.startswith("blk.") else 0
        tensors[f"{name}.lora_A.weight"] = a
        tensors[f"{name}.lora_B.weight"] = hf_rows(architecture, target, b, config.heads[layer], config.kv_heads[layer])
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    write_safetensors(path / WEIGHTS, tensors, {"format": "pt"}, "the weights of an adapter")
    document = {
        "base_model_name_or_path": _base_model(model.metadata),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha if alpha != int(alpha) else int(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": _modules(model, list(adapter.matrices)),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": rslora,
    }
    with replacing(path / CONFIG, "the configuration of an adapter", _is_config, ordinary=True) as file:
        file.write(json.dumps(document, indent=2).encode() + b"\n")


def _modules(model: EngineModel, targets: Sequence[str]) -> list[str]:
    """The names that PEFT looks for: those of a kind of matrix if all layers have it, else those of each matrix."""
    architecture = model.config.architecture
    kinds = [target.rpartition(".")[2] for target in targets]
    in_model = [tensor.name.removesuffix(".weight").rpartition(".")[2] for tensor in model.file.tensors]
    found = set()
    for target, kind in zip(targets, kinds, strict=True):
        name = hf_name(architecture, target)
        found.add(name.rpartition(".")[2] if kinds.count(kind) == in_model.count(kind) else name)
    return sorted(found)


def _is_config(file: BinaryIO) -> bool:
    try:
        return isinstance(document := json.loads(file.read(1 << 20)), dict) and "peft_type" in document
    except ValueError:
        return False


def _base_model(metadata: Mapping[str, Any]) -> str:
    """The repository of the model that a file was converted from, or its name, as far as the file says."""
    for key in (
        "general.source.huggingface.repository",
        "general.source.repo_url",
        "general.repo_url",
        "general.source.url",
    ):
        value = metadata.get(key)
        if isinstance(value, str) and value:
            return value.removeprefix("https://huggingface.co/")
    value = metadata.get("general.name")
    return value if isinstance(value, str) else ""
