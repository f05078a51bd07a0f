"""From a question to an answer: the same whether it is read at once, in pieces, by an event loop or step by step."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
from fake_llama import Model, Tokens, Writer
from fake_model import END, START, ids_of
from llamacpu.answers import Question, Reading, answer, chat_prompt, chat_question, text_prompt
from llamacpu.answers.chat_completions import ChatShape, message_of
from llamacpu.answers.reading import Piece, ToolCall
from llamacpu.answers.responses import async_chunks, chunks, whole
from llamacpu.answers.text_completions import TextShape
from llamacpu.chat import Chat
from llamacpu.sampling import Sampling

MESSAGES = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
ANSWERS = {
    "text": "Good morning.",
    "thought": "<think>Hm, yes.</think>Good morning.",
    "call": 'Well. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
    "all": '<think>Call it.</think>Now:<tool_call>{"name": "f", "arguments": {}}</tool_call>',
    "nothing": "",
}


def asked(text: str, **settings: Any) -> tuple[Any, Question]:
    """A session that writes the text, and a question with tools."""
    model: Any = Model(Writer(text))
    chat = Chat.of(model)
    prompt = chat_prompt(chat, MESSAGES, TOOLS)
    given = {"sampling": Sampling(temperature=0), "tools": TOOLS, **settings}
    return model.session(), chat_question(chat, prompt, **given)


async def collected(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def plain(events: list[Any]) -> list[Any]:
    """Events without the random ids of calls, and neighbouring pieces of one kind joined."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, ToolCall):
            found.append(("call", event.index, event.name, event.arguments))
        elif found and found[-1][0] == event.kind:
            found[-1] = (event.kind, found[-1][1] + event.text)
        else:
            found.append((event.kind, event.text))
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_every_way_to_read_gives_the_same(name: str) -> None:
    iterated = answer(*asked(ANSWERS[name]))
    pieces = plain(list(iterated))
    looped = answer(*asked(ANSWERS[name]))
    assert plain(asyncio.run(collected(looped))) == pieces
    found = [iterated.answer, looped.answer, answer(*asked(ANSWERS[name])).read()]
    assert len({(a.content, a.reasoning, a.finish_reason, len(a.tool_calls)) for a in found}) == 1
    assert found[0].content == "".join(event[1] for event in pieces if event[0] == "content")
    assert found[0].reasoning == "".join(event[1] for event in pieces if event[0] == "reasoning")


def test_what_an_answer_tells() -> None:
    found = answer(*asked(ANSWERS["all"], log_probabilities=1)).read()
    assert (found.content, found.reasoning, found.finish_reason) == ("Now:", "Call it.", "tool_calls")
    assert [(call.name, call.arguments) for call in found.tool_calls] == [("f", "{}")]
    assert found.log_probabilities is not None
    assert len(found.log_probabilities) == len(found.result.tokens)
    assert found.timings is found.result.timings
    message = message_of(found)
    assert message["reasoning_content"] == "Call it."
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_a_limit_is_a_reason_even_with_calls() -> None:
    call = ANSWERS["call"]
    found = answer(*asked(call + " and more text", max_tokens=len(call))).read()
    assert found.tool_calls
    assert found.finish_reason == "length"


def without_ids(responses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{name: value for name, value in r.items() if name not in ("id", "created", "timings")} for r in responses]
    for response in kept:
        for call in response["choices"][0].get("delta", {}).get("tool_calls", ()):
            call.pop("id")
    return kept


@pytest.mark.parametrize("name", ANSWERS)
def test_chunks_for_an_event_loop_are_the_same(name: str) -> None:
    def shape() -> ChatShape:
        return ChatShape("m", Tokens(), logprobs=True)  # type: ignore[arg-type]

    plain_chunks = list(chunks(answer(*asked(ANSWERS[name], log_probabilities=2)), shape()))
    looped = asyncio.run(collected(async_chunks(answer(*asked(ANSWERS[name], log_probabilities=2)), shape())))
    assert without_ids(looped) == without_ids(plain_chunks)
    told = [r["choices"][0]["logprobs"] for r in plain_chunks]
    count = sum(len(logprobs["content"]) for logprobs in told if logprobs)
    assert count == len(ids_of(ANSWERS[name]))


def test_text_completions_in_one_and_in_chunks() -> None:
    model: Any = Model(Writer("def"))

    def running() -> Any:
        prompt = text_prompt(model.tokenizer, "abc", " end")
        question = Question(prompt=prompt.ids, sampling=Sampling(temperature=0), log_probabilities=0)
        return answer(model.session(), question), TextShape("m", model.tokenizer, prompt, logprobs=True, echo=True)

    once = whole(*running())
    pieces = list(chunks(*running()))
    assert once["choices"][0]["text"] == "abcdef end" == "".join(piece["choices"][0]["text"] for piece in pieces)
    assert once["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    tokens = [token for p in pieces if p["choices"][0]["logprobs"] for token in p["choices"][0]["logprobs"]["tokens"]]
    assert tokens == once["choices"][0]["logprobs"]["tokens"] == ["d", "e", "f"]
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"


@given(st.lists(st.sampled_from(["ab", "<think>", "</think>", " ", "\n"]), max_size=8), st.integers(1, 5))
def test_whoever_runs_the_steps_gets_the_same_answer(parts: list[str], size: int) -> None:
    """A question's settings and reader, and text that arrives in pieces of any size."""
    text = "".join(parts)
    session, question = asked(text, tools=None)
    own = Reading(asked(text, tools=None)[1].reader)
    for start in range(0, len(text), size):
        own.push(text[start : start + size])
    own.finish()
    expected = answer(session, question).read()
    found = own.answer(expected.result)
    assert (found.content, found.reasoning) == (expected.content, expected.reasoning)


def test_without_a_reader_all_text_is_content() -> None:
    session, question = asked(ANSWERS["all"], tools=None, reasoning=False)
    assert question.reader is None
    running = answer(session, question)
    assert "".join(running.text()) == ANSWERS["all"] == running.answer.content


def test_closing_ends_the_answer() -> None:
    running = answer(*asked("a long text", streamed=True))
    assert next(running) == Piece("content", "a")
    running.close()
    assert running.result.ended_by == "cancelled"
    assert running.answer.finish_reason == "cancelled"


@pytest.mark.parametrize(
    ("prompt", "special", "expected"),
    [
        ("ab", False, [START, *ids_of("ab")]),
        ("<s>ab", True, [START, *ids_of("ab")]),
        ("<s>ab", False, [START, *ids_of("<s>ab")]),
        ("", True, [START]),
        ([END, 7], False, [END, 7]),
    ],
)
def test_a_prompt_begins_with_one_start_token(prompt: Any, special: bool, expected: list[int]) -> None:
    assert text_prompt(Tokens(), prompt, parse_special=special).ids == expected  # type: ignore[arg-type]


def test_answers_are_made_in_one_place() -> None:
    """Nothing but `answers`, moderation and the facade calls `generate`, and only `answers` reads answers."""
    package = Path(llamacpu.__file__).parent
    users: dict[str, set[str]] = {"generate": set(), "AnswerReader": set()}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("llamacpu.generation", "llamacpu.chat", "llamacpu.answers")
            ):
                for name in users.keys() & {alias.name for alias in node.names}:
                    users[name].add(path.relative_to(package).as_posix())
    assert users["generate"] - {"generation/__init__.py"} == {"answers/running.py", "tasks/moderation.py"}
    assert users["AnswerReader"] == {"answers/question.py"}
