"""Checkpoints whose matrices are in NVFP4, as ModelOpt and compressed-tensors store them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checkpoint_files import Stored, safetensors_bytes
from converted_checkpoints import weights
from deterministic import Stream
from gguf_types import E2M1, E4M3

__all__ = ["FORMS", "rewritten"]

FORMS: dict[str, dict[str, Any]] = {
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "config_groups": {"group_0": {"format": "nvfp4-pack-quantized", "weights": {"num_bits": 4, "type": "float"}}},
    },
}
"""`quantization_config` of each."""


def _parts(name: str, rows: int, columns: int, form: str) -> tuple[dict[str, Stored], NDArray[np.float32]]:
    """The stored tensors of a matrix, and its weights."""
    random = Stream(name)
    quants = random.bytes(rows * columns // 2).reshape(rows, columns // 2)
    # From 2^-2 to less than 2^2.
    scales = 40 + random.bytes(rows * columns // 16).reshape(rows, columns // 16) % 32
    factor = np.float32(random.uniform(0.01, 0.05, 1)[0])
    values = E2M1[np.stack([quants & 15, quants >> 4], axis=-1).reshape(rows, columns // 16, 16)]
    exact = (values * E4M3[scales][..., None]).reshape(rows, columns) * factor
    stem = name.removesuffix("weight")
    if form == "modelopt":
        factors = {f"{stem}weight_scale_2": factor, f"{stem}input_scale": np.float32(0.5)}
        stored: dict[str, Stored] = {name: quants, f"{name}_scale": ("F8_E4M3", scales)}
    else:
        # What is stored is the reciprocal, so that the weights are those of its reciprocal.
        inverse = np.float32(1) / factor
        exact = (values * E4M3[scales][..., None]).reshape(rows, columns) * (np.float32(1) / inverse)
        factors = {f"{stem}weight_global_scale": inverse, f"{stem}input_global_scale": np.float32(2)}
        stored = {f"{name}_packed": quants, f"{name}_scale": ("F8_E4M3", scales)}
    return stored | {key: np.asarray([value], np.float32) for key, value in factors.items()}, exact


def rewritten(folder: Path, model: dict[str, Any], form: str) -> dict[str, NDArray[np.float32]]:
    """Replace the matrices of layers in a checkpoint's folder by others in NVFP4; with no form, by the same in F32.

    Returns the weights of these matrices.
    """
    tensors: dict[str, Stored] = {}
    found = {}
    for kind, shape, names in model["tensors"]:
        for name in names:
            if name.endswith("_proj.weight") and len(shape) == 2 and shape[1] % 64 == 0:
                stored, found[name] = _parts(name, *shape, form or "modelopt")
                tensors |= stored if form else {name: found[name]}
            else:
                tensors[name] = weights(name, shape, kind)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(tensors.items()))))
    if form:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": FORMS[form]}))
    return found
