"""The demo model at the cost of a model of a billion weights: the same text, by matrices of the size of Llama 3.2 1B.

The demo model's numbers stand in one corner of every matrix and the rest is zero; the layers that it does not have add
nothing. So drafting can be timed where a pass costs what it costs in practice, on text that means something.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

import llamacpu

WIDTH, FEED_FORWARD, LAYERS = 2048, 8192, 16


def grow(demo: Path, path: Path) -> Path:
    """Write the grown model to `path`, and return `path`."""
    with llamacpu.GGUFFile(demo) as file:
        small = int(file.metadata["llama.embedding_length"])  # type: ignore[call-overload]
        factor = WIDTH // small
        heads = {key: factor * int(file.metadata[f"llama.attention.{key}"]) for key in ("head_count", "head_count_kv")}  # type: ignore[call-overload]
        head_size = WIDTH // heads["head_count"]
        rows = {
            "attn_q": WIDTH,
            "attn_k": heads["head_count_kv"] * head_size,
            "attn_v": heads["head_count_kv"] * head_size,
            "attn_output": WIDTH,
            "ffn_gate": FEED_FORWARD,
            "ffn_up": FEED_FORWARD,
            "ffn_down": WIDTH,
        }
        columns = {"attn_output": WIDTH, "ffn_down": FEED_FORWARD}
        writer = gguf.GGUFWriter(path, "llama")
        _metadata(writer, file, heads)
        known = {tensor.name: tensor for tensor in file.tensors}
        data = demo.read_bytes()

        def matrix(name: str, like: str, row_count: int, column_count: int) -> None:
            pattern = known.get(name, known[like])
            values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(pattern.type)]
            grown = np.zeros((row_count, column_count // values * size), dtype=np.uint8)
            if name in known:
                own = np.frombuffer(data, np.uint8, pattern.nbytes, pattern.offset).reshape(pattern.shape[1], -1)
                grown[: own.shape[0], : own.shape[1]] = own
            writer.add_tensor(name, grown, raw_dtype=gguf.GGMLQuantizationType(pattern.type))

        def norm(name: str) -> None:
            grown = np.zeros(WIDTH, dtype=np.float32)
            if name in known:
                # The mean over more elements is smaller by this factor.
                own = np.frombuffer(data, np.float32, small, known[name].offset)
                grown[:small] = own / np.sqrt(np.float32(factor))
            writer.add_tensor(name, grown)

        matrix("token_embd.weight", "token_embd.weight", known["token_embd.weight"].shape[1], WIDTH)
        norm("output_norm.weight")
        for layer in range(LAYERS):
            norm(f"blk.{layer}.attn_norm.weight")
            norm(f"blk.{layer}.ffn_norm.weight")
            for part, count in rows.items():
                matrix(f"blk.{layer}.{part}.weight", f"blk.0.{part}.weight", count, columns.get(part, WIDTH))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(writer: gguf.GGUFWriter, file: llamacpu.GGUFFile, heads: dict[str, int]) -> None:
    metadata = file.metadata
    changed = {
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        **{f"llama.attention.{key}": count for key, count in heads.items()},
    }
    for key, value in {**metadata, **changed}.items():
        if key == "llama.attention.layer_norm_rms_epsilon":
            writer.add_float32(key, float(value) * int(metadata["llama.embedding_length"]) / WIDTH)  # type: ignore[call-overload, arg-type]
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            if key != "general.architecture":
                writer.add_string(key, value)
        else:
            writer.add_array(key, value.tolist() if isinstance(value, np.ndarray) else list(value))


def demo_path() -> Path:
    """Return the path of the demo model in the package."""
    return Path(llamacpu.__file__).parent / "data" / "demo.gguf"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the file to write (about 600 MB)")
    print(grow(demo_path(), parser.parse_args().output))
