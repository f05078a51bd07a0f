"""The thread that owns the model of a window, and the events that it reports."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import Cancelled, LlamaCpuError
from llamacpu.llama import Llama

__all__ = ["Ended", "Engine", "Event", "Failed", "Loading", "Looking", "Reading", "Ready", "Said"]


class Loading(NamedTuple):
    """Loading progress; `part` is the fraction of the model that is prepared, from 0 to 1."""

    part: float


class Ready(NamedTuple):
    """The model is loaded; `name` is its name."""

    name: str


class Reading(NamedTuple):
    """Prompt progress: `done` of `total` tokens of the prompt have been processed."""

    done: int
    total: int


class Looking(NamedTuple):
    """Progress of the pictures in the prompt: `done` of `total` have been encoded, the last one in part."""

    done: float
    total: int


class Said(NamedTuple):
    """A piece of the answer; `thought` says whether it belongs to the reasoning."""

    text: str
    thought: bool


class Ended(NamedTuple):
    """The answer is complete, or was stopped."""

    reason: str
    tokens: int
    tokens_per_second: float | None
    dropped_tokens: int


class Failed(NamedTuple):
    """An error; the text says what went wrong, what was expected, and what to do."""

    text: str


Event = Loading | Ready | Reading | Looking | Said | Ended | Failed


class Engine(threading.Thread):
    """The thread that owns the model. Its methods return at once; their results arrive in `events`."""

    def __init__(self, model: str | Path, settings: Mapping[str, Any]) -> None:
        """Prepare the thread for a model, a file or a name; `settings` are arguments of `Llama`."""
        super().__init__(name="engine", daemon=True)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._model = model
        self._settings = settings
        self._jobs: queue.SimpleQueue[tuple[list[dict[str, str]], CancelToken] | None] = queue.SimpleQueue()
        self._cancel = CancelToken()

    def ask(self, messages: list[dict[str, Any]]) -> None:
        """Request the answer to a conversation."""
        self._cancel = CancelToken()
        self._jobs.put((list(messages), self._cancel))

    def stop(self) -> None:
        """Cancel the answer at any point, even while a long prompt is being processed."""
        self._cancel.cancel()

    def close(self) -> None:
        """Cancel the answer, then end the thread."""
        self._cancel.cancel()
        self._jobs.put(None)

    def run(self) -> None:
        """Load the model and answer requests until `close`."""
        try:
            with Llama(self._model, overflow="truncate", on_load=self._loaded, **self._settings) as llm:
                self.events.put(Ready(llm.metadata.get("general.name", Path(self._model).name)))
                while (job := self._jobs.get()) is not None:
                    self._answer(llm, *job)
        except Exception as error:  # The window shows every error, because nobody reads this program's stderr.
            self.events.put(Failed(str(error) or type(error).__name__))

    def _loaded(self, done: int, total: int) -> None:
        if self._cancel.cancelled:
            raise Cancelled("the window was closed")
        self.events.put(Loading(done / max(total, 1)))

    def _answer(self, llm: Llama, messages: Any, cancel: CancelToken) -> None:
        try:
            chunks: Any = llm.create_chat_completion(
                messages, stream=True, temperature=0.7, cancel=cancel,
                on_prompt=lambda done, total: self.events.put(Reading(done, total)),
                on_picture=lambda done, total: self.events.put(Looking(done, total)),
            )  # fmt: skip
            reason = ""
            for chunk in chunks:
                choice = chunk["choices"][0]
                for key in ("reasoning_content", "content"):
                    if text := choice["delta"].get(key):
                        self.events.put(Said(text, key != "content"))
                reason = choice["finish_reason"] or reason
        except (LlamaCpuError, ValueError, MemoryError) as error:
            self.events.put(Failed(str(error) or type(error).__name__))
            return
        result = llm.last_result
        assert result is not None
        speed = result.timings.tokens_per_second
        self.events.put(Ended(reason, len(result.tokens), speed, result.dropped_tokens))
