"""A running generation: the prompt in chunks, then token after token, until one of the ends is reached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamacpu.context_window import Overflow, room_by_shifting
from llamacpu.errors import Cancelled
from llamacpu.generation_result import EndedBy, GeneratedToken, GenerationResult, Timings
from llamacpu.model import CancelToken
from llamacpu.sampling import Sampler, TokenLogProbability, log_probability
from llamacpu.stop_strings import StopStrings

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.model import Session

log = logging.getLogger("llamacpu")

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
LogitsProcessor = Callable[[Tokens, Logits], Logits]
"""(prompt and text so far as ids, logits[vocabulary]) -> logits; may change the array in place."""
StoppingCriterion = Callable[[Tokens, Logits], bool]
"""(prompt and text so far as ids, logits[vocabulary] that the last id was chosen from) -> whether to end."""
PromptProgress = Callable[[int, int], None]
"""(tokens of the prompt that are done, tokens of the prompt): called before the first and after every chunk."""

# A prompt goes in pieces, so that progress is seen; their size follows the speed (results do not depend on it).
_FIRST_CHUNK = 32
_LARGEST_CHUNK = 512
_CHUNK_SECONDS = 0.5


@dataclass(frozen=True)
class Request:
    """What `generate` was asked, checked."""

    prompt: tuple[int, ...]
    max_tokens: int | None
    overflow: Overflow
    keep: int
    ignore_end: bool
    show_special: bool
    log_probabilities: int | None
    logits_processors: tuple[LogitsProcessor, ...]
    stopping_criteria: tuple[StoppingCriterion, ...]
    on_token: Callable[[GeneratedToken], None] | None
    on_prompt: PromptProgress | None
    dropped_tokens: int


@dataclass
class _Progress:
    """What has happened so far; becomes the result."""

    started: float = field(default_factory=perf_counter)
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    generate_seconds: float = 0.0
    steps: int = 0
    token_seconds: list[float] = field(default_factory=list)
    log_probabilities: list[TokenLogProbability] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    end_token: int | None = None
    shifted_tokens: int = 0
    shifts: int = 0
    ended_by: EndedBy | None = None


class Generation(Iterator[str]):
    """A running generation: iterate for the pieces of text, then read `result`.

    The work is done while iterating, in the thread that iterates. `close()` may be called from any thread; leaving a
    `with` block, or dropping the last reference, closes too.
    """

    def __init__(
        self,
        session: Session,
        request: Request,
        sampler: Sampler,
        stops: StopStrings,
        cancel: CancelToken | None,
        timeout: float | None,
    ) -> None:
        """Use `generate`."""
        self.session = session
        self._request = request
        self._sampler = sampler
        self._stops = stops
        self._callers_token = cancel
        self._timeout = timeout
        self._cancel = CancelToken(timeout, cancel)
        self._closed = False
        self._progress = _Progress()
        self._history = np.array(request.prompt, dtype=np.int64)
        self._history_length = len(request.prompt)
        tokenizer = session.model.tokenizer
        self._ends = tokenizer.eog
        self._decoder = tokenizer.stream(skip_special=not request.show_special)
        self._pieces = self._run()

    def __iter__(self) -> Generation:
        """The generation itself."""
        return self

    def __next__(self) -> str:
        """The next piece of text, as soon as it is certain; never empty."""
        return next(self._pieces)

    def __enter__(self) -> Generation:
        """For `with`, which closes at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop the generation; a step that another thread is in ends soon. `ended_by` is then "cancelled"."""
        self._closed = True
        self._cancel.cancel()
        try:
            self._pieces.close()
        except ValueError:
            # Another thread is inside: it sees the token and ends by itself.
            return
        if self._progress.ended_by is None:
            self._progress.ended_by = "cancelled"

    def __aiter__(self) -> Generation:
        """The generation itself: `async for` works in threads of the event loop's pool."""
        return self

    async def __anext__(self) -> str:
        """As `__next__`, without blocking the event loop. Cancelling the task stops the work."""
        import asyncio

        try:
            piece = await asyncio.to_thread(next, self._pieces, None)
        except asyncio.CancelledError:
            self._closed = True
            self._cancel.cancel()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def read(self) -> GenerationResult:
        """Run to the end and return the result."""
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> GenerationResult:
        """How it went. RuntimeError before the end."""
        progress = self._progress
        if progress.ended_by is None:
            raise RuntimeError("the generation has not ended yet; iterate to its end or close it first")
        wanted = self._request.log_probabilities is not None
        timings = Timings(
            prompt_tokens=len(self._request.prompt) - progress.cached_tokens if progress.prompt_seconds else 0,
            prompt_seconds=progress.prompt_seconds,
            steps=progress.steps,
            generate_seconds=progress.generate_seconds,
            token_seconds=tuple(progress.token_seconds),
        )
        return GenerationResult(
            text="".join(progress.text),
            tokens=tuple(progress.tokens),
            ended_by=progress.ended_by,
            prompt_tokens=len(self._request.prompt),
            cached_tokens=progress.cached_tokens,
            seed=self._sampler.seed,
            timings=timings,
            stop_string=self._stops.found,
            end_token=progress.end_token,
            dropped_tokens=self._request.dropped_tokens + progress.shifted_tokens,
            shifts=progress.shifts,
            log_probabilities=tuple(progress.log_probabilities) if wanted else None,
        )

    def _run(self) -> Generator[str, None, None]:
        progress = self._progress
        try:
            ended_by = yield from self._until_the_end()
        except Cancelled:
            ended_by = self._why_cancelled()
        except BaseException:
            progress.ended_by = "cancelled"
            raise
        rest = self._stops.push(self._decoder.flush()) + self._stops.flush()
        progress.ended_by = "stop_string" if self._stops.found is not None else ended_by
        if rest:
            progress.text.append(rest)
            yield rest

    def _until_the_end(self) -> Generator[str, None, EndedBy]:
        request, progress = self._request, self._progress
        logits = self._read_prompt()
        while request.max_tokens is None or len(progress.tokens) < request.max_tokens:
            started = perf_counter()
            token, chance, logits = self._choose(logits)
            progress.generate_seconds += perf_counter() - started
            if token in self._ends and not request.ignore_end:
                progress.end_token = token
                return "end_of_text"
            text = self._take(token, chance)
            if text:
                yield text
            if self._stops.found is not None:
                return "stop_string"
            history = self._history[: self._history_length]
            if any(criterion(history, logits) for criterion in request.stopping_criteria):
                return "criterion"
            if len(progress.tokens) == request.max_tokens:
                break
            started = perf_counter()
            if self.session.position >= self.session.context:
                if request.overflow != "shift":
                    return "context"
                self._shift()
            logits = self._forward([token])
            progress.generate_seconds += perf_counter() - started
            progress.steps += 1
        return "max_tokens"

    def _read_prompt(self) -> Logits:
        """The logits after the prompt; what the session already holds of it is not computed again."""
        request, progress, session = self._request, self._progress, self.session
        started = perf_counter()
        prompt = list(request.prompt)
        cached = _shared_length(session.tokens, prompt[:-1])
        session.truncate(cached)
        progress.cached_tokens = cached
        log.debug("reading a prompt of %d tokens, %d of them known", len(prompt), cached)
        self._report_prompt(cached)
        size = _LARGEST_CHUNK if request.on_prompt is None else _FIRST_CHUNK
        done = cached
        while len(prompt) - done > size + size // 2:
            chunk_started = perf_counter()
            session.forward(prompt[done : done + size], logits="none", cancel=self._cancel)
            done += size
            self._report_prompt(done)
            speed = size / max(perf_counter() - chunk_started, 1e-9)
            size = min(max(int(speed * _CHUNK_SECONDS), _FIRST_CHUNK), _LARGEST_CHUNK)
        logits = self._forward(prompt[done:])
        progress.prompt_seconds = perf_counter() - started
        self._report_prompt(len(prompt))
        return logits

    def _report_prompt(self, done: int) -> None:
        if self._request.on_prompt is not None:
            self._request.on_prompt(done, len(self._request.prompt))

    def _forward(self, ids: list[int]) -> Logits:
        logits = self.session.forward(ids, cancel=self._cancel)
        assert logits is not None, "the logits of the last token were asked for"
        return logits

    def _choose(self, logits: Logits) -> tuple[int, TokenLogProbability | None, Logits]:
        """The next token, its log-probability where wanted, and the logits that it was chosen from."""
        request = self._request
        if self._cancel.cancelled:
            raise Cancelled("the generation was cancelled")
        history = self._history[: self._history_length]
        changed = logits
        if request.ignore_end or request.logits_processors:
            changed = logits.copy()
        if request.ignore_end:
            changed[list(self._ends)] = -np.inf
        for process in request.logits_processors:
            changed = process(history, changed)
        token = self._sampler.sample(changed, history)
        if request.log_probabilities is None:
            return token, None, changed
        return token, log_probability(logits, token, request.log_probabilities), changed

    def _take(self, token: int, chance: TokenLogProbability | None) -> str:
        """Note a chosen token; returns the text that became certain."""
        progress = self._progress
        if self._history_length == len(self._history):
            self._history = np.concatenate([self._history, np.zeros(len(self._history) + 64, dtype=np.int64)])
        self._history[self._history_length] = token
        self._history_length += 1
        seconds = perf_counter() - progress.started
        text = self._stops.push(self._decoder.push(token))
        progress.tokens.append(token)
        progress.token_seconds.append(seconds)
        progress.text.append(text)
        if chance is not None:
            progress.log_probabilities.append(chance)
        if self._request.on_token is not None:
            self._request.on_token(GeneratedToken(token, text, seconds, chance))
        return text

    def _shift(self) -> None:
        """Make room in a full session: the older half of what follows the kept tokens is forgotten.

        The rest is computed again at its new place, so that the result is exactly that of the shorter text.
        """
        tokens = self.session.tokens
        remaining = list(room_by_shifting(tokens, self._request.keep))
        same = _shared_length(tokens, remaining)
        self.session.truncate(same)
        if remaining[same:]:
            self.session.forward(remaining[same:], logits="none", cancel=self._cancel)
        self._progress.shifts += 1
        self._progress.shifted_tokens += len(tokens) - len(remaining)

    def _why_cancelled(self) -> EndedBy:
        late = self._timeout is not None and perf_counter() - self._progress.started >= self._timeout
        asked = self._closed or (self._callers_token is not None and self._callers_token.cancelled)
        return "timeout" if late and not asked else "cancelled"


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
