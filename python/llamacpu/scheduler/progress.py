"""How far a request's prompt is: reports from the thread that writes the answer, on the same way as the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamacpu.generation.request import PromptProgress
    from llamacpu.multimodal.rows import PictureProgress

__all__ = ["PromptReport", "Reporter"]


@dataclass(frozen=True)
class PromptReport:
    """How much of a prompt has been processed.

    total      tokens of the prompt
    cached     those that the session or the prefix cache already held
    processed  those that are in the session now, the cached ones included
    seconds    since the prompt's turn came
    pictures   while pictures are encoded, before their tokens are processed: (pictures that are encoded, with the
               fraction of the one in work; pictures to encode)
    """

    total: int
    cached: int
    processed: int
    seconds: float
    pictures: tuple[float, int] | None = None


class Reporter:
    """Turns the callbacks of a generation into reports; the caller's own callbacks are called, too."""

    def __init__(
        self,
        put: Callable[[PromptReport], None],
        on_prompt: PromptProgress | None,
        on_picture: PictureProgress | None,
    ) -> None:
        self._put = put
        self._on_prompt = on_prompt
        self._on_picture = on_picture
        self._began = 0.0
        # The first call tells how many tokens are cached; the pictures' come after it.
        self._last: PromptReport | None = None

    def on_prompt(self, done: int, total: int) -> None:
        """Report how many tokens of the prompt are processed."""
        if self._last is None:
            self._began = perf_counter()
            self._last = PromptReport(total, done, done, 0.0)
        else:
            self._last = PromptReport(total, self._last.cached, done, perf_counter() - self._began)
        self._put(self._last)
        if self._on_prompt is not None:
            self._on_prompt(done, total)

    def on_picture(self, done: float, total: int) -> None:
        """Report how many pictures are encoded."""
        last = self._last
        if last is not None:
            seconds = perf_counter() - self._began
            self._put(PromptReport(last.total, last.cached, last.processed, seconds, (done, total)))
        if self._on_picture is not None:
            self._on_picture(done, total)
