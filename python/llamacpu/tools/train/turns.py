"""Finds what the assistant writes in the token ids of a conversation, for any chat template.

For each answer, the conversation before it is rendered as the prompt to which the model would have to reply, and the
conversation including it as history. The tokens that the second adds to the first, up to the token that ends a turn,
are what the model has to write: with tool calls, reasoning and everything else that the template puts into an answer.
Answers share a sequence as long as the template renders them in it exactly as it does when they are the last one. Where
it does not (Qwen 3 drops the reasoning of earlier turns, gpt-oss ends the last answer with another token), an
answer gets a sequence of its own, since that is what the model will see when it writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llamacpu.chat.reasoning import open_reasoning
from llamacpu.chat.segments import Segment
from llamacpu.errors import TemplateError
from llamacpu.tools.train.messages import is_trained

if TYPE_CHECKING:
    from llamacpu.chat import Chat

__all__ = ["Marked", "marked_conversation"]

Message = Mapping[str, Any]
_HARMONY_END, _HARMONY_RETURN = "<|end|>", "<|return|>"


class Marked(NamedTuple):
    """Token ids, and for each of them whether the loss counts it."""

    ids: list[int]
    counted: list[bool]


class _Turn(NamedTuple):
    """A conversation up to the end of an answer, which begins at token `start`."""

    ids: list[int]
    start: int


def marked_conversation(
    chat: Chat, messages: Sequence[Message], tools: Sequence[Any] | None, variables: Mapping[str, Any], limit: int
) -> list[Marked]:
    """The token ids of a conversation with the trained answers marked, in as few sequences as exactness allows.

    limit: the conversation ends with the first answer that begins after so many tokens, since rendering a long one up
    to each of its answers takes time that grows with the square of its length.

    Raises TemplateError if the template refuses the conversation up to one of the answers.
    """
    found: list[Marked] = []
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        if is_trained(message):
            turns.append(_turn(chat, messages[: index + 1], tools, variables))
            if turns[-1].start > limit:
                break
    for turn in reversed(turns):
        end = len(turn.ids)
        # An answer belongs to the shortest sequence that holds it unchanged: those of later turns come first.
        longer = next((marked for marked in found if marked.ids[:end] == turn.ids), None)
        if longer is None:
            longer = Marked(turn.ids, [False] * end)
            found.append(longer)
        longer.counted[turn.start : end] = [True] * (end - turn.start)
    return found[::-1]


def _turn(chat: Chat, messages: Sequence[Message], tools: Sequence[Any] | None, variables: Mapping[str, Any]) -> _Turn:
    before = messages[:-1]
    prompt = chat.segments(before, tools, True, **variables) if before else _opening(chat, tools, variables)
    whole = chat.segments(messages, tools, False, **variables)
    prompt_ids, whole_ids = chat.encode_segments(prompt), chat.encode_segments(whole)
    if whole_ids[: len(prompt_ids)] == prompt_ids and len(whole_ids) > len(prompt_ids):
        return _ended(chat, whole_ids, len(prompt_ids))
    prompt_text, whole_text = _text(prompt), _text(whole)
    if whole_text.startswith(prompt_text) and len(whole_text) > len(prompt_text):
        # A token spans the border: the model reads the prompt by itself, and writes the rest.
        return _ended(chat, prompt_ids + _continued(chat, _behind(whole, len(prompt_text))), len(prompt_ids))
    answer = _answer_alone(messages[-1], prompt_text, whole)
    if answer is not None:
        return _ended(chat, prompt_ids + _continued(chat, answer), len(prompt_ids))
    # The prompt's opening is not part of the history: what they share is the prompt, as far as it goes.
    common = next(
        (place for place, (one, other) in enumerate(zip(prompt_ids, whole_ids, strict=False)) if one != other),
        min(len(prompt_ids), len(whole_ids)),
    )
    return _ended(chat, whole_ids, min(common, len(whole_ids) - 1))


def _opening(chat: Chat, tools: Sequence[Any] | None, variables: Mapping[str, Any]) -> list[Segment]:
    """The prompt before a conversation that the assistant begins, as far as the template can render it."""
    try:
        return chat.segments([], tools, True, **variables)
    except TemplateError:
        return []


def _ended(chat: Chat, ids: list[int], start: int) -> _Turn:
    """The turn up to its first token that ends a generation, which is added if the template has none."""
    ends = chat.tokenizer.eog
    end = next((place for place in range(start, len(ids)) if ids[place] in ends), None)
    if end is not None:
        return _Turn(ids[: end + 1], start)
    if ids[-1:] == [chat.tokenizer.token_to_id(_HARMONY_END)] and chat.tokenizer.token_to_id(_HARMONY_RETURN):
        # A template of gpt-oss that knows only the end of earlier answers.
        ids = ids[:-1]
    ending = chat.tokenizer.eos if chat.tokenizer.eot is None else chat.tokenizer.eot
    return _Turn(ids if ending is None else [*ids, ending], start)


def _answer_alone(message: Message, prompt: str, whole: Sequence[Segment]) -> list[Segment] | None:
    """The answer as it continues a prompt that its rendering as history does not begin with.

    So it is when the prompt opens the reasoning, which the history leaves out. None if the answer has tool calls, or
    is not found in the history as it was written.
    """
    content = message.get("content")
    if message.get("tool_calls") or message.get("function_call") or not isinstance(content, str):
        return None
    text = _text(whole)
    for written in (content, content.strip()):
        place = text.rfind(written)
        if written and place >= 0:
            break
    else:
        return None
    closing = open_reasoning(prompt)
    before: list[Segment] = []
    if closing is not None:
        reasoning = next(
            (message[key] for key in ("reasoning_content", "thinking", "reasoning") if message.get(key)), ""
        )
        before = [Segment(str(reasoning), False), Segment(f"\n{closing}\n\n", True)]
    return [*before, *_behind(whole, place)]


def _behind(segments: Sequence[Segment], place: int) -> list[Segment]:
    """The segments from a character on."""
    found = []
    for text, special in segments:
        if place < len(text):
            found.append(Segment(text[place:], special))
        place = max(place - len(text), 0)
    return found


def _continued(chat: Chat, segments: Sequence[Segment]) -> list[int]:
    ids: list[int] = []
    for text, special in segments:
        if text:
            ids += chat.tokenizer.encode(text, add_special=False, parse_special=special, space_prefix=False)
    return ids


def _text(segments: Sequence[Segment]) -> str:
    return "".join(text for text, _ in segments)
