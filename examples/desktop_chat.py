#!/usr/bin/env python3
"""The smallest chat window: `python examples/desktop_chat.py [MODEL]`, without a file the demo model.

It shows how a program with a window uses a model: a thread works and puts pieces of text into a queue, the window looks
into the queue fifty times a second and never waits, and a `CancelToken` stops an answer. `llamacpu window` is the same
idea with everything that belongs to it. It needs nothing but llamacpu and the tkinter that comes with Python.
"""

from __future__ import annotations

import argparse
import queue
import threading
import tkinter as tk
from importlib import resources
from typing import Any

import llamacpu
from llamacpu.answers.reading import Piece

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")


class Chat:
    """A window with a text, an input field and a button."""

    def __init__(self, root: tk.Tk, model: llamacpu.Model) -> None:
        self.model = model
        self.messages: Any = []
        self.pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.cancel: llamacpu.CancelToken | None = None
        self.text = tk.Text(root, wrap="word", width=70, height=24)
        self.text.pack(fill="both", expand=True)
        self.field = tk.Entry(root)
        self.field.pack(fill="x", side="left", expand=True)
        self.field.bind("<Return>", lambda _event: self.ask())
        tk.Button(root, text="Stop", command=self.stop).pack(side="right")
        self.root = root
        self.look()

    def ask(self) -> None:
        """Answer the question in the input field."""
        question = self.field.get().strip()
        if self.cancel is not None or not question:
            return
        self.field.delete(0, "end")
        self.text.insert("end", f"You: {question}\nModel: ")
        self.messages.append({"role": "user", "content": question})
        self.cancel = llamacpu.CancelToken()
        threading.Thread(target=self.work, args=(self.cancel,), daemon=True).start()

    def work(self, cancel: llamacpu.CancelToken) -> None:
        """Do everything that takes time, in a thread. Nothing here touches the window."""
        said = ""
        try:
            for piece in self.model.chat(self.messages, stream=True, overflow="truncate", cancel=cancel):
                if isinstance(piece, Piece) and piece.kind == "content":
                    said += piece.text
                    self.pieces.put(piece.text)
        except (llamacpu.LlamaCpuError, ValueError, MemoryError) as error:
            self.pieces.put(f"Error: {error}")
        self.messages.append({"role": "assistant", "content": said})
        self.pieces.put(None)

    def look(self) -> None:
        """Show the pieces that have arrived since the last call."""
        for _ in range(self.pieces.qsize()):
            piece = self.pieces.get()
            if piece is None:
                self.cancel = None
            self.text.insert("end", "\n\n" if piece is None else piece)
            self.text.see("end")
        self.root.after(20, self.look)

    def stop(self) -> None:
        """Stop the answer."""
        if self.cancel is not None:
            self.cancel.cancel()


def main() -> None:
    """Open the window and run until it is closed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEMO, help="file or name (the demo model)")
    given = parser.parse_args()
    with llamacpu.Model(given.model) as model:
        root = tk.Tk(className="llamacpu")
        chat = Chat(root, model)
        root.mainloop()
        chat.stop()


if __name__ == "__main__":
    main()
