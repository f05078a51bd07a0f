"""Our speed at encoding a picture beside llama.cpp's `llama-server`, interleaved in one run, as a Markdown table.

    python benches/picture_speed.py FOLDER [NAME ...] --llama-server PATH [--rounds 3] [--threads 2]

`benches/big_encoders.py` writes the files of FOLDER; a NAME is that of a file without "mmproj-" and ".gguf", such as
gemma-3-4b-q8_0. Both programs stay open; in every round ours encodes a picture, then theirs, each time another one, and
the best round of each counts. Only the encoder counts: from pixels to embeddings, without decoding and resizing. For
llama.cpp that is the time between two lines of its log. A tile has the same size and the same number of embeddings on
both sides; where llama.cpp encodes the picture in several tiles, the best of them counts.

The rates count the products of the layers, of the projector and of attention, each multiplication and addition as one
operation. The last column is the rate at which we read a prompt of 512 tokens with weights of the same type, its best
round, attention not counted: what the encoder's products could reach.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from big_encoders import ENCODER_TYPES, ENCODERS
from llamacpu.gguf.file import GGUFFile

PROMPT_TOKENS = 512
MARKER = re.compile(
    r"^(?P<minutes>\d+)\.(?P<seconds>\d+)\.(?P<thousandths>\d+)\.(?P<millionths>\d+) \w .*?"
    r"(?:encoding batch with (?P<entries>\d+) entries and total (?P<tokens>\d+) tokens|decoding image batch 1/)"
)
OURS = """
import json, sys, time
import numpy as np
from llamacpu import Model
from llamacpu.engine.picture_encoder import PictureEncoder

encoder, text, height, width, threads, tokens = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
random = np.random.default_rng(0)
with PictureEncoder(encoder, threads=threads) as opened, Model(text, threads=threads) as model:
    for line in sys.stdin:
        pixels = random.standard_normal((1, height, width, 3), dtype=np.float32)
        start = time.perf_counter()
        rows = len(opened.encode(pixels).rows)
        seconds = time.perf_counter() - start
        prompts = []
        for _ in range(3):
            session = model.session()
            start = time.perf_counter()
            session.forward([20] * tokens)
            prompts.append(time.perf_counter() - start)
        print(json.dumps([seconds, rows, min(prompts)]), flush=True)
"""


class Ours:
    """A process with our encoder and the text model."""

    def __init__(self, encoder: Path, text: Path, size: tuple[int, int], threads: int) -> None:
        command = [sys.executable, "-c", OURS, *map(str, (encoder, text, *size, threads, PROMPT_TOKENS))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def encode(self) -> tuple[float, int, float]:
        """Return the seconds of a picture, its number of embeddings, and the seconds of a prompt."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("our process ended before it had encoded a picture")
        seconds, rows, prompt = json.loads(answer)
        return seconds, rows, prompt

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


class Theirs:
    """A llama-server with the encoder and the text model."""

    def __init__(self, program: Path, encoder: Path, text: Path, threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        command = [str(program), "-m", str(text), "--mmproj", str(encoder), "-t", str(threads), "-tb", str(threads)]
        command += ["-c", "8192", "-np", "1", "--port", str(port), "-lv", "5", "--log-timestamps", "--log-prefix"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.tiles = 0

    def encode(self, size: tuple[int, int], seed: int) -> tuple[float, int]:
        """Return the seconds of the best tile of a picture, and the number of its embeddings."""
        self._wait()
        self._ask(picture(size, seed))
        self.log.flush()
        self.log.seek(0)
        found = encoded_tiles(self.log.read())
        if len(found) <= self.tiles:
            raise SystemExit("llama-server encoded nothing, or its log has another form")
        latest, self.tiles = found[self.tiles :], len(found)
        return min(latest)

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def _wait(self) -> None:
        for _ in range(1200):
            if self.process.poll() is not None:
                raise SystemExit(f"llama-server ended with status {self.process.returncode}")
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("llama-server was not ready after two minutes")

    def _ask(self, image: str) -> None:
        parts: list[Any] = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "?"}]
        body = json.dumps({"max_tokens": 1, "messages": [{"role": "user", "content": parts}]}).encode()
        address = f"{self.address}/v1/chat/completions"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=600).close()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"llama-server refused the picture: {error.read().decode(errors='replace')}") from None


