"""Uses the window of `llamacpu window` as a person would; run by test_desktop.py, prints what it saw as JSON.

python tests/desktop_driver.py talk|image|drawing|stop|long|close|early|missing MODEL [PICTURE [DRAWING]]
"""

from __future__ import annotations

import json
import sys
import threading
import time
import tkinter as tk
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llamacpu
from llamacpu.window.window import Window

PATIENCE_SECONDS = 60

looked = threading.Event()
"""Set after every look at the page."""


def change_answers(endless: bool, **more: Any) -> None:
    """From now on the answers of models in this process have no end, or wait until they have been looked at."""
    answer = llamacpu.Llama.create_chat_completion

    def changed(llm: llamacpu.Llama, *arguments: Any, **settings: Any) -> Iterator[Any]:
        ends = dict.fromkeys(llm.model.tokenizer.eog, float("-inf")) if endless else {}
        for chunk in answer(llm, *arguments, logit_bias=ends, **settings | more):
            yield chunk
            if not endless:
                # The window takes what was said every 20 ms: the second look that ends after that has seen it.
                time.sleep(0.02)
                for _ in range(2):
                    looked.clear()
                    looked.wait(PATIENCE_SECONDS)

    llamacpu.Llama.create_chat_completion = changed  # type: ignore[method-assign]


def slow_loading() -> None:
    """From now on models in this process take a second longer to load, so that a tiny one is seen loading."""
    load = llamacpu.Llama.__init__

    def changed(llm: llamacpu.Llama, *arguments: Any, **settings: Any) -> None:
        time.sleep(1)
        load(llm, *arguments, **settings)

    llamacpu.Llama.__init__ = changed  # type: ignore[method-assign]


class Person:
    """Types, clicks, looks and waits. While it waits a heartbeat tells how long the window ever stood still."""

    def __init__(self, model: str) -> None:
        self.root = tk.Tk()
        self.window = Window(self.root, Path(model))
        self.beats = 0
        self.longest_gap = 0.0
        self._last = time.perf_counter()
        self._beat()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.beats += 1
        self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now
        self.root.after(5, self._beat)

    @property
    def page(self) -> str:
        return str(self.window.page.get("1.0", "end-1c"))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let the window live until the condition holds."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"still {self.window.state}; the page: {self.page[-500:]}")
            self.root.update()
            looked.set()
            time.sleep(0.001)

    def wait_for(self, state: str) -> None:
        self.wait_until(lambda: self.window.state == state)

    def type(self, text: str) -> None:
        """Key by key, then Return. Keys are lost until the server has given the window its focus."""
        field = self.window.field
        while field.get("1.0", "end-1c") != text:
            field.delete("1.0", "end")
            field.focus_force()
            self.root.update()
            for letter in text:
                field.event_generate("<Key>", keysym={" ": "space"}.get(letter, letter))
        field.event_generate("<Return>")

    def seen(self, **more: object) -> dict[str, object]:
        roles = [message["role"] for message in self.window.messages]
        gap = round(self.longest_gap * 1000, 1)
        return {"page": self.page, "roles": roles, "longest_gap_ms": gap, "beats": self.beats, **more}


def talk(person: Person, picture: str | None) -> dict[str, object]:
    """Two messages, each answered; and a third where a picture is wanted."""
    person.wait_for("idle")
    pages = []
    for text in ("What can you do", "Tell me a short story"):
        person.type(text)
        person.wait_for("answering")
        while person.window.state == "answering":
            person.root.update()
            pages.append(person.page)
            looked.set()
        person.wait_for("idle")
    answers = [message["content"] for message in person.window.messages if message["role"] == "assistant"]
    seen = person.seen(answers=answers, stages=len(set(pages)), status=person.window.status.cget("text"))
    if picture is not None:
        person.type("Write a little poem")
        person.wait_for("answering")
        person.wait_for("idle")
        draw(person.root, picture)
    return seen


def image(person: Person, picture: str | None) -> dict[str, object]:
    """A message with an image, and one with something that is none."""
    assert picture is not None
    person.wait_for("idle")
    person.window.add_images([picture, __file__])
    told = person.window.status.cget("text")
    person.type("What is this")
    person.wait_for("answering")
    person.wait_for("idle")
    kinds = [part["type"] for part in person.window.messages[0]["content"]]
    names = person.window.page.image_names()
    return person.seen(told=told, kinds=kinds, images=len(names))


