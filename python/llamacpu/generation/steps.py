"""The passes through the model that a generation needs: the prompt in chunks, then each token with its draft.

The chosen token and a draft of k tokens go through the model in one pass. Its rows of logits equal those of 1 + k
passes as long as the tokens chosen from them are the drafted ones; from the first mismatch on they are discarded, and
the rest of the draft is removed from the session.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from llamacpu import log
from llamacpu.drafting import Proposer
from llamacpu.engine.pictures import MixedTokens
from llamacpu.errors import Cancelled
from llamacpu.generation.context_window import room_by_shifting, shared_length
from llamacpu.multimodal.rows import compute
from llamacpu.multimodal.sequences import has_pictures, restored, whole_from, whole_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamacpu.drafting import Draft
    from llamacpu.engine.interfaces import CancelToken, SessionLike
    from llamacpu.generation.progress import Progress
    from llamacpu.generation.request import Logits, Request


# A prompt is processed in chunks so that progress is visible; their size adapts to the speed (results do not depend on
# it).
_FIRST_CHUNK = 32
_LARGEST_CHUNK = 512
_CHUNK_SECONDS = 0.5


class Steps:
    """The passes of one generation through its session."""

    def __init__(self, session: SessionLike, request: Request, progress: Progress, cancel: CancelToken) -> None:
        self._session = session
        self._request = request
        self._progress = progress
        self._cancel = cancel
        self._proposer: Proposer | None = None
        # The draft of the last pass: its tokens, the logits after the token before it and after each of them, how many
        # of its tokens have been chosen so far, and the position in the session where it begins.
        self._draft: list[int] = []
        self._rows: Logits | None = None
        self._right = 0
        self._begin = 0

    def read_prompt(self) -> Logits:
        """The logits after the prompt; the prefix that the session already holds is not computed again."""
        request, progress, session = self._request, self._progress, self._session
        started = perf_counter()
        prompt = request.prompt if has_pictures(request.prompt) else list(request.prompt)
        cached = whole_from(prompt, shared_length(session.tokens, prompt[:-1]))
        session.truncate(cached)
        progress.cached_tokens = cached
        log.debug("reading a prompt of %d tokens, %d of them known", len(prompt), cached)
        self._report_prompt(cached)
        compute(prompt[cached:], self._cancel, request.on_picture)
        drafts = _can_draft(request, prompt)
        if drafts is not None and drafts.reads_states:
            self._proposer = Proposer(drafts, session, prompt, self._cancel)
        size = _LARGEST_CHUNK if request.on_prompt is None else _FIRST_CHUNK
        done = cached
        while len(prompt) - done > size + size // 2:
            chunk_started = perf_counter()
            end = whole_until(prompt, done + size)
            self._forward(prompt[done:end], "none")
            done, count = end, end - done
            self._report_prompt(done)
            speed = count / max(perf_counter() - chunk_started, 1e-9)
            size = min(max(int(speed * _CHUNK_SECONDS), _FIRST_CHUNK), _LARGEST_CHUNK)
        logits: Logits = self._forward(prompt[done:], "last")
        if drafts is not None and not drafts.reads_states:
            self._proposer = Proposer(drafts, session, prompt, self._cancel)
        progress.prompt_seconds = perf_counter() - started
        self._report_prompt(len(prompt))
        return logits

    def after(self, token: int) -> Logits | None:
        """The logits after a chosen token; None if the context is full."""
        if self._rows is not None:
            if self._right < len(self._draft) and token == self._draft[self._right]:
                if self._cancel.cancelled:
                    raise Cancelled("the generation was cancelled")
                self._right += 1
                if self._proposer is not None:
                    self._proposer.note(token)
                following: Logits = self._rows[self._right]
                return following
            self._settle(wrong=self._right < len(self._draft))
        if self._session.position >= self._session.context:
            if self._request.overflow != "shift":
                return None
            self._shift()
        return self._pass(token)

    def close(self) -> None:
        """Leave the session with all chosen tokens except the last, as it would be without drafts."""
        if self._rows is not None:
            held = self._session.tokens
            # If the session was continued elsewhere in the meantime, the draft has already been discarded.
            ours = held[self._begin :] == self._draft
            self._settle(wrong=False, truncate=ours)
        if self._proposer is not None:
            self._proposer.close()
            self._proposer = None

    def _pass(self, token: int) -> Logits:
        """Run one pass over a token and its draft; return the logits after the token."""
        session, proposer, progress = self._session, self._proposer, self._progress
        if proposer is None:
            logits = session.forward([token], cancel=self._cancel)
            progress.steps += 1
            return logits
        proposer.note(token)
        draft = proposer.propose(self._room())
        progress.draft_seconds = proposer.seconds
        started = perf_counter()
        rows = self._forward([token, *draft], "all")
        proposer.passed(1 + len(draft), perf_counter() - started)
        progress.steps += 1
        progress.drafted_tokens += len(draft)
        if draft:
            self._draft, self._rows, self._right = draft, rows, 0
            self._begin = session.position - len(draft)
        following: Logits = rows[0]
        return following

    def _forward(self, ids: Sequence[int], logits: Literal["last", "all", "none"]) -> Any:
        """Continue the session; a drafter that wants hidden states is given them."""
        session, proposer = self._session, self._proposer
        layers = () if proposer is None else proposer.layers
        if proposer is None or not layers:
            return session.forward(ids, logits=logits, cancel=self._cancel)
        position = session.position
        [found] = session.model.step_hidden([(session, ids)], layers, logits, self._cancel)
        proposer.observe(position, ids, found.hidden)
        return found.logits

    def _room(self) -> int:
        """How many tokens may be drafted: they must fit into the context, and at least one more must be wanted."""
        room = self._session.context - self._session.position - 1
        if self._request.max_tokens is not None:
            room = min(room, self._request.max_tokens - len(self._progress.tokens) - 1)
        return room

    def _settle(self, wrong: bool, truncate: bool = True) -> None:
        """Discard what is left of the draft."""
        if truncate and self._right < len(self._draft):
            self._session.truncate(self._begin + self._right)
        if self._proposer is not None:
            self._proposer.settled(len(self._draft), self._right, wrong)
        self._progress.accepted_tokens += self._right
        self._draft, self._rows, self._right = [], None, 0

    def _report_prompt(self, done: int) -> None:
        if self._request.on_prompt is not None:
            self._request.on_prompt(done, len(self._request.prompt))

    def _shift(self) -> None:
        """Make room in a full session by discarding the older half of what follows the kept tokens.

        The rest is recomputed at its new position, so the result is exactly that of the shorter text.
        """
        session = self._session
        tokens = session.tokens
        remaining = self._with_pictures(room_by_shifting(tokens, self._request.keep))
        same = shared_length(tokens, remaining)
        same = whole_from(remaining, same)
        session.truncate(same)
        if len(remaining) > same:
            compute(remaining[same:], self._cancel)
            self._forward(remaining[same:], "none")
        self._progress.shifts += 1
        self._progress.shifted_tokens += len(tokens) - len(remaining)
        if self._proposer is not None:
            self._proposer.shifted(remaining)

    def _with_pictures(self, tokens: Sequence[int]) -> Sequence[int]:
        prompt = self._request.prompt
        return restored(tokens, [piece for _, piece in prompt.pieces]) if isinstance(prompt, MixedTokens) else tokens


def _can_draft(request: Request, prompt: Sequence[int]) -> Draft | None:
    """The source of drafts, if there is anything to draft and it can follow the prompt."""
    draft = request.draft
    if draft is None or request.max_tokens in (0, 1) or (has_pictures(prompt) and not draft.follows_pictures):
        return None
    return draft