def encoded_tiles(log: str) -> list[tuple[float, int]]:
    """Return the seconds and embeddings of each tile, from the log's timestamps before and after its encoding."""
    found = []
    begun: tuple[float, int] | None = None
    for match in filter(None, map(MARKER.match, log.splitlines())):
        now = 60 * int(match["minutes"]) + int(match["seconds"]) + int(match["thousandths"] + match["millionths"]) / 1e6
        if match["entries"]:
            if match["entries"] != "1":
                raise SystemExit("llama-server encoded several tiles at once; expected one after the other")
            begun = now, int(match["tokens"])
        elif begun:
            found.append((now - begun[0], begun[1]))
            begun = None
    return found


def picture(size: tuple[int, int], seed: int) -> str:
    """Return a picture of noise as a data URL."""
    from PIL import Image

    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def operations(name: str, encoder: Path, size: tuple[int, int], rows: int) -> float:
    """Return the multiplications and additions of a picture, in 10^9: products, and attention of all layers."""
    shape = ENCODERS[name]
    patches = size[0] // shape.patch_size * (size[1] // shape.patch_size) + shape.class_token
    # The average of Gemma 3 is taken before its projector, as the squares of the other ones are joined before theirs.
    counts = {"v.blk": patches, "v.patch_embd": patches, "mm": rows}
    with GGUFFile(encoder) as file:
        products = sum(
            counts[next(part for part in counts if tensor.name.startswith(part))] * math.prod(tensor.shape)
            for tensor in file.tensors
            if len(tensor.shape) > 1 and not tensor.name.startswith("v.position")
        )
    window = (112 // shape.patch_size) ** 2 if "vision.n_wa_pattern" in shape.extra else patches
    period = shape.extra.get("vision.n_wa_pattern", 1)
    whole = shape.layers // period
    seen = whole * patches + (shape.layers - whole) * window
    return 2 * (products + 2 * patches * seen * shape.width) / 1e9


def prompt_operations(text: Path) -> float:
    """Return the multiplications and additions of a prompt in the layers of a text model, in 10^9.

    In the last layer, all tokens have queries, keys and values, but only the last token has the rest.
    """
    with GGUFFile(text) as file:
        found = [t for t in file.tensors if t.name.startswith("blk.") and len(t.shape) > 1]
        last = f"blk.{max(int(t.name.split('.')[1]) for t in found)}."
        before = tuple(f"{last}attn_{name}." for name in "qkv")
        counts = (1 if t.name.startswith(last) and not t.name.startswith(before) else PROMPT_TOKENS for t in found)
        return 2 * sum(count * math.prod(t.shape) for count, t in zip(counts, found, strict=True)) / 1e9


def row_of(stem: str, options: argparse.Namespace) -> str:
    """Return the row of the table for one encoder."""
    name, _, kind = stem.rpartition("-")
    encoder, text = options.folder / f"mmproj-{stem}.gguf", options.folder / f"{name}-text-{kind}.gguf"
    size = ENCODERS[name].picture
    own, peer = Ours(encoder, text, size, options.threads), Theirs(options.llama_server, encoder, text, options.threads)
    runs, others = [], []
    try:
        for seed in range(options.rounds):
            runs.append(own.encode())
            others.append(peer.encode(size, seed))
    finally:
        own.close()
        peer.close()
    rows = runs[0][1]
    if others[0][1] != rows:
        raise SystemExit(f"{stem}: we make {rows} embeddings, llama.cpp {others[0][1]}")
    seconds, other = min(run[0] for run in runs), min(run[0] for run in others)
    billions = operations(name, encoder, size, rows)
    prompt = prompt_operations(text) / min(run[2] for run in runs)
    return (
        f"| {name} | {kind.upper()} | {size[1]} x {size[0]} | {rows} | {seconds * 1e3:.0f} "
        f"| {other * 1e3:.0f} | {other / seconds:.2f} x | {billions / seconds:.0f} | {billions / other:.0f} "
        f"| {prompt:.0f} |"
    )


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    known = [f"{name}-{kind}" for name in ENCODERS for kind in ENCODER_TYPES]
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"there is no encoder {unknown[0]}; there are {', '.join(known)}")
    present = [stem for stem in known if (options.folder / f"mmproj-{stem}.gguf").exists()]
    print(
        f"{options.threads} threads, best of {options.rounds}\n\n"
        "| encoder | type | picture | tokens | ours, ms | llama.cpp, ms | ratio | ours, GFLOP/s | llama.cpp, GFLOP/s "
        "| our prompt, GFLOP/s |\n|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for stem in options.names or present:
        print(row_of(stem, options), flush=True)


if __name__ == "__main__":
    main()
