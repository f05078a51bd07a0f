"""`Engine` runs many requests on one model at once, for programs that serve their own users.

with llamacpu.Engine("model.gguf") as engine:
    requests = [engine.submit(prompt, max_tokens=100) for prompt in prompts]
    answers = [request.read().content for request in requests]

    async for piece in engine.submit("Once upon a time", client="ada"):
        print(piece.text, end="")
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers import Question, answer, text_prompt
from llamacpu.arguments import described, integer, number, refuse
from llamacpu.engine.interfaces import PAGE_TOKENS, CancelToken, KVType, ModelLike, preset_of
from llamacpu.engine.model import EngineModel
from llamacpu.families.memory import state_bytes
from llamacpu.generation.generate import draft_from
from llamacpu.scheduler.admission import Queue
from llamacpu.scheduler.channel import Channel
from llamacpu.scheduler.desk import Desk, EngineState
from llamacpu.scheduler.memory import Memory, default_limit
from llamacpu.scheduler.pace import Pace
from llamacpu.scheduler.prefix_cache import PrefixCache
from llamacpu.scheduler.prefix_files import PrefixFiles
from llamacpu.scheduler.prefixes import Prefixes
from llamacpu.scheduler.progress import Reporter
from llamacpu.scheduler.quiet_drafts import QuietDraft
from llamacpu.scheduler.requests import Request, Told, Work
from llamacpu.scheduler.scheduler import Scheduler
from llamacpu.scheduler.session import ScheduledModel
from llamacpu.scheduler.shares import Shares
from llamacpu.scheduler.statistics import Statistics

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.engine.adapter_set import ControlVectorUse, LoraUse
    from llamacpu.generation.context_window import Overflow
    from llamacpu.generation.generate import Drafts
    from llamacpu.generation.request import PromptProgress
    from llamacpu.multimodal.rows import PictureProgress

__all__ = ["Engine"]

# Seconds that `close` waits for threads that were told to end: a part of a kernel, a callback of the caller.
_PATIENCE = 10.0
# The same at interpreter exit.
_LAST_PATIENCE = 3.0


class Engine:
    """Runs many requests on one model: continuous batching, prompts in chunks between the tokens of running streams.

    model         a model (`llamacpu.Model`), which stays open when the engine is closed, or the path of a file
    threads       threads of the kernels, if a path is given
    context       the most tokens of a request, prompt and answer together; `None` for the model's training context
    kv_type       how keys and values are stored: "f32", "f16" or "q8_0"
    max_running   requests that are computed at the same time
    max_queue     requests that may wait in addition to these; one more raises `Overloaded`
    max_queue_per_client  the same limit for one client; `None` for as many as `max_queue`
    longest_step  seconds that a step should take at most while streams are running: prompts are split into chunks
                  that respect it, so it is roughly the longest gap between two tokens of a stream
    memory        bytes of keys and values of all requests and cached prefixes together; `None` for half of what the
                  machine has left. When it runs short, cached prefixes are dropped, then the youngest requests wait
    prefix_cache  whether the keys and values of finished requests are kept, for prompts with the same prefix
    prefix_cache_directory  a folder in which prefixes outlive the process, as saved sessions that only their owner may
                  read; nobody else should write there, as for `Model.load_session`. Files that cannot be used are
                  named in the log and ignored
    prefix_cache_disk_bytes  the most bytes of these files together; the least recently used are deleted
    timeout       seconds that a request may take, including its time in the queue, unless it sets its own
    prepare       whether the weights are read and prepared at once, in the background; `state` is "loading" meanwhile

    Requests of one client start in order; between clients, the one that was served the fewest tokens comes first. The
    text of a request is bit-identical to the text it would get running alone. All methods may be called from any
    thread. In a process forked from the engine's process, they raise LlamaCpuError.

    Raises what opening a model raises, and TypeError or ValueError for wrong arguments.
    """

    def __init__(
        self,
        model: ModelLike | str | os.PathLike[str],
        *,
        threads: int | None = None,
        context: int | None = None,
        kv_type: KVType = "f16",
        max_running: int = 16,
        max_queue: int = 64,
        max_queue_per_client: int | None = None,
        longest_step: float = 0.25,
        memory: int | None = None,
        prefix_cache: bool = True,
        prefix_cache_directory: str | os.PathLike[str] | None = None,
        prefix_cache_disk_bytes: int = 8 << 30,
        timeout: float | None = None,
        prepare: bool = True,
    ) -> None:
        if not isinstance(model, (str, bytes, os.PathLike)) and not hasattr(model, "session"):
            raise TypeError(f"model is {described(model)}; expected a Model, or the path of a .gguf file")
        for name in ("threads", "context", "max_running", "max_queue", "max_queue_per_client", "memory"):
            integer(name, locals()[name])
        number("longest_step", longest_step)
        number("timeout", timeout)
        for name, value, least in (
            ("context", context, 1),
            ("max_running", max_running, 1),
            ("max_queue", max_queue, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; expected {least} or more")
        if not longest_step > 0:
            raise ValueError(f"longest_step is {longest_step}; expected a number of seconds above 0")
        _check_timeout(timeout)
        self._owned: EngineModel | None = None
        if isinstance(model, str | os.PathLike):
            self._owned = model = EngineModel(model, threads)
        elif threads is not None:
            raise ValueError("threads is for a path; a model that is open has its threads already")
        statistics = Statistics()
        self.statistics: Statistics = statistics
        page_bytes = model.page_bytes(kv_type)
        limit = default_limit(model) if memory is None else memory
        states = state_bytes(model.config, model.context_length)
        most = max((limit - states) // max(page_bytes, 1) * PAGE_TOKENS, PAGE_TOKENS)
        if context is not None and context > most and memory is not None:
            raise ValueError(
                f"context is {context}, but {limit} bytes of memory hold {most} tokens; expected at most that, or more "
                "memory"
            )
        context = preset_of(model).context if context is None else context
        self.context: int = min(model.context_length if context is None else context, most)
        self.kv_type = kv_type
        self._timeout = timeout
        shares = Shares()
        own = max_queue if max_queue_per_client is None else max_queue_per_client
        queue = Queue(max_queue, own, max_running, shares, statistics)
        cache = PrefixCache() if prefix_cache else None
        budget = Memory(limit, model.page_bytes, cache, statistics, states)
        files = None
        if prefix_cache_directory is not None and prefix_cache:
            files = PrefixFiles(
                prefix_cache_directory, prefix_cache_disk_bytes, model, kv_type, self.context, statistics
            )
        self._prefixes = prefixes = Prefixes(cache, budget, files, statistics, _windowed(model))
        self._desk = Desk(model, queue, budget, prefixes, statistics, max_running, prepare)
        self._scheduler = Scheduler(model, statistics, shares, Pace(longest_step), self._desk, max(max_running, 64))
        # They are what the scheduler holds: a reference back would keep a dropped engine and its model in a cycle.
        self._desk.scheduler = prefixes.scheduler = weakref.proxy(self._scheduler)
        self.model: ScheduledModel = ScheduledModel(model, self._scheduler, budget)
        self._scheduler.start()
        _engines.add(self)

    # --- Requests ---

    def submit(
        self,
        prompt: Question | str | Sequence[int],
        *,
        client: str = "",
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        overflow: Overflow = "error",
        draft: Drafts = "auto",
        on_prompt: PromptProgress | None = None,
        on_picture: PictureProgress | None = None,
        reports: bool = False,
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
        **settings: Any,
    ) -> Request:
        """Submit a request and return at once; it is answered in the background.

        prompt     a `llamacpu.answers.Question` (from `chat_question`, for conversations), text, or token ids
        client     whose request it is: clients share the engine fairly
        timeout    seconds from now until it ends with the finish reason "timeout"; `None` for the engine's timeout
        cancel     a token that stops it, as `Request.cancel` does
        overflow   as in `llamacpu.generation.generate`
        draft      the source of draft tokens for speculative decoding, as in `generate`; they never change the text.
                   While others run, only adaptive drafts that cost nothing (`NGramDraft`, "auto") propose any, and only
                   what makes a step hardly longer
        on_prompt  called with how much of the prompt has been processed, in a thread of the engine
        on_picture called with how many of its pictures have been encoded, as in `generate`
        reports    whether `Request.next_async` gives these two as `PromptReport`s, in order with the answer
        lora, control_vectors  what the request goes through, as for `Model.session`; requests with different adapters
                   run in the same steps. `None` for the default of the model
        settings   the fields of a `Question`, if `prompt` is not one: max_tokens, sampling, stop, ...

        Raises `Overloaded` if the queue is full, and reports errors of the request at once: TypeError, ValueError, and
        `ContextOverflow` for a prompt that is too long. Raises LlamaCpuError once the engine is being closed.
        """
        timeout = self._timeout if timeout is None else timeout
        _check_timeout(timeout)
        if isinstance(prompt, Question):
            if settings:
                raise TypeError(f"{', '.join(settings)}: a Question has its settings; give them to that")
            question = prompt
        else:
            known = [field.name for field in dataclasses.fields(Question)]
            refuse("submit", {name: settings[name] for name in settings if name not in known}, known)
            question = Question(prompt=text_prompt(self.model.tokenizer, prompt).ids, **settings)
        token = CancelToken(timeout, cancel)
        session = self.model.session(
            self.context, self.kv_type, client=client, lora=lora, control_vectors=control_vectors
        )
        session.slot.preemptible = True
        drafts = draft_from(draft)
        if drafts is not None:
            drafts = QuietDraft(drafts, self._desk.company, self._scheduler.cost)
        channel: Channel[Told] = Channel()
        if reports:
            reporter = Reporter(lambda report: channel.put(Told(None, (), report)), on_prompt, on_picture)
            on_prompt, on_picture = reporter.on_prompt, reporter.on_picture
        running = answer(
            session, question, overflow=overflow, draft=drafts, on_prompt=on_prompt, on_picture=on_picture, cancel=token
        )
        work = Work(client, question.prompt, session, running, token, timeout, cancel is not None, channel)
        self._desk.submit(work)
        return Request(work, self._scheduler.poke)

    @property
    def state(self) -> EngineState:
        """The engine's state: "loading", "ready", "draining" (finishes its requests, accepts no more) or "closed"."""
        return "closed" if self._scheduler.ended else self._desk.state

    @property
    def error(self) -> BaseException | None:
        """The error that ended the engine, if it was not `close`: weights that could not be read, for instance."""
        return self._scheduler.error

    @property
    def loaded(self) -> tuple[int, int]:
        """The progress of "loading": (bytes of weights that are ready, bytes of all weights)."""
        return self._desk.loaded

    # --- The end ---

    def close(self, drain: float = 0.0) -> bool:
        """Accept no more requests, wait up to `drain` seconds for the existing ones, and cancel those that remain.

        A cancelled request returns the answer generated so far (finish reason "cancelled"). Returns whether all
        requests finished. A model that the engine opened is closed. Calling it again does no harm.
        """
        return self._close(drain, _PATIENCE)

    async def close_async(self, drain: float = 0.0) -> bool:
        """Close the engine as `close` does, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.close, drain)

    @property
    def closed(self) -> bool:
        """Whether the engine is closed: it accepts no requests and runs none."""
        return self.state == "closed"

    def _close(self, drain: float, patience: float) -> bool:
        finished = self._desk.drain(drain)
        self._desk.cancel_all()
        self._desk.drain(patience)
        self._prefixes.stop_writing(patience)
        self._scheduler.stop()
        ended = self._scheduler.join(patience)
        if ended and self._owned is not None:
            self._owned.close()
        return finished

    def __enter__(self) -> Engine:
        """Return the engine for `with`, which closes it at the end: at once after an error, else after all requests."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close(drain=0.0 if kind is not None else float("inf"))

    def __del__(self) -> None:
        if hasattr(self, "model") and not self._scheduler.ended:
            # May run at any point, with any lock held: whatever acquires locks is left to another thread.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=_abandon, args=(self._desk, self._scheduler), daemon=True).start()

    def _forked(self) -> None:
        self._scheduler.forked()
        self._desk.forked()

    def __repr__(self) -> str:
        running, queued = self.statistics.running, self.statistics.queued
        return f"<Engine: {self.state}, {running} requests running, {queued} waiting>"


def _windowed(model: ModelLike) -> bool:
    """Whether sessions cannot be rewound to any position without recomputing tokens."""
    config = model.config
    return any(config.window) or any(config.chunk) or any(config.recurrent_heads)


def _abandon(desk: Desk, scheduler: Scheduler) -> None:
    desk.cancel_all()
    scheduler.stop()


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is {timeout}; expected seconds, 0 or more, or None for no limit")


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    """Close all engines at interpreter exit, before threads are cut off in the middle of a step."""
    for engine in list(_engines):
        engine._close(0.0, _LAST_PATIENCE)


def _forked() -> None:
    for engine in list(_engines):
        engine._forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
