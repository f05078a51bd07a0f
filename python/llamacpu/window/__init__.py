"""A chat window based on Tk, which comes with most builds of Python: `llamacpu window`.

engine   the thread that owns the model; it reports what happens as events
window   the window, which polls the event queue and never blocks
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamacpu.errors import LlamaCpuError

__all__ = ["show"]


def show(model: str | Path, system: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
    """Open a window with a model; returns when it is closed.

    model     its file, or a name that `llamacpu.Model` opens, with what comes with it
    system    the system prompt of every conversation
    settings  arguments of `llamacpu.Llama`

    Raises `LlamaCpuError` if this Python has no tkinter, or if no window can be opened, for lack of a screen.
    """
    try:
        import tkinter as tk

        from llamacpu.window.window import Window
    except ImportError as error:
        raise LlamaCpuError(
            f"a window needs tkinter, which this Python does not have ({error}); install it (Debian and Ubuntu: "
            "apt install python3-tk; Fedora: dnf install python3-tkinter; Homebrew: brew install python-tk), or use "
            "the page in the browser that llamacpu serve opens"
        ) from None
    try:
        root = tk.Tk(className="llamacpu")
    except tk.TclError as error:
        raise LlamaCpuError(
            f"no window can be opened ({error}); run this where there is a screen, or use llamacpu run in the terminal"
        ) from None
    Window(root, model, system, settings)
    root.mainloop()
