"""Damaged and malicious variants of a tiny model file, for a child process to open, load and run."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

import raw_gguf as raw
from llamacpu.gguf.types import TENSOR_TYPES
from raw_gguf import array, gguf_bytes, info, pair, scalar

WIDTH, HEADS, HEAD_SIZE, EXPERTS = 32, 2, 16, 2
TOKENS = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab"]


@dataclass(frozen=True)
class File:
    """A file in pieces: metadata values as bytes, tensors as (name, shape, type, offset), data."""

    pairs: dict[str, bytes] = field(default_factory=dict)
    tensors: tuple[tuple[str, tuple[int, ...], int, int], ...] = ()
    data: bytes = b""

    def bytes(self) -> bytes:
        pairs = [pair(key, value) for key, value in self.pairs.items()]
        return gguf_bytes(pairs, [info(*tensor) for tensor in self.tensors], self.data)

    @property
    def header(self) -> int:
        """Number of bytes before the data."""
        return len(self.bytes()) - len(self.data)


def sound_file(experts: bool = False, bpe: bool = False, width: int = WIDTH, kind: int = 0) -> File:
    """A complete model of one layer with YaRN: its dense matrices have the type `kind`, its experts Q8_0.

    Norms are F32 and well behaved, blocks are random bytes.
    """
    u32 = lambda value: scalar(raw.U32, value)  # noqa: E731 (a table of values reads better)
    pairs = {
        "general.architecture": scalar(raw.STRING, "llama"),
        "general.alignment": u32(32),
        "llama.context_length": u32(64),
        "llama.embedding_length": u32(width),
        "llama.block_count": u32(1),
        "llama.feed_forward_length": u32(width),
        "llama.attention.head_count": u32(HEADS),
        "llama.attention.head_count_kv": array(raw.I32, [1]),
        "llama.attention.layer_norm_rms_epsilon": scalar(raw.F32, 1e-5),
        "llama.rope.dimension_count": u32(HEAD_SIZE),
        "llama.rope.freq_base": scalar(raw.F32, 10000.0),
        "llama.rope.scaling.type": scalar(raw.STRING, "yarn"),
        "llama.rope.scaling.factor": scalar(raw.F32, 4.0),
        "llama.rope.scaling.original_context_length": u32(16),
        "tokenizer.ggml.model": scalar(raw.STRING, "llama"),
        "tokenizer.ggml.tokens": array(raw.STRING, TOKENS),
        "tokenizer.ggml.scores": array(raw.F32, [-float(rank) for rank in range(len(TOKENS))]),
        "tokenizer.ggml.token_type": array(raw.I32, [2, 3, 3, 1, 1, 1, 1, 1]),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.add_bos_token": scalar(raw.BOOL, 1),
    }
    if bpe:
        pairs["tokenizer.ggml.model"] = scalar(raw.STRING, "gpt2")
        pairs["tokenizer.ggml.pre"] = scalar(raw.STRING, "llama-bpe")
        pairs["tokenizer.ggml.tokens"] = array(raw.STRING, ["<u>", "<s>", "</s>", "Ġ", "a", "b", "Ġa", "ab"])
        pairs["tokenizer.ggml.merges"] = array(raw.STRING, ["Ġ a", "a b"])
    inner = HEADS * HEAD_SIZE * width // WIDTH
    pairs["llama.attention.head_count"] = u32(inner // HEAD_SIZE)
    shapes: dict[str, tuple[tuple[int, ...], int]] = {
        "token_embd.weight": ((width, len(TOKENS)), kind),
        "output_norm.weight": ((width,), 0),
        "rope_freqs.weight": ((HEAD_SIZE // 2,), 0),
        "blk.0.attn_norm.weight": ((width,), 0),
        "blk.0.attn_q.weight": ((width, inner), kind),
        "blk.0.attn_q.bias": ((inner,), 0),
        "blk.0.attn_k.weight": ((width, HEAD_SIZE), kind),
        "blk.0.attn_v.weight": ((width, HEAD_SIZE), kind),
        "blk.0.attn_output.weight": ((inner, width), kind),
        "blk.0.ffn_norm.weight": ((width,), 0),
    }
    if experts:
        pairs |= {"llama.expert_count": u32(EXPERTS), "llama.expert_used_count": u32(1)}
        shapes["blk.0.ffn_gate_inp.weight"] = ((width, EXPERTS), 0)
        shapes |= {f"blk.0.ffn_{part}_exps.weight": ((width, width, EXPERTS), 8) for part in ("gate", "up", "down")}
    else:
        shapes |= {f"blk.0.ffn_{part}.weight": ((width, width), kind) for part in ("gate", "up", "down")}
    random = np.random.default_rng(1)
    tensors, data = [], b""
    for name, (shape, stored) in shapes.items():
        tensors.append((name, shape, stored, len(data)))
        _, elements, size = TENSOR_TYPES[stored]
        count = int(np.prod(shape)) // elements
        if stored == 0:
            raw_data = (0.5 + random.standard_normal(count) * 0.2).astype("<f4").tobytes()
        else:
            blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
            if stored == 8:
                blocks[:, :2] = np.array([0.002], "<f2").view(np.uint8)
            raw_data = blocks.tobytes()
        data += raw_data + bytes(-len(raw_data) % 32)
    return File(pairs, tuple(tensors), data)


Case = tuple[str, bytes]


def truncations() -> Iterator[Case]:
    """Every length up to the first tensor's end, then some."""
    file = sound_file()
    whole, header = file.bytes(), file.header
    for length in (*range(header + 130), *range(header + 130, len(whole), 301)):
        yield f"the first {length} of {len(whole)} bytes", whole[:length]


