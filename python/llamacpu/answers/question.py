"""Questions: prompts built from messages or text, and the settings for generating the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llamacpu.answers import in_headers
from llamacpu.answers import tools as requested
from llamacpu.arguments import described, token_ids
from llamacpu.chat.reasoning import (
    REASONING_MARKS,
    REASONING_TAGS,
    begins_message,
    may_begin_inside,
    open_reasoning,
)
from llamacpu.chat.segments import Segment
from llamacpu.chat.shown import has_pictures, prompt_with_pictures, with_marks
from llamacpu.text.checks import check_text
from llamacpu.text.infill import can_infill, infill_prompt

if TYPE_CHECKING:
    from llamacpu.chat import Chat
    from llamacpu.chat.events import Reader
    from llamacpu.chat.pictures import Marks
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.generation.request import LogitsProcessor, StoppingCriterion
    from llamacpu.pictures import Picture, PictureAccess
    from llamacpu.sampling import Sampler, Sampling
    from llamacpu.text.tokenizer import Tokenizer

__all__ = [
    "ChatPrompt",
    "Question",
    "TextPrompt",
    "begun_answer",
    "chat_prompt",
    "chat_question",
    "raw_question",
    "text_prompt",
]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt and the settings for answering it, independent of the engine.

    Usable for one answer only, because grammars keep the state of its text.

    prompt  token ids; a `MixedTokens` if there are pictures among them
    reader  splits the answer into events; with None, all text is content

    The other fields are settings of `llamacpu.generation.generate`.
    """

    prompt: Sequence[int]
    sampling: Sampling | Sampler | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logits_processors: tuple[LogitsProcessor, ...] = ()
    stopping_criteria: tuple[StoppingCriterion, ...] = ()
    log_probabilities: int | None = None
    ignore_end: bool = False
    show_special: bool = False
    reader: Reader | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments for `generate`."""
        return {name: value for name, value in vars(self).items() if name not in ("prompt", "reader")}


class TextPrompt(NamedTuple):
    """A text to continue."""

    ids: list[int]
    text: str
    suffix: str = ""
    """the text to append to the answer, for a model that cannot fill in the middle"""


class ChatPrompt(NamedTuple):
    """A conversation to answer."""

    ids: Sequence[int]
    """token ids: a list, or a `MixedTokens` if there are pictures"""
    text: str
    """at least the end of the prompt, which shows whether it has opened the reasoning"""
    stop: tuple[str, ...] = ()
    stopping_criteria: tuple[StoppingCriterion, ...] = ()
    begun: bool = False
    """whether the prompt ends in the middle of the answer's content"""
    messages: bool = False
    """whether the answer is made of messages with headers"""


def text_prompt(
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    suffix: str | None = None,
    *,
    suffix_first: bool = False,
    parse_special: bool = False,
    encode: Callable[[str], list[int]] | None = None,
) -> TextPrompt:
    """Build a prompt from text or token ids, with exactly one begin-of-text token if the model uses one.

    suffix         the text after the answer: a model that supports fill-in-the-middle writes the text between
    suffix_first   whether such a model gets the suffix before the prompt
    parse_special  whether names of control tokens in the text become these tokens
    encode         tokenizes the text instead of the tokenizer, without the begin-of-text token

    Raises TypeError for a prompt or suffix of the wrong type, ValueError for a suffix with an unpaired surrogate.
    """
    if suffix is not None:
        if not isinstance(suffix, str):
            raise TypeError(f"suffix is {described(suffix)}; expected a text")
        check_text(suffix, "the suffix")
    if not isinstance(prompt, str):
        ids = token_ids("prompt", prompt)
        return TextPrompt(ids, tokenizer.decode(ids, skip_special=True), "" if can_infill(tokenizer) else suffix or "")
    if suffix is not None and can_infill(tokenizer):
        return TextPrompt(infill_prompt(tokenizer, prompt, suffix, suffix_first), prompt)
    ids = encode(prompt) if encode else tokenizer.encode(prompt, add_special=False, parse_special=parse_special)
    if tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
        ids.insert(0, tokenizer.bos)
    return TextPrompt(ids, prompt, suffix or "")


def chat_prompt(
    chat: Chat,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    *,
    continue_last: bool = False,
    access: PictureAccess | None = None,
    context: int | None = None,
) -> ChatPrompt:
    """Build a prompt from messages with the chat template; `variables` are passed to the template.

    continue_last  the last message is the assistant's and begins the answer, which continues right after it
    access         where pictures in the messages may come from; None for data URLs alone
    context        the most tokens of a prompt with pictures, which are counted before one is encoded

    Raises ValueError if there is nothing to continue, TemplateError if the template cannot render the messages,
    PictureError for pictures that cannot be shown to the model, ContextOverflow for a prompt with too many of them.
    """
    begun = begun_answer(messages) if continue_last else ""
    said: Sequence[Mapping[str, Any]] = messages[:-1] if begun else messages
    pictures: list[Picture] = []
    marks: Marks | None = None
    if has_pictures(said):
        said, pictures, marks = with_marks(chat, said, access)
    segments = list(chat.segments(said, tools, marks=marks, **(variables or {})))
    in_messages = bool(segments) and begins_message(segments[-1].text)
    if begun and in_messages:
        reasoning = _text_of(messages[-1].get("reasoning_content"))
        segments += in_headers.begun(reasoning, chat.template_for(tools).source)
        segments.append(Segment(begun, False))
    elif begun:
        closing = open_reasoning(segments[-1].text) if segments else None
        if closing is not None:
            # The template has opened the reasoning, but an answer that already has content must have closed it.
            reasoning = _text_of(messages[-1].get("reasoning_content"))
            segments += [Segment(reasoning, False), Segment(f"\n{closing}\n\n", True)]
        segments.append(Segment(begun, False))
    text = segments[-1].text if segments else ""
    ids: Sequence[int] = (
        chat.encode_segments(segments)
        if marks is None
        else prompt_with_pictures(chat, segments, pictures, marks, context)
    )
    return ChatPrompt(ids, text, tuple(chat.stop), begun=bool(begun), messages=in_messages)


