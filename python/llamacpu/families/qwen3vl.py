"""Qwen3-VL (arXiv:2511.21631), dense and with experts: Qwen 3, rotated by time, row and column of pictures."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["alternating_sections", "qwen3vl"]


def qwen3vl(file: GGUFFile, name: str) -> Config:
    """The `Config` of the text model in such a file."""
    if f"{name}.vision.block_count" in file.metadata:
        raise ModelError(
            "the file holds a language model and its vision encoder in Ollama's layout, which does not run here; "
            "expected the two files of llama.cpp's converter (`llamacpu convert`, and again with --mmproj)"
        )
    fields = parts.common(file, name)
    layers = file.metadata.integer(f"{name}.n_deepstack_layers", 0, minimum=0, maximum=fields["layers"] - 1)
    return Config(
        **fields
        | alternating_sections(file, name, fields["rope_size"])
        | {"rope_style": "neox", "query_key_norm": ["head"] * fields["layers"], "picture_layers": layers}
    )


def alternating_sections(file: GGUFFile, name: str, size: int) -> parts.Fields:
    """The pairs that time, row and column turn, in turns. Raises ModelError if they are not all pairs of `size`."""
    key = f"{name}.rope.dimension_sections"
    sections = file.metadata.integers(key, 4, maximum=1 << 15)
    if sections[3] or 2 * sum(sections) != size:
        raise ModelError(
            f"metadata key {key!r} is {sections}; expected three numbers of pairs, {size // 2} in all, and 0"
        )
    return {"rope_sections": sections[:3], "rope_sections_alternate": True}
