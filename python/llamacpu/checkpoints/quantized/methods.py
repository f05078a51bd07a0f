"""How a checkpoint is quantized, by what its configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llamacpu.checkpoints.quantized.computed import bits_of
from llamacpu.checkpoints.quantized.gptq import AwqTensor, GptqTensor
from llamacpu.checkpoints.quantized.nvfp4 import Nvfp4Tensor
from llamacpu.checkpoints.quantized.packed import PackedTensor
from llamacpu.checkpoints.quantized.scaled import ScaledTensor
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["unpacked"]

Tensors = Mapping[str, LazyTensor]
_SCALE_SUFFIXES = ("_scale_inv", "_scale")
# Scales of activations and of the cache: the weights do not need them.
_OF_ACTIVATIONS = (
    ".input_scale", ".output_scale", ".k_scale", ".v_scale", ".q_scale", "activation_scale", ".qscale_act",
    ".input_scale_ub", ".input_zero_point", ".output_zero_point", ".input_global_scale",
)  # fmt: skip
_EIGHT_BITS = ("F8_E4M3", "F8_E5M2")


def unpacked(quantization: Mapping[str, Any], tensors: Tensors) -> dict[str, LazyTensor]:
    """Return the tensors with those that are quantized replaced by tensors of floats, computed when they are read.

    quantization: `quantization_config` of config.json. MXFP4 (gpt-oss, the experts of DeepSeek V4) stays as it is:
    GGUF has this type, too.

    Raises CheckpointError, which names the method, for one that is not supported, and for tensors that do not fit it.
    """
    method = str(quantization.get("quant_method", "")).lower()
    if not method and quantization.get("load_in_4bit") is not None:
        method = "bitsandbytes"
    if method in ("auto-round", "intel/auto-round"):
        method = str(quantization.get("packing_format", "")).lower()
        method = {"auto_round:auto_gptq": "gptq", "auto_round:auto_awq": "awq"}.get(method, method)
    if method == "mxfp4":
        return dict(tensors)
    if method == "gptq":
        return _gptq(quantization, tensors)
    if method == "awq":
        return _awq(quantization, tensors)
    if method == "modelopt" and _is_modelopt_nvfp4(quantization):
        return _nvfp4(tensors)
    if method == "modelopt" and quantization.get("quant_algo") != "FP8":
        raise CheckpointError(
            f"modelopt's {quantization.get('quant_algo')!r:.40} is not supported; expected 'FP8' or 'NVFP4'"
        )
    if method in ("fp8", "fbgemm_fp8", "modelopt"):
        blocks = quantization.get("weight_block_size")
        return _scaled(tensors, _blocks(blocks), _EIGHT_BITS)
    if method == "compressed-tensors":
        return _compressed(quantization, tensors)
    if method in ("bitsandbytes", "bnb"):
        raise CheckpointError(
            "the checkpoint is quantized with bitsandbytes, which is not supported: its code books lose what a new "
            "quantization needs; use the model in BF16 or F16 that it was made from"
        )
    raise CheckpointError(
        f"the quantization {method or 'without a name'!r:.60} is not supported; expected AWQ, GPTQ, FP8, MXFP4, "
        "NVFP4 or compressed-tensors: use the model in BF16 or F16 that the checkpoint was made from"
    )


def _replaced(tensors: Tensors, new: Mapping[str, LazyTensor], parts: Iterable[str]) -> dict[str, LazyTensor]:
    """The tensors without those in `parts`, and the new ones after them: the order of llama.cpp's converter."""
    gone = set(parts)
    twice = next((name for name in new if name in tensors and name not in gone), None)
    if twice is not None:
        raise CheckpointError(f"{twice}: the checkpoint has this tensor quantized and not quantized")
    return {name: tensor for name, tensor in tensors.items() if name not in gone} | dict(new)


def _gptq(quantization: Mapping[str, Any], tensors: Tensors) -> dict[str, LazyTensor]:
    bits, size = bits_of(quantization.get("bits")), _group_size(quantization)
    form = quantization.get("checkpoint_format") or "gptq"
    if quantization.get("is_marlin_format") or form not in ("gptq", "gptq_v2"):
        form = "marlin" if quantization.get("is_marlin_format") else form
        raise CheckpointError(f"GPTQ in the form {form!r:.40} is not supported; expected 'gptq' or 'gptq_v2'")
    layers = _layers(tensors, ".qweight")
    # The first version of the form stores zero points less one.
    new = {f"{layer}.weight": GptqTensor(layer, tensors, bits, size, 1 if form == "gptq" else 0) for layer in layers}
    return _replaced(
        tensors, new, (f"{layer}.{part}" for layer in layers for part in ("qweight", "qzeros", "scales", "g_idx"))
    )


def _awq(quantization: Mapping[str, Any], tensors: Tensors) -> dict[str, LazyTensor]:
    version = str(quantization.get("version", "gemm")).lower()
    bits = quantization.get("bits", quantization.get("w_bit"))
    if version != "gemm" or bits != 4:
        raise CheckpointError(f"AWQ {version!r:.40} of {bits!r:.40} bits is not supported; expected 'gemm' of 4 bits")
    size = _group_size(quantization)
    layers = _layers(tensors, ".qweight")
    new = {f"{layer}.weight": AwqTensor(layer, tensors, size) for layer in layers}
    return _replaced(tensors, new, (f"{layer}.{part}" for layer in layers for part in ("qweight", "qzeros", "scales")))


def _is_modelopt_nvfp4(quantization: Mapping[str, Any]) -> bool:
    """Whether the weights are in NVFP4, or some of them, the others in FP8 or not quantized."""
    layers = quantization.get("quantized_layers")
    found = [layer.get("quant_algo") for layer in layers.values() if isinstance(layer, Mapping)] if layers else []
    known = ("NVFP4", "W4A16_NVFP4")
    return quantization.get("quant_algo") in known or (
        any(algorithm in known for algorithm in found) and all(algorithm in (*known, "FP8") for algorithm in found)
    )


