#!/usr/bin/env python3
"""Answers a question from the text files of a folder: `python examples/ask_folder.py FOLDER "QUESTION"`.

Retrieval-augmented generation in one file: the texts are split into passages, each passage becomes a vector, and the
chat model is asked with the passages that lie closest to the question. The vectors are kept in the folder, in
`.passages.npz`, and made again when a file changes. Needs nothing but llamacpu.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import llamacpu
from llamacpu.answers.reading import Piece

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")
ENDINGS = (".txt", ".md", ".rst")
KEPT = ".passages.npz"


class Passage(NamedTuple):
    """A piece of a file."""

    source: str
    text: str


def passages_of(folder: Path, longest: int) -> list[Passage]:
    """Return the paragraphs of all text files, joined or split to about `longest` characters."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in ENDINGS and p.is_file()):
        name = str(path.relative_to(folder))
        text = ""
        for paragraph in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            if text and len(text) + len(paragraph) > longest:
                found.append(Passage(name, text))
                text = ""
            text = f"{text}\n\n{paragraph}".strip()
            while len(text) > longest:
                found.append(Passage(name, text[:longest]))
                text = text[longest:]
        if text:
            found.append(Passage(name, text))
    return found


def vectors_of(folder: Path, passages: list[Passage], model: llamacpu.Model) -> npt.NDArray[np.float32]:
    """Return a unit vector for every passage, read from the folder if nothing has changed."""
    state = hashlib.sha256(repr((Path(model.path).name, passages)).encode()).hexdigest()
    file = folder / KEPT
    if file.exists():
        with np.load(file) as kept:
            if str(kept["state"]) == state:
                return np.asarray(kept["vectors"], dtype=np.float32)
    vectors = model.embed([passage.text for passage in passages], normalize=True)
    np.savez(file, state=np.array(state), vectors=vectors)
    return vectors


def closest(passages: list[Passage], scores: npt.NDArray[np.float32], count: int) -> list[Passage]:
    """Return the `count` passages with the highest scores."""
    return [passages[i] for i in np.argsort(-scores, kind="stable")[:count]]


def main() -> None:
    """Read the command line, search, and answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--model", default=DEMO, help="a chat model: file or name (the demo model)")
    parser.add_argument("--embedding-model", default=DEMO, help="an embedding model, such as nomic-embed-text")
    parser.add_argument("--passages", type=int, default=3, help="how many go into the prompt")
    parser.add_argument("--characters", type=int, default=800, help="of a passage, at most")
    given = parser.parse_args()
    passages = passages_of(given.folder, given.characters)
    if not passages:
        sys.exit(f"Error: no text in {given.folder}; expected files that end in {', '.join(ENDINGS)}")
    with llamacpu.Model(given.embedding_model) as embedding:
        vectors = vectors_of(given.folder, passages, embedding)
        scores = vectors @ embedding.embed(given.question, normalize=True)
    chosen = closest(passages, scores, given.passages)
    context = "\n\n".join(f"[{passage.source}]\n{passage.text}" for passage in chosen)
    prompt = f"Answer the question from these notes, and say where the answer is from.\n\n{context}\n\n{given.question}"
    with llamacpu.Model(given.model) as model:
        for piece in model.chat([{"role": "user", "content": prompt}], stream=True, max_tokens=300):
            if isinstance(piece, Piece) and piece.kind == "content":
                sys.stdout.write(piece.text)
            sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stderr.write("Sources: " + ", ".join(dict.fromkeys(passage.source for passage in chosen)) + "\n")


if __name__ == "__main__":
    main()
