"""The completions of `Llama`: text and chat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llamacpu.answers import chat_completions as chats
from llamacpu.answers.completions import Response, TextCompletion, prompt_log_probabilities
from llamacpu.chat import Chat
from llamacpu.chat.answer import REASONING_TAGS, AnswerReader, call_tags
from llamacpu.constraints.tool_constraint import ToolCallConstraint, any_strict
from llamacpu.generation import CancelToken, Generation, generate
from llamacpu.generation.context_window import Overflow
from llamacpu.llama.formats import FormattedChat, registered
from llamacpu.llama.steps import criteria_of
from llamacpu.text.infill import can_infill, infill_prompt

if TYPE_CHECKING:
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.drafting import Draft
    from llamacpu.engine.session import Session
    from llamacpu.generation import GenerationResult
    from llamacpu.generation.request import PromptProgress
    from llamacpu.llama.formats import ChatFormatter
    from llamacpu.model import Model
    from llamacpu.sampling import Sampler
    from llamacpu.tasks.moderation import Moderation
    from llamacpu.text.tokenizer import Tokenizer

Run = TextCompletion | chats.ChatCompletion
# Settings that handlers written for llama-cpp-python do not know.
_OWN_CHAT_SETTINGS = ("template_variables", "reasoning", "on_prompt", "cancel", "timeout")


class ChatMethods:
    """What `Llama` inherits."""

    if TYPE_CHECKING:
        model_path: str
        chat_format: str | None
        chat_handler: Callable[..., Any] | None
        spm_infill: bool
        overflow: Overflow
        draft_model: Draft | None
        _tokenizer: Tokenizer

        @property
        def model(self) -> Model: ...
        def n_vocab(self) -> int: ...
        def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = False) -> list[int]: ...
        def _sampler(self, seed: int | None, **settings: Any) -> Sampler: ...
        def _processors(self, given: Any, grammar: Grammar | None) -> list[Any]: ...
        def _lease(self, prompt: Sequence[int]) -> Session: ...
        def _give_back(self, session: Session, result: GenerationResult | None) -> None: ...

    @cached_property
    def chat(self) -> Chat:
        """How the model is talked to: its chat template and the way from messages to tokens."""
        # llama-cpp-python calls the templates of a file chat_template.default and so on.
        name = None if registered(self.chat_format) else self.chat_format
        return Chat(self.model.metadata, self._tokenizer, name and name.removeprefix("chat_template."))

    def create_completion(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | Sequence[str] | None = (),
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: Iterable[Any] | Callable[..., bool] | None = None,
        logits_processor: Iterable[Any] | None = None,
        grammar: Grammar | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        *,
        on_prompt: PromptProgress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Continue a prompt: a dict, or with `stream` an iterator of dicts.

        Control tokens that the prompt names are these tokens. `suffix` is what comes after the text: a model that can
        fill in the middle writes what belongs between. `max_tokens` of None or 0 goes on until the model ends or the
        context is full. `logprobs` asks for that many most likely tokens in each place, `echo` for the prompt in the
        answer. `on_prompt` is told how much of the prompt has been read; `cancel` and `timeout` (seconds) end the work
        early.
        """
        ids, shown = self._prompt(prompt, suffix)
        sampler = self._sampler(
            seed, temp=temperature, top_p=top_p, min_p=min_p, typical_p=typical_p, top_k=top_k, tfs_z=tfs_z,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, repeat_penalty=repeat_penalty,
            mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, logit_bias=logit_bias,
        )  # fmt: skip
        added = suffix if suffix is not None and not can_infill(self._tokenizer) else None

        def begin(session: Session) -> TextCompletion:
            chances: Any = echo
            if echo and logprobs is not None:
                chances = prompt_log_probabilities(session, ids, logprobs)
            generation, listen = self._generation(
                session, ids, sampler, max_tokens, stop, stopping_criteria, logits_processor, grammar, logprobs, False,
                on_prompt, cancel, timeout,
            )  # fmt: skip
            run = TextCompletion(
                generation, self._tokenizer, model or self.model_path, shown, ids,
                logprobs=logprobs, echo=chances, suffix=added,
            )  # fmt: skip
            listen.append(run.on_token)
            return run

        return self._run(ids, begin, stream)

    def __call__(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | Sequence[str] | None = (),
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: Iterable[Any] | Callable[..., bool] | None = None,
        logits_processor: Iterable[Any] | None = None,
        grammar: Grammar | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        **own: Any,
    ) -> Any:
        """`create_completion`, and its arguments."""
        given = {name: value for name, value in locals().items() if name not in ("self", "own")}
        return self.create_completion(**given, **own)

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Any] | None = None,
        function_call: Any = None,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | Sequence[str] | None = (),
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: Iterable[Any] | None = None,
        grammar: Grammar | None = None,
        logit_bias: Mapping[Any, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        *,
        template_variables: Mapping[str, Any] | None = None,
        formatter: ChatFormatter | None = None,
        reasoning: bool = True,
        on_prompt: PromptProgress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Answer a conversation: a dict, or with `stream` an iterator of dicts.

        Calls of `tools` come as "tool_calls" of the message; `tool_choice` "required" or naming a function makes the
        answer one call with valid arguments. Otherwise the model decides; if it calls a tool that is `"strict": true`,
        the arguments are valid too. `response_format` asks for JSON. A stretch of reasoning comes as
        "reasoning_content", unless `reasoning` is False. `template_variables` are passed to the chat template
        (enable_thinking=False, for instance); a `formatter` makes the prompt in its place (`llamacpu.llama.formats`).
        `on_prompt`, `cancel` and `timeout` as in `create_completion`.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "formatter")}
        if self.chat_handler is not None and formatter is None:
            own = () if isinstance(self.chat_handler, FormattedChat) else _OWN_CHAT_SETTINGS
            return self.chat_handler(llama=self, **{name: value for name, value in given.items() if name not in own})
        choice = tool_choice if tool_choice is not None else function_call
        offered = chats.tools_of(functions, tools) if choice != "none" else None
        stops, criteria = [*([stop] if isinstance(stop, str) else stop or ())], None
        if formatter is None:
            segments = self.chat.segments(messages, offered, **(template_variables or {}))
            ids, shown = self.chat.encode_segments(segments), segments[-1].text if segments else ""
            stops += self.chat.stop
        else:
            formatted = formatter(
                messages=messages, functions=functions, function_call=function_call, tools=tools,
                tool_choice=tool_choice, **(template_variables or {}),
            )  # fmt: skip
            shown, criteria = formatted.prompt, formatted.stopping_criteria
            ids = self.tokenize(shown, add_bos=not formatted.added_special, special=True)
            stops += [formatted.stop] if isinstance(formatted.stop, str) else formatted.stop or ()
        if grammar is None:
            grammar = chats.grammar_of_format(response_format)
        if grammar is None and offered and choice not in (None, "auto"):
            grammar = chats.grammar_of_tools(offered, None if choice == "required" else chats.wanted_tool(choice))
        sampler = self._sampler(
            seed, temp=temperature, top_p=top_p, min_p=min_p, typical_p=typical_p, top_k=top_k, tfs_z=tfs_z,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, repeat_penalty=repeat_penalty,
            mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, logit_bias=logit_bias,
        )  # fmt: skip
        begins_reasoning = shown.rstrip().endswith(REASONING_TAGS[0][0])
        processors = list(logits_processor or ())
        if grammar is None and offered and any_strict(offered):
            processors.append(ToolCallConstraint(offered, self._tokenizer, begins_reasoning and reasoning))
        control = self.chat.control_tokens
        tags = {tag for pair in REASONING_TAGS for tag in pair} if reasoning else set()
        show = not control.isdisjoint(tags | (call_tags() if offered else set()))
        reader = AnswerReader(
            chats.tool_names(offered) if offered else None,
            reasoning=reasoning,
            begins_reasoning=begins_reasoning,
            drop=control if show else (),
        )
        top = (top_logprobs or 0) if logprobs else None

        def begin(session: Session) -> chats.ChatCompletion:
            generation, listen = self._generation(
                session, ids, sampler, max_tokens, stops, criteria, processors, grammar, top, show,
                on_prompt, cancel, timeout,
            )  # fmt: skip
            run = chats.ChatCompletion(
                generation, self._tokenizer, model or self.model_path, reader,
                top_logprobs=top, legacy=bool(functions) and not tools,
            )  # fmt: skip
            listen.append(run.on_token)
            return run

        return self._run(ids, begin, stream)

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """`create_chat_completion` with the classes of the openai package as results."""
        try:
            from openai.types.chat import ChatCompletion, ChatCompletionChunk
        except ImportError:
            raise ImportError(
                "create_chat_completion_openai_v1 needs the openai package; install it with: pip install openai"
            ) from None
        found = self.create_chat_completion(*args, **kwargs)
        return (ChatCompletionChunk(**chunk) for chunk in found) if kwargs.get("stream") else ChatCompletion(**found)

    def infill(self, prefix: str, suffix: str, **settings: Any) -> Any:
        """What belongs between two texts; `settings` as in `create_completion`.

        Raises ModelError for a model that was not trained for it.
        """
        if not can_infill(self._tokenizer):
            infill_prompt(self._tokenizer, prefix, suffix)
        return self.create_completion(prefix, suffix, **settings)

    def moderate(
        self,
        messages: Sequence[Mapping[str, Any]],
        categories: Mapping[str, str] | None = None,
        threshold: float = 0.5,
    ) -> Moderation:
        """Judge the last message of a conversation with a Llama Guard model; see `llamacpu.tasks.moderation`."""
        from llamacpu.tasks.moderation import moderate

        session = self._lease([])
        try:
            return moderate(session, messages, categories=categories, threshold=threshold, chat=self.chat)
        finally:
            self._give_back(session, None)

    def _prompt(self, prompt: str | Sequence[int], suffix: str | None) -> tuple[list[int], str]:
        """The tokens of a prompt, with exactly one begin-of-text token, and its text."""
        tokenizer = self._tokenizer
        if not isinstance(prompt, str):
            ids = [int(token) for token in prompt]
            return ids, tokenizer.decode(ids, skip_special=True)
        if suffix is not None and can_infill(tokenizer):
            return infill_prompt(tokenizer, prompt, suffix, self.spm_infill), prompt
        ids = self.tokenize(prompt, add_bos=False, special=True)
        if tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
            ids.insert(0, tokenizer.bos)
        return ids, prompt

    def _generation(
        self,
        session: Session,
        ids: list[int],
        sampler: Sampler,
        max_tokens: int | None,
        stop: str | Sequence[str] | None,
        criteria: Any,
        processors: Iterable[Any] | None,
        grammar: Grammar | None,
        logprobs: int | None,
        show_special: bool,
        on_prompt: PromptProgress | None,
        cancel: CancelToken | None,
        timeout: float | None,
    ) -> tuple[Generation, list[Callable[..., None]]]:
        listeners: list[Callable[..., None]] = []

        def tell(token: Any) -> None:
            for listener in listeners:
                listener(token)

        generation = generate(
            session,
            ids,
            max_tokens=max_tokens if max_tokens is not None and max_tokens > 0 else None,
            sampling=sampler,
            stop=[stop] if isinstance(stop, str) else tuple(stop or ()),
            logits_processors=self._processors(processors, grammar),
            stopping_criteria=criteria_of(criteria),
            on_token=tell,
            on_prompt=on_prompt,
            log_probabilities=logprobs,
            show_special=show_special,
            overflow=self.overflow,
            draft=self.draft_model,
            cancel=cancel,
            timeout=timeout,
        )
        return generation, listeners

    def _run(self, ids: Sequence[int], begin: Callable[[Session], Run], stream: bool) -> Any:
        if stream:
            return self._chunks(ids, begin)
        session = self._lease(ids)
        run = None
        try:
            run = begin(session)
            return run.whole()
        finally:
            self._give_back(session, _result(run))

    def _chunks(self, ids: Sequence[int], begin: Callable[[Session], Run]) -> Iterator[Response]:
        session = self._lease(ids)
        run = None
        try:
            run = begin(session)
            yield from run.chunks()
        finally:
            self._give_back(session, _result(run))


def _result(run: Run | None) -> GenerationResult | None:
    if run is None:
        return None
    try:
        return run.generation.result
    except RuntimeError:
        return None
