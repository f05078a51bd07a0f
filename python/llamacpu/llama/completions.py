"""The completions of `Llama`: llama-cpp-python's arguments are converted to questions, and answers to its responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers import ChatPrompt, Question, RunningAnswer, answer, chat_prompt, chat_question, text_prompt
from llamacpu.answers.chat_completions import ChatShape
from llamacpu.answers.checks import check_messages, check_response_format, check_tools
from llamacpu.answers.log_probabilities import prompt_log_probabilities
from llamacpu.answers.text_completions import TextShape
from llamacpu.answers.tools import tools_of
from llamacpu.arguments import integer
from llamacpu.chat import Chat
from llamacpu.chat.segments import cut
from llamacpu.chat.template import Traced
from llamacpu.llama.formats import registered
from llamacpu.llama.recommended import recommended
from llamacpu.llama.running import Started, run
from llamacpu.llama.settings import check_completion
from llamacpu.llama.steps import criteria_of
from llamacpu.locks import cached_property
from llamacpu.text.infill import can_infill, infill_prompt

if TYPE_CHECKING:
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.drafting import Draft
    from llamacpu.engine.interfaces import CancelToken, SessionLike
    from llamacpu.generation.context_window import Overflow
    from llamacpu.generation.request import PromptProgress
    from llamacpu.llama.conversation import Conversation
    from llamacpu.llama.formats import ChatFormatter
    from llamacpu.llama.sampling import Samplers
    from llamacpu.llama.text import LlamaText
    from llamacpu.multimodal.rows import PictureProgress
    from llamacpu.pictures import PictureAccess
    from llamacpu.tasks.moderation import Moderation
    from llamacpu.tasks.prompt_guard import PromptGuard

__all__ = ["Completions"]


class Completions:
    """Text and chat completions with the model of a conversation; the fields are arguments of `Llama`."""

    def __init__(
        self,
        conversation: Conversation,
        text: LlamaText,
        samplers: Samplers,
        model_path: str,
        *,
        chat_format: str | None,
        spm_infill: bool,
        overflow: Overflow,
        draft_model: Draft | None,
    ) -> None:
        self.chat_format = chat_format
        self.spm_infill = spm_infill
        self.overflow = overflow
        self.draft_model = draft_model
        self._conversation = conversation
        self._text = text
        self._samplers = samplers
        self._model_path = model_path

    @cached_property
    def chat(self) -> Chat:
        """The chat template of the model and the conversion of messages to tokens."""
        # llama-cpp-python names the templates of a file chat_template.default and so on.
        name = None if registered(self.chat_format) else self.chat_format
        model = self._conversation.model
        source = name and name.removeprefix("chat_template.")
        chat = Chat(model.metadata, self._text.tokenizer, source, preset=self._conversation.preset)
        chat.vision = getattr(model, "vision", None)
        return chat

    @recommended
    def create_completion(
        self,
        prompt: str | bytes | Sequence[int],
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
        stream_options: Mapping[str, Any] | None = None,
        on_prompt: PromptProgress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Continue a prompt (text, UTF-8 bytes or token ids); return a dict, or with `stream` an iterator of dicts.

        Names of control tokens in the prompt are encoded as these tokens. `suffix` is the text that follows: a model
        trained to fill in the middle writes what belongs in between. With `max_tokens` None or 0, generation continues
        until the model ends or the context is full. `logprobs` is the number of most likely tokens to report at each
        position; `echo` includes the prompt in the answer. With `stream_options={"include_usage": True}`, a last chunk
        of the stream has the token counts. `on_prompt` is called with the progress of the prompt; `cancel` and
        `timeout` (seconds) end the work early.
        """
        check_completion(locals())
        integer("logprobs", None if isinstance(logprobs, bool) else logprobs)
        given = text_prompt(
            self._text.tokenizer, prompt.decode("utf-8", "replace") if isinstance(prompt, bytes) else prompt,
            suffix, suffix_first=self.spm_infill,
            encode=lambda text: self._text.tokenize(text, add_bos=False, special=True),
        )  # fmt: skip
        sampler = self._samplers.sampler(
            seed, temp=temperature, top_p=top_p, min_p=min_p, typical_p=typical_p, top_k=top_k, tfs_z=tfs_z,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, repeat_penalty=repeat_penalty,
            mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, logit_bias=logit_bias,
        )  # fmt: skip
        question = Question(
            prompt=given.ids,
            sampling=sampler,
            max_tokens=_limit(max_tokens),
            stop=_texts(stop),
            logits_processors=tuple(self._samplers.processors(logits_processor, grammar)),
            stopping_criteria=criteria_of(stopping_criteria),
            log_probabilities=logprobs,
        )

        def begin(session: SessionLike) -> Started:
            chances: Any = echo
            if echo and logprobs is not None:
                chances = prompt_log_probabilities(session, given.ids, logprobs)
            running = self._answer(session, question, on_prompt, cancel, timeout)
            name = model or self._model_path
            return running, TextShape(name, self._text.tokenizer, given, logprobs=logprobs is not None, echo=chances)

        return run(self._conversation, given.ids, begin, stream, stream_options)

    @recommended
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
        stream_options: Mapping[str, Any] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        formatter: ChatFormatter | None = None,
        reasoning: bool = True,
        on_prompt: PromptProgress | None = None,
        on_picture: PictureProgress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
        access: PictureAccess | None = None,
    ) -> Any:
        """Answer a conversation; return a dict, or with `stream` an iterator of dicts.

        Calls of `tools` are in "tool_calls" of the message; with `tool_choice` "required" or naming a function, the
        answer is one call with valid arguments. Otherwise the model decides; if it calls a tool that is
        `"strict": true`, the arguments are valid too. `response_format` asks for JSON. Reasoning is returned as
        "reasoning_content", unless `reasoning` is False. `template_variables` are passed to the chat template (for
        instance enable_thinking=False); a `formatter` makes the prompt instead of the template
        (`llamacpu.llama.formats`). Messages may have pictures, as data URLs in parts of the type "image_url"; `access`
        allows files and addresses, and `on_picture` is called while they are encoded, as in `Model.generate`.
        `stream_options`, `on_prompt`, `cancel` and `timeout` are as in `create_completion`.
        """
        check_completion(locals())
        check_messages(messages)
        check_tools(functions, "functions")
        check_tools(tools)
        check_response_format(response_format)
        offered = tools_of(functions, tools)
        choice = tool_choice if tool_choice is not None else function_call
        if formatter is None:
            prompt = chat_prompt(
                self.chat, messages, offered if choice != "none" else None, template_variables, access=access,
                context=self._conversation.n_ctx() if self.overflow == "error" else None,
            )  # fmt: skip
        else:
            formatted = formatter(
                messages=messages, functions=functions, function_call=function_call, tools=tools,
                tool_choice=tool_choice, **(template_variables or {}),
            )  # fmt: skip
            if isinstance(formatted.prompt, Traced) and self._text.given is None:
                ids = self.chat.encode_segments(cut(formatted.prompt, self.chat.control_tokens))
            else:
                ids = self._text.tokenize(formatted.prompt, add_bos=not formatted.added_special, special=True)
            criteria = criteria_of(formatted.stopping_criteria)
            prompt = ChatPrompt(ids, formatted.prompt, _texts(formatted.stop), criteria)
        top = (top_logprobs or 0) if logprobs else None
        sampler = self._samplers.sampler(
            seed, temp=temperature, top_p=top_p, min_p=min_p, typical_p=typical_p, top_k=top_k, tfs_z=tfs_z,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, repeat_penalty=repeat_penalty,
            mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, logit_bias=logit_bias,
        )  # fmt: skip
        question = chat_question(
            self.chat,
            prompt,
            tools=offered,
            tool_choice=choice,
            response_format=response_format,
            grammar=grammar,
            reasoning=reasoning,
            streamed=stream,
            stop=_texts(stop),
            logits_processors=logits_processor or (),
            sampling=sampler,
            max_tokens=_limit(max_tokens),
            log_probabilities=top,
        )

        def begin(session: SessionLike) -> Started:
            running = self._answer(session, question, on_prompt, cancel, timeout, on_picture)
            legacy = bool(functions) and not tools
            name = model or self._model_path
            return running, ChatShape(name, self._text.tokenizer, logprobs=top is not None, legacy=legacy)

        return run(self._conversation, prompt.ids, begin, stream, stream_options)

    def infill(self, prefix: str, suffix: str, **settings: Any) -> Any:
        """Generate the text that belongs between two texts; `settings` as in `create_completion`.

        Raises ModelError for a model that was not trained for it.
        """
        if not can_infill(self._text.tokenizer):
            infill_prompt(self._text.tokenizer, prefix, suffix)
        return self.create_completion(prefix, suffix, **settings)

    def moderate(
        self,
        messages: Sequence[Mapping[str, Any]],
        categories: Mapping[str, str] | None = None,
        threshold: float = 0.5,
    ) -> Moderation:
        """Judge the last message of a conversation with a Llama Guard model; see `llamacpu.tasks.moderation`."""
        from llamacpu.tasks.moderation import moderate

        session = self._conversation.lease([])
        try:
            return moderate(session, messages, categories=categories, threshold=threshold, chat=self.chat)
        finally:
            self._conversation.give_back(session, None)

    def guard_prompt(self, text: str, threshold: float = 0.5) -> PromptGuard:
        """Judge a text with a Prompt Guard model; see `llamacpu.tasks.prompt_guard`."""
        from llamacpu.tasks.prompt_guard import guard_prompt

        return guard_prompt(self._conversation.model, text, threshold=threshold)

    def _answer(
        self,
        session: SessionLike,
        question: Question,
        on_prompt: PromptProgress | None,
        cancel: CancelToken | None,
        timeout: float | None,
        on_picture: PictureProgress | None = None,
    ) -> RunningAnswer:
        return answer(
            session, question, overflow=self.overflow, draft=self.draft_model,
            on_prompt=on_prompt, on_picture=on_picture, cancel=cancel, timeout=timeout,
        )  # fmt: skip


def _limit(max_tokens: int | None) -> int | None:
    """The token limit; llama-cpp-python's 0 and -1 mean no limit."""
    return max_tokens if max_tokens is not None and max_tokens > 0 else None


def _texts(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())
