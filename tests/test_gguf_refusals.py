"""Unsound GGUF files: every limit of the reader has a file that breaks it, and an error that says so."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import raw_gguf as raw
from llamacpu.errors import GGUFError
from llamacpu.gguf.file import GGUFFile
from raw_gguf import array, gguf_bytes, info, pair, scalar

ONE = [info("a", [8])]
HUGE = 2**63


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"GGU", "starts with b'GGU'"),
        (b"GGUF", "ends in the middle of the header"),
        (b"lmgg" + bytes(100), "old format 'ggml'"),
        (b"fmgg" + bytes(100), "old format 'ggmf'"),
        (b"tjgg" + bytes(100), "old format 'ggjt'"),
        (b"algg" + bytes(100), "old format 'ggla'"),
        (b"PK\x03\x04" + bytes(100), "PyTorch"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<html>" + bytes(100), "web page"),
        (struct.pack("<Q", 40) + b'{"__metadata__":{}}', "safetensors"),
        (b"hello, this is a text", "starts with b'hell', expected b'GGUF'"),
        (gguf_bytes(version=1), "GGUF version 1; versions 2 and 3"),
        (gguf_bytes(version=4), "update llamacpu"),
        (gguf_bytes(version=0x03000000), "big-endian"),
        (gguf_bytes(pair_count=1), "claims 1 metadata keys"),
        (gguf_bytes(pair_count=HUGE), f"claims {HUGE} metadata keys"),
        (gguf_bytes(info_count=HUGE), f"claims {HUGE} tensors"),
        (gguf_bytes([pair("", scalar(raw.U8, 1))]), "key 0 is empty"),
        (gguf_bytes([pair(b"\xff", scalar(raw.U8, 1))]), "is not text"),
        (gguf_bytes([pair("k" * 65536, scalar(raw.U8, 1))]), "limit is 65535"),
        (gguf_bytes([pair("k", scalar(raw.U8, 1))] * 2), "'k' occurs twice"),
        (gguf_bytes([pair("k", struct.pack("<IB", 13, 0))]), "unknown type 13"),
        (gguf_bytes([pair("k" * 65535, struct.pack("<IB", 13, 0))]), "kkk...' has the unknown type 13"),
        (gguf_bytes([pair("k", scalar(raw.BOOL, 2))]), "byte 2; expected 0 or 1"),
        (gguf_bytes([pair("k", array(raw.BOOL, [0, 1, 2]))]), "other than 0 and 1"),
        (gguf_bytes([pair("k", array(raw.ARRAY, []))]), "arrays of arrays"),
        (gguf_bytes([pair("k", struct.pack("<IIQ", 9, 13, 0))]), "unknown element type 13"),
        (gguf_bytes([pair("k", array(raw.F64, [1], count=2**60))]), "elements in the array 'k'"),
        (gguf_bytes([pair("k", array(raw.U8, [1], count=2**30 + 1))]), "elements in the array 'k'"),
        (gguf_bytes([pair("k", array(raw.STRING, [], count=2**61))]), "elements in the array 'k'"),
        (gguf_bytes([pair("k", array(raw.STRING, ["a"], count=5))]), "file.gguf: "),
        (gguf_bytes([pair("k", struct.pack("<IQ", 8, 2**40))]), "limit is 1073741824"),
        (gguf_bytes([pair("k", struct.pack("<IQ", 8, 2**20))]), "ends in the middle of the value of 'k'"),
        *(
            (gguf_bytes([pair("general.alignment", scalar(raw.U32, size))]), "expected a power of two")
            for size in (0, 3, 48, 2**21, 2**32 - 1)
        ),
        (gguf_bytes([pair("general.alignment", scalar(raw.STRING, "32"))]), "expected a power of two"),
        (gguf_bytes([pair("general.alignment", scalar(raw.BOOL, 1))]), "expected a power of two"),
        (gguf_bytes([], ONE, bytes(31)), "reaches byte"),
        (gguf_bytes([], [info("a", [8], 0, 2**63)], bytes(32)), "reaches byte"),
        (gguf_bytes([], [info("a", [8], 0, 4)], bytes(64)), "expected a multiple of 32"),
        (gguf_bytes([], [*ONE, *ONE], bytes(64)), "'a' occurs twice"),
        (gguf_bytes([], [*ONE, info("b", [8])], bytes(64)), "'a' and 'b' overlap"),
        (gguf_bytes([], [info("a", [16]), info("b", [8], 0, 32)], bytes(64)), "'a' and 'b' overlap"),
        (gguf_bytes([], [info("a", [8], dimensions=5)], bytes(64)), "claims 5 dimensions"),
        (gguf_bytes([], [info("a" * 64, [8])], bytes(64)), "limit is 63"),
        (gguf_bytes([], [info("", [8])], bytes(64)), "has no name"),
        (gguf_bytes([], [info(b"\xfe", [8])], bytes(64)), "is not text"),
        (gguf_bytes([], [info("a", [-8])], bytes(64)), "impossible shape"),
        (gguf_bytes([], [info("a", [2**32, 2**31])], bytes(64)), "impossible shape"),
        (gguf_bytes([], [info("a", [2**40, 2**20])], bytes(64)), "reaches byte"),
        (gguf_bytes([], [info("a", [40], 2)], bytes(64)), "expected a multiple of 32"),
        (gguf_bytes([], [info("a", [], 12)], bytes(144)), "expected a multiple of 256"),
        (gguf_bytes([], [info("a", [8], 4)], bytes(64)), "removed type Q4_2"),
        (gguf_bytes([], [info("a", [8], 32)], bytes(64)), "quantize the model to Q4_0 again"),
        (gguf_bytes([], [info("a", [8], 77)], bytes(64)), "unknown type number 77"),
        (gguf_bytes([pair("split.count", scalar(raw.STRING, "2"))]), "split.no is 0"),
    ],
)
def test_refusals_say_why(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError) as caught:
        GGUFFile(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.gguf: ")
    assert len(str(caught.value)) < 300


def test_a_long_header_of_tiny_keys_is_refused_at_once(tmp_path: Path) -> None:
    pairs = [pair(f"{number:05x}", scalar(raw.U8, 0)) for number in range(70000)]
    path = tmp_path / "file.gguf"
    path.write_bytes(gguf_bytes(pairs))
    with pytest.raises(GGUFError, match="claims 70000 metadata keys"):
        GGUFFile(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"nothing\.gguf: no such file") as caught:
        GGUFFile(tmp_path / "nothing.gguf")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="this is a folder"):
        GGUFFile(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(GGUFError, match="not a regular file"):
        GGUFFile(path)


def test_path_with_a_zero_character() -> None:
    with pytest.raises(GGUFError, match="cannot be opened"):
        GGUFFile("model\0.gguf")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not list open files")
def test_errors_release_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(gguf_bytes([pair("k", scalar(raw.BOOL, 2))]))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(GGUFError):
            GGUFFile(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