def header_bits(quarter: int) -> Iterator[Case]:
    """Every single bit of the header of the dense model flipped, in four parts."""
    yield from _flips(sound_file(), (2 * quarter, 2 * quarter + 1))


def more_header_bits() -> Iterator[Case]:
    """One bit of every byte of the headers with experts and with the other tokenizer."""
    for experts, bpe in ((True, False), (False, True), (True, True)):
        yield from _flips(sound_file(experts, bpe), (None,))


def _flips(file: File, bits: tuple[int | None, ...]) -> Iterator[Case]:
    whole = bytearray(file.bytes())
    for position in range(file.header):
        for chosen in bits:
            bit = position % 8 if chosen is None else chosen
            whole[position] ^= 1 << bit
            yield f"bit {bit} of byte {position}", bytes(whole)
            whole[position] ^= 1 << bit


def large_numbers() -> Iterator[Case]:
    """Large and negative numbers of four and eight bytes written over the header at every byte."""
    file = sound_file(experts=True, bpe=True)
    whole, header = file.bytes(), file.header
    numbers = [struct.pack("<I", 2**31 - 1), struct.pack("<Q", 2**62), struct.pack("<Q", 2**64 - 1), bytes(8)]
    for position in range(4, header - 8):
        for number in numbers:
            end = position + len(number)
            yield f"{number.hex()} at byte {position}", whole[:position] + number + whole[end:]


def data_bits() -> Iterator[Case]:
    """Flipped bits in the weights: infinities and not-a-numbers among them."""
    for experts in (False, True):
        file = sound_file(experts=experts)
        whole, start = bytearray(file.bytes()), file.header
        random = np.random.default_rng(2)
        for position in random.integers(start, len(whole), 300):
            bit = int(random.integers(4, 8))
            whole[position] ^= 1 << bit
            yield f"data bit {bit} of byte {position}, {experts=}", bytes(whole)
            whole[position] ^= 1 << bit
        for pattern in (b"\x00", b"\xff", b"\x7f", b"\x00\x00\xc0\x7f"):
            yield f"all data {pattern!r}", replace(file, data=(pattern * len(file.data))[: len(file.data)]).bytes()


def random_blocks() -> Iterator[Case]:
    """Matrices of every type whose blocks are random bytes, infinite scales and all."""
    for kind, (name, elements, _) in TENSOR_TYPES.items():
        if kind != 0:
            yield f"random blocks of {name}", sound_file(width=256, kind=kind).bytes()
            if elements <= 32:
                yield f"short rows of {name}", sound_file(kind=kind).bytes()


