"""The generation loop: choose a token, append it, continue, until one of the stopping conditions is met."""

from __future__ import annotations

from collections.abc import Generator
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from llamacpu.errors import Cancelled
from llamacpu.generation.progress import Progress
from llamacpu.generation.request import Stoppable
from llamacpu.generation.result import EndedBy, GeneratedToken
from llamacpu.generation.steps import Steps
from llamacpu.multimodal.sequences import text_ids
from llamacpu.sampling import Sampler, TokenLogProbability, log_probability

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, SessionLike
    from llamacpu.generation.request import Logits, Request, Tokens
    from llamacpu.text.stop_strings import StopStrings


class Loop:
    """The state of one text; `run` generates it."""

    def __init__(
        self, session: SessionLike, request: Request, sampler: Sampler, stops: StopStrings, cancel: CancelToken
    ) -> None:
        self.progress: Progress = Progress()
        self._request = request
        self._sampler = sampler
        self._stops = stops
        self._cancel = cancel
        self._steps = Steps(session, request, self.progress, cancel)
        # Samplers and processors see the text; ids of pictures mean nothing to them.
        self._history: Tokens = np.array(text_ids(request.prompt), dtype=np.int64)
        self._length = len(self._history)
        self._tokenizer = tokenizer = session.model.tokenizer
        self._ends = tokenizer.eog
        self._decoder = tokenizer.stream(skip_special=not request.show_special)
        for process in request.logits_processors:
            if isinstance(process, Stoppable):
                process.stop_with(cancel)

    def run(self) -> Generator[str, None, EndedBy]:
        """Yield the pieces of text as they become certain; return why generation ended. Raises Cancelled."""
        try:
            ended_by = yield from self._until_the_end()
        finally:
            self._steps.close()
        return ended_by

    def rest(self) -> str:
        """The text that was held back until the end."""
        text = self._stops.push(self._decoder.flush()) + self._stops.flush()
        self.progress.text.append(text)
        return text

    def _until_the_end(self) -> Generator[str, None, EndedBy]:
        request, progress = self._request, self.progress
        logits = self._steps.read_prompt()
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
            history = self._history[: self._length]
            if any(criterion(history, logits) for criterion in request.stopping_criteria):
                return "criterion"
            if len(progress.tokens) == request.max_tokens:
                break
            started = perf_counter()
            following = self._steps.after(token)
            if following is None:
                return "context"
            logits = following
            progress.generate_seconds += perf_counter() - started
        return "max_tokens"

    def _choose(self, logits: Logits) -> tuple[int, TokenLogProbability | None, Logits]:
        """The next token, its log-probability if requested, and the logits it was chosen from."""
        request = self._request
        if self._cancel.cancelled:
            raise Cancelled("the generation was cancelled")
        history = self._history[: self._length]
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
        """Record a chosen token; return the text that became certain."""
        progress = self.progress
        self._remember(token)
        seconds = perf_counter() - progress.started
        text = self._stops.push(self._decoder.push(token)) + self._hidden(token)
        progress.tokens.append(token)
        progress.token_seconds.append(seconds)
        progress.text.append(text)
        if chance is not None:
            progress.log_probabilities.append(chance)
        if self._request.on_token is not None:
            self._request.on_token(GeneratedToken(token, text, seconds, chance))
        return text

    def _hidden(self, token: int) -> str:
        """The text that the name of a hidden control token makes certain: a stop string may name such a token."""
        if not self._stops or self._request.show_special or self._tokenizer.decode_bytes([token], skip_special=True):
            return ""
        name = self._tokenizer.decode_bytes([token]).decode("utf-8", "replace")
        return self._stops.push(name, shown=False)

    def _remember(self, token: int) -> None:
        if self._length == len(self._history):
            self._history = np.concatenate([self._history, np.zeros(self._length + 64, dtype=np.int64)])
        self._history[self._length] = token
        self._length += 1
