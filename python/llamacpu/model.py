"""`Model`, which most programs open: the engine's model and the functions built on it.

    with llamacpu.Model("model.gguf") as model:
        session = model.session()
        logits = session.forward(model.tokenizer.encode("Once upon a time"))

A `Model` is immutable and may be shared by threads; a `Session` is one conversation and runs one step at a time.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn, overload

from llamacpu.arguments import integer, refuse
from llamacpu.engine.adapter_set import ControlVectorUse, LoraUse
from llamacpu.engine.duty import Duty
from llamacpu.engine.interfaces import CancelToken, Load, LoadProgress, StepOutput, TokenIds
from llamacpu.engine.model import EngineModel
from llamacpu.engine.priority import Priority
from llamacpu.engine.session import Session
from llamacpu.multimodal.projectors import vision_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.answers import Answer, RunningAnswer
    from llamacpu.answers.messages import ChatMessage, ChatTool, ResponseFormat, ToolChoice
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.drafting import Draft
    from llamacpu.generation import GeneratedToken, Generation
    from llamacpu.generation.context_window import Overflow
    from llamacpu.generation.generate import Drafts
    from llamacpu.generation.request import LogitsProcessor, PromptProgress, StoppingCriterion
    from llamacpu.multimodal.rows import PictureProgress
    from llamacpu.multimodal.vision import Vision
    from llamacpu.pictures import PictureAccess
    from llamacpu.sampling import Sampler, Sampling
    from llamacpu.tasks.embeddings import Pooling
    from llamacpu.tasks.prefixes import Task

__all__ = ["CancelToken", "Model", "Session", "StepOutput"]


class Model(EngineModel):
    """The weights of a GGUF file, located and checked, with the threads that run them.

    path       a `.gguf` file; for a split model, the first file
    threads    number of threads; `None` for what the machine offers (affinity, container quota, physical cores)
    on_load    called with (bytes done, bytes of weights) to report progress; if given, the weights are prepared at
               once instead of by the first step that uses them; see `prepare`
    overrides  metadata that replaces the file's, as in `GGUFFile`
    load       "map": the file is memory-mapped and the system reads its pages as they are needed; it is copied if its
               file system does not support mapping. "copy": the whole file is read into the process's memory at once,
               and later changes to it have no effect
    mmproj     the file of the vision encoder, for models with image input; `None` for the one that came with the
               model's name or is beside its file, False for none
    image_tokens  maximum number of tokens of a picture, for models that offer several sizes; `None` for what they
               were trained with
    image_crops  maximum number of crops of a long picture, shown beside the whole picture (Gemma 3's "pan and scan");
               0 for none, as that model's processor does by default
    lora, control_vectors  what sessions go through by default, as in `session`: LoRA adapters with their scales, and
               control vectors with their strengths and layers. Without `lora`, a model opened by name has the adapters
               that belong to the name (ADAPTER of a Modelfile)
    priority   of the whole process among other programs: "low" leaves the processors to them, "high" goes before them
               and needs the right to; `None` changes nothing. See `llamacpu.engine.priority.set_priority`
    duty       the most percent of the time in which the model computes, with pauses between steps: for laptops. Exact
               in the long run. A `llamacpu.engine.duty.DutyCycle` in place of a number is shared by several models

    Raises `GGUFError` for a file that cannot be read, `ModelError` for one that is not a model this version can run,
    and MemoryError if there is not enough memory. If a mapped file is shortened or written to while in use, the step
    that used it and all later ones raise `ModelError`; renaming another file over it does no harm.
    Use it as a context manager, or call `close()`, or let it go out of scope.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        on_load: LoadProgress | None = None,
        *,
        overrides: Mapping[str, bool | int | float | str] | None = None,
        load: Load = "map",
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
        mmproj: str | os.PathLike[str] | bool | None = None,
        image_tokens: int | None = None,
        image_crops: int = 0,
        priority: Priority | None = None,
        duty: Duty = None,
    ) -> None:
        integer("image_tokens", image_tokens)
        integer("image_crops", image_crops)
        if image_tokens is not None and image_tokens < 1:
            raise ValueError(f"image_tokens is {image_tokens}; expected at least 1, or None for the model's own choice")
        self._vision: Vision | None = None
        super().__init__(
            path, threads, on_load, overrides=overrides, load=load, lora=lora, control_vectors=control_vectors,
            priority=priority, duty=duty,
        )  # fmt: skip
        try:
            self._vision = vision_of(self, self._projector, mmproj, image_tokens, threads, image_crops)
        except BaseException:
            self.close()
            raise

    @property
    def vision(self) -> Vision | None:
        """The vision encoder in the mmproj file, for pictures in messages; None for a model without one."""
        return self._vision

    def open_vision(self, mmproj: str | os.PathLike[str], image_tokens: int | None = None) -> None:
        """Use this vision encoder from now on; arguments and errors as for the constructor."""
        older, self._vision = self._vision, vision_of(self, None, mmproj, image_tokens, self.threads)
        if older is not None:
            older.close()

    def open_draft(self, path: str | os.PathLike[str] = "self", threads: int | None = None) -> Draft:
        """Open a source of drafts for `generate` and `chat` (`draft=`): the same text, in fewer passes.

        path     the file, or the name, of a drafter that was trained for this model (DFlash, EAGLE-3) or of a smaller
                 model with the same vocabulary; "self" for the layers for multi-token prediction in the model's file
        threads  those of the drafter; `None` for as many as the model has

        Pass the same object to all calls of a conversation, and `close` it when it is no longer needed. Raises
        GGUFError for a file that cannot be read, ModelError for one that does not fit this model.
        """
        from llamacpu.drafting import open_draft

        return open_draft(self, path, threads, "map" if self.mapped else "copy")

    def close(self) -> None:
        """Free the memory of the weights; see `Model`. Sessions cannot be continued afterwards."""
        super().close()
        if self._vision is not None:
            self._vision.close()

    @overload
    def embed(
        self, input: str | Sequence[str], pooling: Literal["mean", "cls", "last", "rank"] | None = None, *,
        normalize: bool = False, truncate: bool = True, task: Task | None = None, prefix: str | None = None,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32]: ...  # fmt: skip
    @overload
    def embed(
        self, input: str | Sequence[str], pooling: Literal["none"], *,
        normalize: bool = False, truncate: bool = True, task: Task | None = None, prefix: str | None = None,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]: ...  # fmt: skip
    def embed(
        self,
        input: str | Sequence[str],
        pooling: Pooling | None = None,
        *,
        normalize: bool = False,
        truncate: bool = True,
        task: Task | None = None,
        prefix: str | None = None,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Compute embeddings of texts: float32[width] for one text, float32[texts, width] for several.

        pooling    how the states of the tokens after the final norm become one: their "mean", the "last" or the first
                   one ("cls"). "rank": the scores of the model's classifier, float32[classes] per text, not normalized.
                   "none" returns the states of all tokens: float32[tokens, width], or a list of them. `None` for what
                   the file recommends, or "mean" if it recommends nothing that makes one vector
        normalize  scale every embedding to Euclidean length 1
        truncate   cut off what exceeds the model's context; otherwise raise `ContextOverflow`

        task       "query" or "document": prefix every text with what the model expects before a question or before a
                   passage that may answer it. Taken from the adapter trained for it (Jina Embeddings 3), from the file
                   (sentence_transformers.prompts.query, ...) or from the model's name; ModelError if none of them
                   provides it
        prefix     put this before every text instead

        Several texts go through the model together. Raises ValueError for an empty text if the model puts no start
        token before it, because there is nothing to embed.
        """
        from llamacpu.tasks import embeddings

        return embeddings.embed(
            self, input, pooling, normalize=normalize, truncate=truncate, task=task, prefix=prefix,
            adapters=[adapter for adapter, _ in self.adapters.lora], cancel=cancel,
        )  # fmt: skip

    def rank(
        self, query: str, documents: Sequence[str], *, truncate: bool = True, cancel: CancelToken | None = None
    ) -> NDArray[np.float32]:
        """Score how well each document answers the query, with a reranker: float32[documents], higher is better.

        The scores are the model's raw output: logits for most models, probabilities for Qwen 3. Documents that are too
        long are cut off at the end; with truncate=False they raise `ContextOverflow`. Raises ModelError for a model
        that is not a reranker.
        """
        from llamacpu.tasks import reranking

        return reranking.rank(self, query, documents, truncate=truncate, cancel=cancel)

    def generate(
        self,
        prompt: str | TokenIds,
        *,
        max_tokens: int | None = None,
        sampling: Sampling | Sampler | None = None,
        stop: str | Iterable[str] = (),
        logits_processors: Iterable[LogitsProcessor] = (),
        stopping_criteria: Iterable[StoppingCriterion] = (),
        on_token: Callable[[GeneratedToken], None] | None = None,
        on_prompt: PromptProgress | None = None,
        on_picture: PictureProgress | None = None,
        log_probabilities: int | None = None,
        ignore_end: bool = False,
        show_special: bool = False,
        overflow: Overflow = "error",
        keep: int | None = None,
        draft: Drafts = "auto",
        cancel: CancelToken | None = None,
        timeout: float | None = None,
        **other: NoReturn,
    ) -> Generation:
        """Yield the pieces of text that follow `prompt`; see `llamacpu.generation.generate` for the arguments."""
        from llamacpu import generation

        refuse("generate", other, inspect.signature(Model.generate).parameters)
        return generation.generate(
            self, prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, logits_processors=logits_processors,
            stopping_criteria=stopping_criteria, on_token=on_token, on_prompt=on_prompt, on_picture=on_picture,
            log_probabilities=log_probabilities, ignore_end=ignore_end, show_special=show_special, overflow=overflow,
            keep=keep, draft=draft, cancel=cancel, timeout=timeout,
        )  # fmt: skip

    @overload
    def chat(
        self, messages: Sequence[ChatMessage], *, stream: Literal[False] = False, system: str | None = None,
        tools: Sequence[ChatTool] | None = None, tool_choice: ToolChoice | None = None,
        response_format: ResponseFormat | None = None, grammar: Grammar | None = None,
        sampling: Sampling | Sampler | None = None, max_tokens: int | None = None, stop: str | Sequence[str] = (),
        reasoning: bool = True, template: str | None = None, context: int | None = None, overflow: Overflow = "error",
        draft: Drafts = "auto", cancel: CancelToken | None = None, timeout: float | None = None,
        access: PictureAccess | None = None, **other: NoReturn,
    ) -> Answer: ...  # fmt: skip
    @overload
    def chat(
        self, messages: Sequence[ChatMessage], *, stream: Literal[True], system: str | None = None,
        tools: Sequence[ChatTool] | None = None, tool_choice: ToolChoice | None = None,
        response_format: ResponseFormat | None = None, grammar: Grammar | None = None,
        sampling: Sampling | Sampler | None = None, max_tokens: int | None = None, stop: str | Sequence[str] = (),
        reasoning: bool = True, template: str | None = None, context: int | None = None, overflow: Overflow = "error",
        draft: Drafts = "auto", cancel: CancelToken | None = None, timeout: float | None = None,
        access: PictureAccess | None = None, **other: NoReturn,
    ) -> RunningAnswer: ...  # fmt: skip
    def chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        stream: bool = False,
        system: str | None = None,
        tools: Sequence[ChatTool] | None = None,
        tool_choice: ToolChoice | None = None,
        response_format: ResponseFormat | None = None,
        grammar: Grammar | None = None,
        sampling: Sampling | Sampler | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        reasoning: bool = True,
        template: str | None = None,
        context: int | None = None,
        overflow: Overflow = "error",
        draft: Drafts = "auto",
        cancel: CancelToken | None = None,
        timeout: float | None = None,
        access: PictureAccess | None = None,
        **other: NoReturn,
    ) -> Answer | RunningAnswer:
        """Answer a conversation; return an `Answer` (`content`, `reasoning`, `tool_calls`, `result`).

        stream           return the answer while it is being generated: iterate over it with `for` or `async for` to
                         get `Piece`s (`kind` "content" or "reasoning", `text`) and tool calls, then read its `answer`
        system           a system prompt before the messages
        tools, tool_choice, response_format  as in the OpenAI API: a tool choice and a format constrain the answer
        grammar          a grammar for the whole answer, instead of these
        sampling         None for what the file recommends
        reasoning        whether reasoning is separated from the content
        template         a built-in chat template, one in the file, or Jinja source; None for the file's
        context          tokens of the session that this call creates; None for the model's training context
        access           what texts in messages may name as a picture, besides data URLs: files, addresses on the web

        Messages may contain pictures if the model has a vision encoder (`vision`): parts such as {"type": "image_url",
        "image_url": {"url": "data:image/jpeg;base64,..."}} or {"type": "image", "image": Path("photo.jpg")}, where
        the image may also be bytes, an image of Pillow's, or an array uint8[height, width, 3].

        The remaining arguments are those of `generate`. Without `stream`, use
        `await asyncio.to_thread(model.chat, messages)` to avoid blocking an event loop. Raises TypeError and ValueError
        for malformed messages, tools and arguments, as well as TemplateError, GrammarError and ContextOverflow.
        """
        from llamacpu import answers
        from llamacpu.chat import Chat

        refuse("chat", other, inspect.signature(Model.chat).parameters)
        answers.check_messages(messages)
        answers.check_tools(tools)
        answers.check_response_format(response_format)
        given = [{"role": "system", "content": system}, *messages] if system is not None else messages
        chat = Chat.of(self, template)
        session = self.session(context)
        offered = tools if tool_choice != "none" else None
        most = session.context if overflow == "error" else None
        question = answers.chat_question(
            chat, answers.chat_prompt(chat, given, offered, access=access, context=most), tools=tools,
            tool_choice=tool_choice, response_format=response_format, grammar=grammar, reasoning=reasoning,
            streamed=stream, stop=(stop,) if isinstance(stop, str) else stop, sampling=sampling, max_tokens=max_tokens,
        )  # fmt: skip
        running = answers.answer(session, question, overflow=overflow, draft=draft, cancel=cancel, timeout=timeout)
        return running if stream else running.read()
