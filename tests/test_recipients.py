"""Answers whose messages have recipients (Muse Glimmer): the same in any pieces, under grammars, in conversations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fake_llama import Model, Writer, llama
from llamacpu.answers import chat_prompt, chat_question
from llamacpu.chat import Chat
from llamacpu.chat.builtin import builtin, source_of
from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.recipients import RecipientReader
from test_tool_constraint import TOOLS
from thorough import examples

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

__all__ = ["llama"]
TYPES = {
    "f": {"properties": {"n": {"type": "integer"}, "s": {"type": "string"}, "u": {"type": ["string", "null"]}}},
    "space.g": {},
}
SELF, USER, NEXT = " to=self<|message|>", " to=user<|message|>", "<|eom|><|start|>assistant"


def call(name: str, recipient: str | None = None, **arguments: str) -> str:
    inner = "".join(f'<atem:parameter name="{key}">{value}</atem:parameter>\n' for key, value in arguments.items())
    block = f'<atem:function_calls>\n<atem:invoke name="{name}">\n{inner}</atem:invoke>\n</atem:function_calls>'
    return f" to={recipient or name}<|message|>{block}"


F = call("f", n="1")
ANSWERS: dict[str, tuple[str, tuple[str, str, list[Any]]]] = {
    "text": (f"{USER}Yes.<|eot|>", ("Yes.", "", [])),
    "text to nobody": ("<|message|>Yes.<|eot|>", ("Yes.", "", [])),
    "both": (f"{SELF} Hm {{x}} <b>.\n{NEXT}{USER}Yes, <|", ("Yes, <|", " Hm {x} <b>.\n", [])),
    "a call": (f"{SELF}Hm{NEXT}{F}<|eot|>", ("", "Hm", [("f", {"n": 1})])),
    "text and calls": (
        f"{USER}I look.{NEXT}{F}{NEXT}{call('space.g')}<|eot|>",
        ("I look.", "", [("f", {"n": 1}), ("space.g", {})]),
    ),
    "values as they are": (
        call("f", s=' 1\n"<b>&amp; ', u="5") + "<|eot|>",
        ("", "", [("f", {"s": ' 1\n"<b>&amp; ', "u": "5"})]),
    ),
    "values of every type": (
        call("space.g", a="true", b="null", c="1.5", d='[1, {"x": []}]', e="text") + "<|eot|>",
        ("", "", [("space.g", {"a": True, "b": None, "c": 1.5, "d": [1, {"x": []}], "e": "text"})]),
    ),
    "null for a string or null": (call("f", u="null"), ("", "", [("f", {"u": None})])),
    "marks in a value": (
        call("f", s="a<|eom|>b<|start|>c</atem:invoke>") + "<|eot|>",
        ("", "", [("f", {"s": "a<|eom|>b<|start|>c</atem:invoke>"})]),
    ),
    "the name in the block counts": (call("f", recipient="space.f", n="2"), ("", "", [("f", {"n": 2})])),
    "JSON for arguments": (' to=f<|message|>{"n": 3}<|eot|>', ("", "", [("f", {"n": 3})])),
    "no call at all": (" to=f<|message|>nope<|eot|>", ("nope", "", [])),
    "two messages of a kind": (f"{USER}A{NEXT}{SELF}x{NEXT}{USER}B{NEXT}{SELF}y", ("A\n\nB", "x\n\ny", [])),
    "without headers": ("Just text, to=f <|x|>", ("Just text, to=f <|x|>", "", [])),
    "the beginning of a header alone": ("assist", ("assist", "", [])),
    "a mark without a header": ("<|start|>user says", ("<|start|>user says", "", [])),
    "cut off": (f"{SELF}Hm", ("", "Hm", [])),
    "cut off in a header": (f"{SELF}Hm{NEXT} to=us", ("", "Hm", [])),
    "cut off in a mark": (f"{SELF}Hm<|eo", ("", "Hm<|eo", [])),
    "cut off behind a call": (F, ("", "", [("f", {"n": 1})])),
    "cut off in a call": (F.removesuffix("s>"), ("", "", [("f", {"n": 1})])),
    "a call without an end, and text": (
        ' to=f<|message|><atem:function_calls>\n<atem:invoke name="f">' + f"{NEXT}{USER}Yes<|eot|>",
        ('<atem:function_calls>\n<atem:invoke name="f">\n\nYes', "", []),
    ),
    "text behind a call, and a second end": (
        f"{F}to=<|eot|> to=<|eom|>x</atem:function_calls><|eot|>{USER}Yes",
        (F.partition("<|message|>")[2] + "to=\n\n to=\n\nx</atem:function_calls>\n\nYes", "", []),
    ),
    "nothing": ("", ("", "", [])),
}  # fmt: skip
FRAGMENTS = [SELF, USER, NEXT, F, "<|eom|>", "<|eot|>", "<|start|>", "<|message|>", "assistant", " to=f", "to=", "a",
             "<|", " ", "|>", "<atem:function_calls>", '<atem:invoke name="f">', "</atem:invoke>",
             "</atem:function_calls>", '<atem:parameter name="s">', "</atem:parameter>", "x" * 300,
             " " * 130]  # fmt: skip


def read(text: str, cuts: list[int], **options: Any) -> tuple[str, str, list[Any]]:
    reader = RecipientReader(TYPES, **options)
    events: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        events += reader.push(text[start:end])
    events += reader.finish()
    kinds = {
        kind: "".join(e.text for e in events if isinstance(e, Piece) and e.kind == kind)
        for kind in ("content", "reasoning")
    }
    assert all(event.text for event in events if isinstance(event, Piece))
    calls = [(e.name, json.loads(e.arguments)) for e in events if isinstance(e, ToolCall)]
    assert [e.index for e in events if isinstance(e, ToolCall)] == list(range(len(calls))) == list(range(reader.calls))
    return kinds["content"], kinds["reasoning"], calls


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=30)
@given(data=st.data())
def test_answers_with_recipients_are_taken_apart(name: str, data: st.DataObject) -> None:
    text, expected = ANSWERS[name]
    assert read(text, []) == expected
    assert read(text, sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))) == expected
    assert read(text, list(range(len(text)))) == expected


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14), st.data())
@example(["<|start|>", *["x" * 300] * 4], None)
@example([" to=f<|message|>", "<atem:function_calls>", "<|eom|>", "</atem:function_calls>", " " * 130, "<|eom|>"], None)
def test_any_text_is_the_same_in_any_pieces(parts: list[str], data: st.DataObject | None) -> None:
    text = "".join(parts)
    whole = read(text, [])
    assert read(text, list(range(len(text)))) == whole
    if data is not None:
        assert read(text, sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))) == whole
    if not any(mark in text for mark in ("<|start", "<|eo", "<|mess", "to=", "<|", "assistant")):
        assert whole == (text if text.strip() else "", "", [])


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.text(max_size=20)), st.integers(1, 9))
def test_strings_stand_as_they_are(arguments: dict[str, str], size: int) -> None:
    if any("</atem:parameter>" in value for value in arguments.values()):
        return
    schema = {"properties": {key: {"type": "string"} for key in arguments}}
    reader = RecipientReader({"f": schema})
    text = call("f", **arguments) + "<|eot|>"
    events = [event for place in range(0, len(text), size) for event in reader.push(text[place : place + size])]
    (found,) = events + reader.finish()
    assert isinstance(found, ToolCall)
    assert json.loads(found.arguments) == arguments


@pytest.mark.parametrize("text", [
    f"{NEXT}{USER}" * 4_000,
    " to=f<|message|><atem:function_calls>" + "<|eom|>" * 10_000,
    " to=f<|message|><atem:function_calls><|eom|><|start|>assistant" * 2_000,
    f"{F}{NEXT}" * 1_000,
    "<|start|>" * 8_000,
    " to=f<|message|>" + "x" * 400_000,
    "<|start|>" + "y" * 400_000,
], ids=range(7))  # fmt: skip
def test_long_answers_take_no_time(text: str) -> None:
    whole = read(text, [])
    assert read(text, list(range(0, len(text), 7))) == whole


def test_reasoning_is_content_where_it_is_not_told_apart() -> None:
    text = f"{SELF}Hm{NEXT}{USER}Yes{NEXT}{SELF}So{NEXT}{F}<|eot|>"
    told = "<think>\nHm\n</think>\n\nYes<think>\n\n\nSo\n</think>\n\n"
    assert (
        read(text, [], reasoning=False)
        == read(text, [*range(len(text))], reasoning=False)
        == (
            told,
            "",
            [("f", {"n": 1})],
        )
    )
    reader = RecipientReader(None)
    (piece,) = reader.push(F + "<|eot|>") + reader.finish()
    assert isinstance(piece, Piece)
    assert piece.text == F.partition("<|message|>")[2]
    assert read(f"Yes.{NEXT}{F}", [], begun=True) == ("Yes.", "", [("f", {"n": 1})])


FORMAT = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
SOURCE = source_of(builtin("muse-glimmer"))
QUESTION = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        {"response_format": {"type": "json_object", "schema": FORMAT}},
        {"tools": TOOLS[1:2], "tool_choice": "required"},
        {"tools": TOOLS[1:2]},
        {"tools": [{"type": "function", "function": {"name": "book_now"}}]},
        {},
    ],
)
def test_a_conversation_with_recipients(llama: Callable[..., Any], given: dict[str, Any], stream: bool) -> None:
    wish = call("book_now") if "tools" in given else f'{USER}{{"n": 4}}'
    model = llama(f"{SELF}Hm{NEXT}{wish}", SOURCE)
    found = model.create_chat_completion(QUESTION, stream=stream, max_tokens=400, temperature=0.0, **given)
    if stream:
        choices = [chunk["choices"][0] for chunk in found]
        kinds = ("content", "reasoning_content")
        message: dict[str, Any] = {key: "".join(c["delta"].get(key) or "" for c in choices) for key in kinds}
        message["tool_calls"] = [made for choice in choices for made in choice["delta"].get("tool_calls") or ()]
        reason = choices[-1]["finish_reason"]
    else:
        message, reason = found["choices"][0]["message"], found["choices"][0]["finish_reason"]
    assert message["reasoning_content"] == "Hm"
    if "tools" in given:
        assert [made["function"]["name"] for made in message["tool_calls"]] == ["book_now"]
        assert reason == "tool_calls"
    else:
        assert json.loads(message["content"]) == {"n": 4}
        assert reason == "stop"


def test_headers_are_no_part_of_an_answer_without_reasoning(llama: Callable[..., Any]) -> None:
    model = llama(f"{SELF}Hm{NEXT}{USER}Yes", SOURCE)
    found = model.create_chat_completion(QUESTION, max_tokens=400, temperature=0.0, reasoning=False)
    text = found["choices"][0]["message"]["content"]
    assert text == "<think>\nHm\n</think>\n\nYes"
    # In the next turn it is reasoning again.
    prompt = Chat.of(Model(Writer(""), SOURCE)).render([*QUESTION, {"role": "assistant", "content": text}, *QUESTION])
    assert f"<|start|>assistant{SELF}Hm{NEXT}{USER}Yes<|eot|>" in prompt


def test_an_answer_that_has_begun_continues_in_its_message() -> None:
    chat = Chat.of(Model(Writer(""), SOURCE))
    begun = {"role": "assistant", "content": "It is", "reasoning_content": "Hm<|eom|>"}
    prompt = chat_prompt(chat, [*QUESTION, begun], continue_last=True)
    text = chat.tokenizer.decode(prompt.ids)
    assert text.endswith(f"<|start|>assistant{SELF}Hm<|eom|>{NEXT}{USER}It is")
    reader = chat_question(chat, prompt).reader
    assert reader is not None
    assert reader.push(" late.") + reader.finish() == [Piece("content", " late.")]


@pytest.mark.parametrize(("given", "strength"), [
    ({}, "high"), ({"reasoning_effort": "medium"}, "medium"), ({"reasoning_effort": "none"}, "low"),
    ({"enable_thinking": False}, "low"), ({"reasoning_effort": "low", "reasoning_strength": "high"}, "high"),
    ({"reasoning_effort": "xhigh"}, "high"),
])  # fmt: skip
def test_the_effort_of_reasoning_has_other_names(given: dict[str, Any], strength: str) -> None:
    chat = Chat.of(Model(Writer(""), SOURCE))
    assert f"\n\nReasoning strength: {strength}." in chat.render(QUESTION, **given)
    told = [{"role": "system", "content": "Reasoning effort: medium."}, *QUESTION]
    assert chat.render(told, **given).count("easoning strength: ") == 1
    other = "{{ reasoning_effort }}|{% set x = thinking %}{{ x }}|{% for m in messages %}{{ m.content }}{% endfor %}"
    wanted = given.get("reasoning_effort") or given.get("reasoning_strength") or ""
    thinking = given.get("enable_thinking", "")
    assert Chat.of(Model(Writer(""), other)).render(QUESTION, **given) == f"{wanted}|{thinking}|Hi"


@pytest.mark.parametrize(
    "given", [{"tools": True}, {"tools": True, "tool_choice": "required"}, {"response_format": True}], ids=str
)
def test_a_random_model_of_this_family_keeps_the_form(golden: Path, given: dict[str, Any]) -> None:
    path = golden / "families-2026" / "muse-glimmer.gguf"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    from llamacpu import Model as FileModel
    from llamacpu import Sampling

    short = {"type": "string", "maxLength": 5}
    schema = {
        "type": "object",
        "properties": {"s": short, "n": {"type": "integer", "maximum": 9}},
        "required": ["s", "n"],
    }
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    values: dict[str, Any] = {"tools": [tool], "response_format": {"type": "json_object", "schema": schema}}
    with FileModel(path) as model:
        sampling = Sampling(seed=1, temperature=1.0)
        given = {key: values[key] if value is True else value for key, value in given.items()}
        answer = model.chat(QUESTION, max_tokens=400, context=1500, sampling=sampling, **given)
    if "response_format" in given:
        jsonschema.validate(json.loads(answer.content), schema)
    for found in answer.tool_calls:
        jsonschema.validate(json.loads(found.arguments), schema)
    assert answer.tool_calls or "tool_choice" not in given
    assert answer.finish_reason in ("stop", "tool_calls", "length")


def test_the_command_line_sets_the_effort_of_reasoning() -> None:
    from click.testing import CliRunner

    from llamacpu.cli import run
    from llamacpu.cli.chat.conversation import Conversation

    model = Model(Writer(""), SOURCE)
    variables = run._variables({"reasoning_effort": "low"})
    settings: dict[str, Any] = {"grammar": None, "max_tokens": None}
    session: Any = SimpleNamespace(model=model)
    conversation = Conversation(session, settings, {}, None, Chat.of(model), False, False, variables)
    conversation.messages = [*QUESTION]
    prompts = [conversation._question().prompt]
    given: dict[str, Any] = {"raw": False, "template": None, "system": None, "reasoning_effort": "low"}
    given |= {"images": (), "overflow": "shift"}
    prompts.append(run._question(session, "Hi", settings, given).prompt)
    for prompt in prompts:
        assert "\n\nReasoning strength: low." in model.tokenizer.decode(prompt)
    assert run._variables({"reasoning_effort": None}) == {}
    assert "--reasoning-effort" in CliRunner().invoke(run.command, ["--help"]).output
