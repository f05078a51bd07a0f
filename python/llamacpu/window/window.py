"""The window, which polls the event queue of its engine fifty times a second and never blocks."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Iterable, Mapping
from pathlib import Path
from tkinter import filedialog, font, ttk
from typing import Any

from llamacpu.errors import PictureError
from llamacpu.pictures import Picture
from llamacpu.window import images
from llamacpu.window.engine import Ended, Engine, Event, Failed, Loading, Looking, Reading, Ready, Said

__all__ = ["Window"]

POLL_MILLISECONDS = 20
PAPER, BAND, INK, FAINT, ACCENT, MODEL_INK, WRONG = (
    "#ffffff", "#eef3fc", "#1d2433", "#697386", "#2f5fd0", "#1f7a4d", "#b3261e"
)  # fmt: skip
REASONS = {"cancelled": "Stopped.", "length": "The context is full, or the limit is reached: the answer ends here."}


class Window:
    """The window: the conversation, a field for the next message, and buttons."""

    def __init__(
        self, root: tk.Tk, model: str | Path, system: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Build the window and load a model, a file or a name.

        `system` is the system prompt of every conversation; `settings` are arguments of `llamacpu.Llama`.
        """
        self.root: tk.Tk = root
        self.messages: list[dict[str, Any]] = []
        self.pictures: list[Picture] = []
        """images that go with the next message"""
        self._shown: list[tk.PhotoImage] = []
        self.state: str = "loading"  # then "idle", "answering", "failed", "closing"
        self._said = ""
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._settings: Mapping[str, Any] = {"n_ctx": 0} if settings is None else settings
        self._build()
        self._open(model)
        self._poll()

    # --- Widgets ---

    def _build(self) -> None:
        root = self.root
        root.title("llamacpu")
        root.geometry("760x640")
        root.minsize(420, 320)
        root.configure(background=PAPER)
        root.protocol("WM_DELETE_WINDOW", self.close)
        self._fonts()
        style = ttk.Style(root)
        if style.theme_use() == "default":
            style.theme_use("clam")
        for name in (".", "TFrame", "TLabel"):
            style.configure(name, background=PAPER, foreground=INK)
        style.configure("Name.TLabel", font="ChatBold")
        style.configure("Faint.TLabel", foreground=FAINT, font="ChatSmall")
        style.configure("TButton", padding=(14, 7), background="#f1f3f7", borderwidth=0, focusthickness=1)
        style.map("TButton", background=[("disabled", "#f7f8fa"), ("active", "#e4e8ef")],
                  foreground=[("disabled", "#b4bac4")])  # fmt: skip
        style.configure("Send.TButton", background=ACCENT, foreground="#ffffff")
        style.map("Send.TButton", background=[("disabled", "#b9c6e6"), ("active", "#264fb3")],
                  foreground=[("disabled", "#ffffff")])  # fmt: skip
        thumb: Any = ("Vertical.Scrollbar.thumb", {"expand": 1, "sticky": "nswe"})
        style.layout("Vertical.TScrollbar", [("Vertical.Scrollbar.trough", {"sticky": "ns", "children": [thumb]})])
        style.configure("Vertical.TScrollbar", width=8, gripcount=0, borderwidth=0, background="#cfd5df",
                        troughcolor=PAPER, bordercolor=PAPER, lightcolor="#cfd5df", darkcolor="#cfd5df")  # fmt: skip
        style.map("Vertical.TScrollbar", background=[("disabled", PAPER), ("active", "#aab2bf")])
        root.columnconfigure(0, weight=1)
        root.rowconfigure(1, weight=1)

        head = ttk.Frame(root, padding=(16, 12, 14, 10))
        head.grid(row=0, column=0, sticky="ew")
        head.columnconfigure(0, weight=1)
        self.name: ttk.Label = ttk.Label(head, style="Name.TLabel", text="llamacpu")
        self.name.grid(row=0, column=0, sticky="w")
        ttk.Button(head, text="Open…", command=self.choose_file).grid(row=0, column=1, padx=(0, 8))
        ttk.Button(head, text="New chat", command=self.clear).grid(row=0, column=2)

        middle = ttk.Frame(root)
        middle.grid(row=1, column=0, sticky="nsew")
        middle.columnconfigure(0, weight=1)
        middle.rowconfigure(0, weight=1)
        self.page: tk.Text = tk.Text(
            middle, wrap="word", state="disabled", font="Chat", background=PAPER, foreground=INK, borderwidth=0,
            highlightthickness=0, padx=0, pady=0, spacing2=3, cursor="arrow", takefocus=False, width=1, height=1,
        )  # fmt: skip
        self.page.grid(row=0, column=0, sticky="nsew")
        bar = ttk.Scrollbar(middle, command=self.page.yview)
        bar.grid(row=0, column=1, sticky="ns", padx=2)
        self.page.configure(yscrollcommand=bar.set)
        self._tags()

        rail = tk.Frame(root, height=3, background=PAPER)
        rail.grid(row=2, column=0, sticky="ew")
        self.progress: tk.Frame = tk.Frame(rail, background=ACCENT)

        foot = ttk.Frame(root, padding=(18, 10, 14, 6))
        foot.grid(row=3, column=0, sticky="ew")
        foot.columnconfigure(0, weight=1)
        self.field: tk.Text = tk.Text(
            foot, height=3, width=1, wrap="word", font="Chat", background="#f7f8fa", foreground=INK, relief="flat",
            highlightthickness=1, highlightbackground="#d8dde6", highlightcolor=ACCENT, padx=10, pady=8, undo=True,
        )  # fmt: skip
        self.field.grid(row=0, column=0, rowspan=3, sticky="nsew", padx=(0, 10))
        self.send_button: ttk.Button = ttk.Button(foot, text="Send", style="Send.TButton", command=self.send)
        self.send_button.grid(row=0, column=1, sticky="ew")
        ttk.Button(foot, text="Image…", command=self.choose_images).grid(row=2, column=1, sticky="ew", pady=(6, 0))
        self.stop_button: ttk.Button = ttk.Button(foot, text="Stop", command=self.stop)
        self.stop_button.grid(row=1, column=1, sticky="ew", pady=(6, 0))
        self.status: ttk.Label = ttk.Label(root, style="Faint.TLabel", padding=(16, 0, 16, 10))
        self.status.grid(row=4, column=0, sticky="ew")

        self.field.bind("<Return>", self._return_pressed)
        root.bind("<Escape>", lambda _event: self.stop())
        self.field.focus_set()

    def _fonts(self) -> None:
        plain = font.nametofont("TkDefaultFont").actual()
        size = max(11, abs(plain["size"]))
        kinds: dict[str, dict[str, Any]] = {"Chat": {}, "ChatBold": {"weight": "bold"}, "ChatSmall": {"size": size - 2}}
        # Tk deletes a named font together with the object that created it, so keep these.
        self._kept = [
            font.Font(self.root, name=name, **{"family": plain["family"], "size": size, **more})
            for name, more in kinds.items()
        ]

    def _tags(self) -> None:
        for name, ground in (("user", BAND), ("model", PAPER), ("wrong", "#fdf0ef")):
            both: dict[str, Any] = {"lmargin1": 18, "lmargin2": 18, "rmargin": 18, "background": ground,
                                    "lmargincolor": ground, "rmargincolor": ground}  # fmt: skip
            self.page.tag_configure(name, **both, spacing3=2)
            self.page.tag_configure(f"{name} name", **both, font="ChatBold", spacing1=10, spacing3=3)
            self.page.tag_configure(f"{name} end", **both, font="ChatSmall", spacing3=4)
        self.page.tag_configure("user name", foreground=ACCENT)
        self.page.tag_configure("model name", foreground=MODEL_INK)
        for name in ("wrong", "wrong name"):
            self.page.tag_configure(name, foreground=WRONG)
        self.page.tag_configure("thought", foreground=FAINT)
        self.page.tag_configure("model end", foreground=FAINT)

    # --- User actions ---

    def send(self) -> None:
        """Send the text in the input field."""
        text = self.field.get("1.0", "end-1c").strip()
        if not (text or self.pictures) or self.state != "idle":
            return
        self.field.delete("1.0", "end")
        pictures, self.pictures = self.pictures, []
        self.messages.append({"role": "user", "content": images.content_of(text, pictures)})
        self._write("You\n", "user name")
        for picture in pictures:
            self._draw(picture)
        self._write(f"{text}\n", "user")
        self._write("\n", "user end")
        self._write("Model\n", "model name")
        self._said = ""
        self._enter("answering", "Reading the prompt…")
        self.engine.ask([*self._system, *self.messages])

    def choose_images(self) -> None:
        """Ask for images that go with the next message."""
        title = "Add images to the message"
        self.add_images(filedialog.askopenfilenames(parent=self.root, title=title, filetypes=images.KINDS))

    def add_images(self, paths: Iterable[str | Path]) -> None:
        """Let images go with the next message; the line below says which do."""
        words = []
        for path in paths:
            try:
                self.pictures.append(images.opened(Path(path)))
            except PictureError as error:
                words.append(str(error))
        words += [f"With the message: {', '.join(one.name for one in self.pictures)}."] if self.pictures else []
        if words:
            self.status.configure(text=" ".join(words))
        self.field.focus_set()

    def _draw(self, picture: Picture) -> None:
        """Show an image in the conversation, or its name if it cannot be decoded."""
        try:
            small = images.thumbnail(self.root, picture)
        except PictureError:
            return self._write(f"{picture.name}\n", "user")
        self._shown.append(small)  # Tk keeps no reference
        self.page.configure(state="normal")
        self.page.insert("end", " ", "user")
        self.page.image_create("end-1c", image=small)
        self.page.configure(state="disabled")
        self._write("\n", "user")

    def stop(self) -> None:
        """Cancel the answer."""
        if self.state == "answering":
            self.engine.stop()

    def clear(self) -> None:
        """Begin a new conversation."""
        if self.state in ("idle", "failed"):
            self.messages.clear()
            self._shown.clear()
            self.page.configure(state="normal")
            self.page.delete("1.0", "end")
            self.page.configure(state="disabled")

    def choose_file(self) -> None:
        """Ask for a model file and load it."""
        kinds = [("GGUF models", "*.gguf"), ("All files", "*")]
        if path := filedialog.askopenfilename(parent=self.root, title="Open a model", filetypes=kinds):
            self.engine.close()
            self._open(Path(path))
            self.clear()

    def close(self) -> None:
        """Close everything: the window disappears at once, and the program ends when the engine has stopped."""
        if self.state != "closing":
            self.state = "closing"
            self.engine.close()
            self.root.withdraw()

    def _return_pressed(self, event: tk.Event[Any]) -> str | None:
        if int(event.state) & 1:  # Shift+Return inserts a line break
            return None
        self.send()
        return "break"

    # --- Engine events ---

    def _open(self, model: str | Path) -> None:
        self._enter("loading", f"Loading {Path(model).name}…")
        self.engine: Engine = Engine(model, self._settings)
        self.engine.start()

    def _poll(self) -> None:
        """Handle only the events already queued, so that a fast model does not keep the window busy."""
        said: Said | None = None
        for _ in range(self.engine.events.qsize()):
            event = self.engine.events.get()
            if isinstance(event, Said) and said is not None and said.thought == event.thought:
                said = Said(said.text + event.text, said.thought)
                continue
            if said is not None:
                self._take(said)
            said = event if isinstance(event, Said) else None
            if said is None:
                self._take(event)
        if said is not None:
            self._take(said)
        if self.state == "closing" and not self.engine.is_alive():
            self.root.destroy()
            return
        self.root.after(POLL_MILLISECONDS, self._poll)

    def _take(self, event: Event) -> None:
        if self.state == "closing":
            return
        if isinstance(event, Loading):
            self.progress.place(relwidth=event.part, relheight=1)
        elif isinstance(event, Ready):
            self.name.configure(text=event.name)
            self._enter("idle", "Ready.")
        elif isinstance(event, Reading):
            self.progress.place(relwidth=event.done / event.total, relheight=1)
            self.status.configure(text=f"Reading the prompt: {event.done} of {event.total} tokens")
        elif isinstance(event, Looking):
            self.progress.place(relwidth=event.done / event.total, relheight=1)
            number = min(int(event.done) + 1, event.total)
            self.status.configure(text=f"Looking at picture {number} of {event.total}…")
        elif isinstance(event, Said):
            self._said += "" if event.thought else event.text
            self._write(event.text, "model", *(["thought"] if event.thought else []))
            self.progress.place_forget()
            self.status.configure(text="Answering… Escape stops.")
        elif isinstance(event, Failed):
            self._fail(event.text)
        else:
            self._finish(event)

    def _finish(self, ended: Ended) -> None:
        if self._said:
            self.messages.append({"role": "assistant", "content": self._said})
        else:
            self.messages.pop()  # a message without an answer is replaced by the next one
        note = REASONS.get(ended.reason, "")
        self._write("\n" if self._said or note else "", "model")
        self._write(f"{note}\n", "model end")
        speed = f", {ended.tokens_per_second:.0f} tokens/s" if ended.tokens_per_second else ""
        dropped = f"; {ended.dropped_tokens} tokens of older text left out" if ended.dropped_tokens else ""
        self._enter("idle", f"{ended.tokens} tokens{speed}{dropped}")

    def _fail(self, text: str) -> None:
        if self.state == "answering":
            self.messages.pop()
        self._write("Error\n", "wrong name")
        self._write(f"{text}\n", "wrong")
        self._write("\n", "wrong end")
        self._enter("idle" if self.state == "answering" else "failed", "Something went wrong.")

    def _write(self, text: str, *tags: str) -> None:
        below = self.page.yview()[1] >= 0.999  # follow the text, unless the reader has scrolled up
        self.page.configure(state="normal")
        self.page.insert("end", text, tags)
        self.page.configure(state="disabled")
        if below:
            self.page.see("end")

    def _enter(self, state: str, status: str) -> None:
        self.state = state
        self.status.configure(text=status)
        self.send_button.state(["!disabled" if state == "idle" else "disabled"])
        self.stop_button.state(["!disabled" if state == "answering" else "disabled"])
        self.progress.place_forget()