def drawing(person: Person, picture: str | None) -> dict[str, object]:
    """A conversation about a drawing, whose file is the last argument; the window is drawn to `picture`."""
    assert picture is not None
    person.wait_for("idle")
    person.window.add_images(sys.argv[4:])
    for text in ("What is this?", "What color is the background?"):
        person.window.field.insert("1.0", text)
        person.window.send()
        person.wait_for("answering")
        person.wait_for("idle")
    draw(person.root, picture)
    return person.seen()


def stop(person: Person, _picture: str | None) -> dict[str, object]:
    """An answer without an end, ended by the button."""
    person.wait_for("idle")
    person.type("hello")
    person.wait_until(lambda: len(person.window._said) > 40)
    beats = person.beats
    person.wait_until(lambda: len(person.window._said) > 200 and person.beats > beats + 2)
    beats = person.beats - beats
    started = time.perf_counter()
    person.window.stop_button.invoke()
    person.wait_for("idle")
    return person.seen(stopped_after_ms=round((time.perf_counter() - started) * 1000, 1), beats_in_answer=beats)


def long(person: Person, _picture: str | None) -> dict[str, object]:
    """A prompt that takes long, stopped by the Escape key while it is being read; then another one."""
    person.wait_for("idle")
    person.window.field.insert("1.0", ("word " * 12 + "\n") * 5000)
    person.window.send()
    person.wait_until(lambda: person.window.status.cget("text").startswith("Reading the prompt: "))
    progress = person.window.status.cget("text")
    started = time.perf_counter()
    person.window.field.focus_force()
    person.root.update()
    person.root.event_generate("<Escape>")
    person.wait_for("idle")
    took = round((time.perf_counter() - started) * 1000, 1)
    after = [message["role"] for message in person.window.messages]
    person.type("hello")
    person.wait_until(lambda: len(person.window._said) > 10)
    return person.seen(progress=progress, stopped_after_ms=took, roles_after=after)


def close(person: Person, _picture: str | None) -> dict[str, object]:
    """The window is closed in the middle of an answer."""
    person.wait_for("idle")
    person.type("hello")
    person.wait_until(lambda: len(person.window._said) > 10)
    seen = person.seen()
    started = time.perf_counter()
    person.window.close()
    person.root.mainloop()
    alive = person.window.engine.is_alive()
    return {**seen, "closed_after_ms": round((time.perf_counter() - started) * 1000, 1), "engine_alive": alive}


def early(person: Person, _picture: str | None) -> dict[str, object]:
    """The window is closed while the model is being loaded."""
    assert person.window.state == "loading"
    person.window.close()
    person.root.mainloop()
    return {"engine_alive": person.window.engine.is_alive()}


def missing(person: Person, _picture: str | None) -> dict[str, object]:
    """A file that is not there."""
    person.wait_for("failed")
    return person.seen()


def draw(root: tk.Tk, picture: str) -> None:
    """The window as a PNG file, by Pillow."""
    from PIL import ImageGrab

    root.update()
    left, top = root.winfo_rootx(), root.winfo_rooty()
    image = ImageGrab.grab((left, top, left + root.winfo_width(), top + root.winfo_height()))
    image.convert("P", palette=1, colors=128).save(picture, optimize=True)


def main() -> None:
    """Do what the command line says."""
    name, model, *picture = sys.argv[1:]
    # What is said about an image that the model was not taught to see has no end of its own.
    change_answers(endless=name not in ("talk", "image", "drawing"), **({"max_tokens": 20} if name == "image" else {}))
    if name == "early":
        slow_loading()
    person = Person(model)
    scenes = {
        "talk": talk,
        "stop": stop,
        "long": long,
        "close": close,
        "early": early,
        "missing": missing,
        "image": image,
        "drawing": drawing,
    }
    seen = scenes[name](person, picture[0] if picture else None)
    if name not in ("close", "early"):
        person.window.close()
        person.root.mainloop()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