def begun_answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last message, which begins the answer. Raises ValueError if it is not the assistant's text."""
    last = messages[-1] if messages else {}
    begun = _text_of(last.get("content")) if last.get("role") == "assistant" else ""
    if not begun:
        raise ValueError("there is no answer to continue: the last message should be the assistant's and have a text")
    return begun


def _text_of(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, (list, tuple)) else ()
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))


def chat_question(
    chat: Chat,
    prompt: ChatPrompt,
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    response_format: Mapping[str, Any] | None = None,
    grammar: Grammar | None = None,
    reasoning: bool = True,
    streamed: bool = False,
    stop: Iterable[str] = (),
    logits_processors: Iterable[LogitsProcessor] = (),
    **settings: Any,
) -> Question:
    """Build the question for a conversation.

    tools, tool_choice, response_format  as in the OpenAI API: with tools the answer may contain calls, and choosing one
                                         (or "required") makes the answer a single call with valid arguments
    grammar                              grammar of the whole answer, which takes precedence over these
    reasoning                            whether reasoning is separated from the content
    streamed                             whether the answer is streamed: a complete one can wait for reasoning tags
    settings                             the other fields of `Question`

    Raises GrammarError for a schema that cannot be used, ValueError for an unknown tool or response format.
    """
    offered = list(tools or ()) if tool_choice != "none" else []
    if grammar is None:
        grammar = requested.grammar_of_format(response_format)
    forced = grammar is None and bool(offered) and tool_choice not in (None, "auto")
    wanted = requested.wanted_tool(tool_choice) if forced else None
    if forced:
        grammar = requested.grammar_of_tools(offered, wanted)
    closing = None if prompt.begun else open_reasoning(prompt.text)
    processors = list(logits_processors)
    strict = grammar is None and bool(offered) and requested.any_strict(offered)
    source = chat.template_for(offered).source
    in_messages = prompt.messages or begins_message(prompt.text)
    if in_messages and (strict or forced or (grammar is not None and not prompt.begun)):
        held = [tool for tool in offered if not forced or wanted is None or requested.tool_names([tool]) == [wanted]]
        final = None if forced else grammar
        processors.append(in_headers.constraint(chat.tokenizer, source, held, forced, final, prompt.begun))
    elif grammar is not None:
        processors.append(_held(grammar, chat.tokenizer, closing))
    elif strict:
        from llamacpu.constraints.tool_constraint import ToolCallConstraint

        processors.append(ToolCallConstraint(offered, chat.tokenizer, closing, prompt.text.endswith(">>>")))
    show = False
    reader: Reader | None = None
    # Only what the question needs is imported, which shortens the time to the first token.
    if in_messages:
        schemas = requested.tool_schemas(offered) if offered else None
        show, reader = True, in_headers.reader(source, schemas, reasoning=reasoning, begun=prompt.begun)
    elif reasoning or offered:
        from llamacpu.chat.answer import AnswerReader
        from llamacpu.chat.marks import call_tags

        control = chat.control_tokens
        tags = {*REASONING_MARKS, *(tag for pair in REASONING_TAGS for tag in pair)} if reasoning else set()
        show = not control.isdisjoint(tags | (call_tags() if offered else set()))
        reader = AnswerReader(
            requested.tool_schemas(offered) if offered else None,
            reasoning=reasoning,
            begins_reasoning=closing,
            unopened=grammar is None and not prompt.begun and may_begin_inside(prompt.text, source, streamed),
            begins_recipient=prompt.text.endswith(">>>"),
            forced=forced,
            only_tagged=strict,
            drop=control if show else (),
        )
    return Question(
        prompt=prompt.ids,
        stop=(*(tuple(stop) or chat.preset.stop), *prompt.stop),
        stopping_criteria=prompt.stopping_criteria,
        logits_processors=tuple(processors),
        show_special=show,
        reader=reader,
        **settings,
    )


def raw_question(
    model: ModelLike, text: str, *, parse_special: bool = False, grammar: Grammar | None = None, **settings: Any
) -> Question:
    """Build the question for continuing a text, without a chat template.

    parse_special: whether names of control tokens in the text become these tokens. grammar: grammar of the answer.
    """
    if grammar is not None:
        settings["logits_processors"] = (grammar.constraint(model.tokenizer, model.vocab_size),)
    return Question(prompt=text_prompt(model.tokenizer, text, parse_special=parse_special).ids, **settings)


def _held(grammar: Grammar, tokenizer: Tokenizer, closing: str | None) -> LogitsProcessor:
    """The constraint of an answer to a grammar; reasoning opened by the prompt is unconstrained up to `closing`."""
    if closing is None:
        return grammar.constraint(tokenizer)
    from llamacpu.constraints.after_reasoning import AfterReasoning

    return AfterReasoning(partial(grammar.constraint, tokenizer), tokenizer, closing)