def _nvfp4(tensors: Tensors) -> dict[str, LazyTensor]:
    """The matrices of four-bit floats, and what remains in 8 bits."""
    packed = {name.removesuffix("_packed"): name for name in tensors if name.endswith(".weight_packed")}
    plain = {name: name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dtype == "U8"}
    new = {name: Nvfp4Tensor(name, tensors) for name in plain | packed if f"{name}_scale" in tensors}
    parts = ("_packed", "_scale", "_scale_2", "_global_scale", "")
    rest = _replaced(tensors, new, (name + part for name in new for part in parts))
    rest = {name: tensor for name, tensor in rest.items() if not name.endswith(_OF_ACTIVATIONS)}
    eights = _scaled({name: tensor for name, tensor in rest.items() if name not in new}, (), _EIGHT_BITS)
    return eights | dict(new)


def _scaled(tensors: Tensors, blocks: tuple[int, ...], types: tuple[str, ...]) -> dict[str, LazyTensor]:
    result: dict[str, LazyTensor] = {}
    scales = {name: tensor for name, tensor in tensors.items() if not name.endswith(_OF_ACTIVATIONS)}
    used: set[str] = set()
    for name, tensor in scales.items():
        scale = _scale_of(name, scales)
        if scale is not None and _is_mxfp4(tensor, scale):
            scale = None
        if scale is not None and tensor.dtype not in types:
            raise CheckpointError(f"{name}: {tensor.dtype} with scales is not supported; expected {' or '.join(types)}")
        if scale is None:
            result[name] = tensor
            continue
        zero = scales.get(f"{name}_zero_point")
        used |= {scale.name, f"{name}_zero_point"}
        # A scale for the whole tensor has no blocks, whatever the configuration says of others.
        result[name] = ScaledTensor(tensor, scale, zero, blocks if len(scale.shape) >= len(blocks) else ())
    result = {name: tensor for name, tensor in result.items() if name not in used}
    left = next((name for name, tensor in result.items() if tensor.dtype in types), None)
    if left is not None:
        raise CheckpointError(f"{left}: {result[left].dtype} without a scale, which the checkpoint should have")
    return result


def _is_mxfp4(tensor: LazyTensor, scale: LazyTensor) -> bool:
    """Whether these are MXFP4 blocks and scales (the experts of DeepSeek V4), which stay as they are."""
    if tensor.dtype not in ("I8", "U8") or scale.dtype not in ("F8_E8M0", "U8"):
        return False
    return len(tensor.shape) == 2 and scale.shape == (tensor.shape[0], tensor.shape[1] // 16)


def _scale_of(name: str, tensors: Tensors) -> LazyTensor | None:
    names = [name + suffix for suffix in _SCALE_SUFFIXES]
    if name.endswith(".weight"):
        stem = name.removesuffix("weight")
        names += [f"{stem}qscale_weight", f"{stem}scale"]  # the forms of Mistral and of DeepSeek V4
    return next((tensors[each] for each in names if each in tensors), None)


def _compressed(quantization: Mapping[str, Any], tensors: Tensors) -> dict[str, LazyTensor]:
    form = quantization.get("format")
    groups = quantization.get("config_groups")
    forms = [group.get("format") for group in groups.values()] if form == "mixed-precision" and groups else [form]
    if all(each == "nvfp4-pack-quantized" for each in forms):
        return _nvfp4(tensors)
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise CheckpointError("compressed-tensors with several groups of layers is not supported; expected one")
    weights = next(iter(groups.values()))
    weights = weights.get("weights") if isinstance(weights, Mapping) else None
    if not isinstance(weights, Mapping):
        raise CheckpointError("compressed-tensors: `config_groups` does not say how weights are quantized")
    if form in ("float-quantized", "int-quantized", "naive-quantized"):
        types = _EIGHT_BITS if weights.get("type") == "float" else ("I8",)
        return _scaled(tensors, _blocks(weights.get("block_structure")), types)
    if form != "pack-quantized" or weights.get("type", "int") != "int":
        raise CheckpointError(
            f"compressed-tensors in the format {form!r:.40} is not supported; expected float-quantized, int-quantized, "
            "naive-quantized, pack-quantized or nvfp4-pack-quantized"
        )
    bits = bits_of(weights.get("num_bits"))
    size = None if weights.get("group_size") in (None, -1) else _group_size(weights)
    layers = _layers(tensors, "_packed")
    new = {layer: PackedTensor(layer, tensors, bits, size) for layer in layers}
    parts = ("packed", "scale", "shape", "zero_point", "g_idx")
    kept = _replaced(tensors, new, (f"{layer}_{part}" for layer in layers for part in parts))
    return {name: tensor for name, tensor in kept.items() if not name.endswith(_OF_ACTIVATIONS)}


def _layers(tensors: Tensors, suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in tensors if name.endswith(suffix)]


def _group_size(quantization: Mapping[str, Any]) -> int:
    size = quantization.get("group_size", quantization.get("q_group_size"))
    if type(size) is not int or (size < 1 and size != -1):
        raise CheckpointError(f"the group size of the quantization is {size!r:.40}; expected a positive number or -1")
    return size


def _blocks(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = [int(part) for part in value.split("x") if part.isdecimal()]
    if not isinstance(value, list) or len(value) != 2 or not all(type(size) is int and size > 0 for size in value):
        raise CheckpointError(f"the block size of the quantization is {value!r:.60}; expected two positive numbers")
    return tuple(value)