INTEGERS = [0, 1, 2, 3, 5, 31, 33, 512, 513, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
FLOATS = [0.0, -1.0, 1e-45, 1e-300, 0.5, 1.0, 1e38, 1e300, float("inf"), float("nan")]
STRINGS = ["", "llama", "gpt2", "mllama", "yarn", "linear", "none", "longrope", "\x00", "x" * 70000, "😀"]


def metadata_values() -> Iterator[Case]:
    """Every key missing, and with absurd values of every type, in a dense and an expert model."""
    for experts, bpe in ((False, False), (True, True)):
        file = sound_file(experts=experts, bpe=bpe)
        more = {
            "llama.attention.key_length": scalar(raw.U32, HEAD_SIZE),
            "llama.attention.value_length": scalar(raw.U32, HEAD_SIZE),
            "llama.expert_gating_func": scalar(raw.U32, 1),
            "llama.attention.scale": scalar(raw.F32, 1),
            "llama.logit_scale": scalar(raw.F32, 1),
            "llama.rope.scaling.yarn_beta_fast": scalar(raw.F32, 32),
            "llama.rope.scaling.yarn_ext_factor": scalar(raw.F32, 1),
            "llama.rope.scaling.yarn_attn_factor": scalar(raw.F32, 1),
            "tokenizer.ggml.unknown_token_id": scalar(raw.U32, 0),
            "tokenizer.ggml.add_space_prefix": scalar(raw.BOOL, 0),
            "tokenizer.chat_template": scalar(raw.STRING, "{{ messages }}"),
            "split.count": scalar(raw.U16, 1),
        }
        pairs = file.pairs | more
        for key in pairs:
            yield f"no {key}", replace(file, pairs={k: v for k, v in pairs.items() if k != key}).bytes()
            for name, value in _odd_values():
                yield f"{key} = {name}", replace(file, pairs=pairs | {key: value}).bytes()


def _odd_values() -> Iterator[tuple[str, bytes]]:
    for integer in INTEGERS:
        yield str(integer), scalar(raw.U64, integer)
    yield "-1", scalar(raw.I32, -1)
    yield "-2**63", scalar(raw.I64, -(2**63))
    for number in FLOATS:
        yield str(number), scalar(raw.F64, number)
    for string in STRINGS:
        yield repr(string[:20]), scalar(raw.STRING, string)
    yield "invalid UTF-8", scalar(raw.STRING, b"\xff\xfe")
    for kind in (raw.U8, raw.I32, raw.F32, raw.BOOL, raw.U64):
        yield f"an empty array of type {kind}", array(kind, [])
        yield f"an array of type {kind}", array(kind, [1, 0, 1, 1, 1, 1, 1, 1])
    yield "negative numbers", array(raw.I32, [-1] * 8)
    yield "large numbers", array(raw.I32, [2**31 - 1] * 8)
    yield "not numbers", array(raw.F32, [float("nan")] * 8)
    for strings in ([], [""] * 8, ["a"] * 8, ["a b"] * 3, [" "] * 8, [b"\xff"] * 8, ["<0x41>"] * 8, ["x" * 20000] * 2):
        yield f"strings {strings[:1]!r:.20} * {len(strings)}", array(raw.STRING, strings)
    yield "nested", struct.pack("<IIQIIQ", raw.ARRAY, raw.ARRAY, 1, raw.ARRAY, raw.ARRAY, 0)


def tensor_tables() -> Iterator[Case]:
    """Every tensor missing, renamed, of every type, with other shapes and at other places."""
    for experts in (False, True):
        file = sound_file(experts=experts)
        for index, (name, shape, kind, offset) in enumerate(file.tensors):
            for label, changed in _odd_tensors(name, shape, kind, offset, len(file.data)):
                tensors = (*file.tensors[:index], *changed, *file.tensors[index + 1 :])
                yield f"{name}: {label}", replace(file, tensors=tensors).bytes()


Row = tuple[str, tuple[int, ...], int, int]


def _odd_tensors(
    name: str, shape: tuple[int, ...], kind: int, offset: int, size: int
) -> Iterator[tuple[str, tuple[Row, ...]]]:
    yield "missing", ()
    yield "twice", ((name, shape, kind, offset), (name, shape, kind, offset))
    yield "renamed", (("blk.0.unknown.weight", shape, kind, offset),)
    yield "copied for another layer", ((name, shape, kind, offset), (f"blk.7.{name}"[:63], shape, kind, offset))
    for other in (*TENSOR_TYPES, 4, 31, 36, 43, 2**31, 2**32 - 1):
        yield f"type {other}", ((name, shape, other, offset),)
    shapes = [(), (0,), (1,), shape[::-1], (*shape, 1), (*shape, 0), (1, *shape), shape[:1], (shape[0] * 2, *shape[1:])]
    shapes += [(2**62,), (-1,), (2**32, 2**32), (2**63 - 1, 2), (-(2**63), -(2**63)), (32, 0), (0, 2**62)]
    shapes += [(shape[0] // 2, *shape[1:]), (256,), (int(np.prod(shape)),)]
    for other_shape in shapes:
        yield f"shape {other_shape}", ((name, other_shape, kind, offset),)
    for other_offset in (0, 1, 4, 32, size - 32, size, size + 32, 2**62, 2**63, 2**64 - 32):
        yield f"offset {other_offset}", ((name, shape, kind, other_offset),)


def some(cases: Iterator[Case], first: int = 0, step: int = 5) -> Iterator[Case]:
    """Every `step`-th case; the four kinds of flipped bits meet every byte together.

    LLAMACPU_THOROUGH: all, in minutes.
    """
    return cases if os.environ.get("LLAMACPU_THOROUGH") else itertools.islice(cases, first, None, step)


KINDS = {
    "truncations": truncations,
    "header bits 0 and 1": lambda: some(header_bits(0)),
    "header bits 2 and 3": lambda: some(header_bits(1), 1),
    "header bits 4 and 5": lambda: some(header_bits(2), 2),
    "header bits 6 and 7": lambda: some(header_bits(3), 3),
    "more header bits": lambda: some(more_header_bits()),
    "large numbers": lambda: some(large_numbers()),
    "data bits": data_bits,
    "random blocks": random_blocks,
    # A part of the values of each key, other ones for the next key.
    "metadata values": lambda: some(metadata_values(), step=11),
    "tensor tables": tensor_tables,
}
