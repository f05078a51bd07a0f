"""Conversations as clients send them, and as the product returned them, are rendered by every template."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chats import chat
from llamacpu.chat import Chat
from llamacpu.chat.answer import AnswerReader, Piece, ToolCall
from llamacpu.chat.builtin import BUILTINS, builtin, source_of
from llamacpu.errors import TemplateError

GOLDEN = Path(os.environ.get("LLAMACPU_GOLDEN", Path(__file__).parents[2] / "shared" / "golden")) / "templates"
PUBLISHED = sorted(GOLDEN.glob("*.jinja")) if GOLDEN.is_dir() else []
SOURCES = {
    **{name: source_of(builtin(name)) for name in BUILTINS if name != "llama-guard"},
    **{path.stem: path.read_text(encoding="utf-8") for path in PUBLISHED},
}
# These drop system messages without a word; those raise for them.
DROPS = "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
REFUSES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
TOOLS = [{"type": "function", "function": {"name": "add"}}, {"name": "bare"}]


@functools.cache
def of(source: str) -> Chat:
    return chat({"tokenizer.chat_template": source}, ["<s>", "</s>"])


def call(name: str, identity: str | None, arguments: Any = '{"a": 1}') -> dict[str, Any]:
    found = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return found if identity is None else {"id": identity, **found}


def result(text: Any, identity: str | None) -> dict[str, Any]:
    return {"role": "tool", "content": text, **({} if identity is None else {"tool_call_id": identity})}


HISTORY = [
    {"role": "user", "content": "begin"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("first", "call_1abcdefghijk"), call("second", "call_2abcdefghijk", {"b": [None]})],
    },
    result("two-out", "call_2abcdefghijk"),
    result([{"type": "text", "text": "one-out"}], "call_1abcdefghijk"),
    {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
    {"role": "user", "content": [{"type": "text", "text": "again"}]},
]
every = pytest.mark.parametrize("name", SOURCES)


@every
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
def test_several_calls_and_their_results(name: str, tools: Any) -> None:
    text = of(SOURCES[name]).render(HISTORY, tools=tools)
    shown = ["begin", "first", "second", "one-out", "two-out", "again"]
    assert [word for word in shown if word not in text] == []
    if "only supports single" in SOURCES[name] or "one tool call in a turn" in SOURCES[name]:
        # Call and result turn by turn, whatever the order of the results.
        assert sorted(shown[1:5], key=text.index) == ["first", "one-out", "second", "two-out"]


@every
@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_messages_are_shown(name: str, role: str) -> None:
    messages = [{"role": role, "content": "be-brief"}, *HISTORY[:1]]
    text = of(SOURCES[name]).render(messages)
    assert text.count("be-brief") == 1
    assert text.index("be-brief") < text.index("begin")
    # The harmony format has a role of that name for what a system message says.
    assert "developer" not in text.replace("<|start|>developer", "")


@every
def test_no_content_is_no_text(name: str) -> None:
    for role in ("system", "user", "assistant"):
        messages = [{"role": "user", "content": "begin"}, {"role": "assistant", "content": None}]
        messages += [{"role": "user", "content": "go on"}]
        messages = [{"role": role, "content": None} if m["role"] == role else m for m in messages]
        assert "None" not in of(SOURCES[name]).render(messages)
    lone = [HISTORY[0], {"role": "assistant", "tool_calls": [call("first", None)]}, result(None, None)]
    assert "None" not in of(SOURCES[name]).render(lone)


@every
def test_the_older_form_of_calls(name: str) -> None:
    older = [
        HISTORY[0],
        {"role": "assistant", "content": None, "function_call": {"name": "first", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "first", "content": "one-out"},
    ]
    text = of(SOURCES[name]).render(older, tools=TOOLS)
    assert [word for word in ("begin", "first", "one-out") if word not in text] == []


@pytest.mark.parametrize("source", [DROPS, REFUSES], ids=["dropped", "refused"])
def test_system_messages_without_a_place_go_before_the_users(source: str, caplog: pytest.LogCaptureFixture) -> None:
    found = of(source)
    for _ in range(2):
        text = found.render([{"role": "system", "content": "be-brief"}, {"role": "user", "content": "Hi"}])
        assert text == "<user>be-brief\n\nHi"
    assert caplog.text.count("system messages") == 1
    assert found.render([{"role": "system", "content": "be-brief"}]) == "<user>be-brief"


def test_a_system_message_that_the_template_changes_is_not_moved(caplog: pytest.LogCaptureFixture) -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content|replace('/think', '')|upper }}{% endfor %}"
    text = of(source).render([{"role": "system", "content": "be /think brief"}, {"role": "user", "content": "Hi"}])
    assert text == "<system>BE  BRIEF<user>HI"
    assert not caplog.text


def test_ids_that_mistral_wants() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id|length != 9 %}{{ raise_exception('id') }}"
        "{% endif %}({{ c.function.name }} {{ c.id }}){% endfor %}{% if m.role == 'tool' %}"
        "{% if m.tool_call_id|length != 9 %}{{ raise_exception('id') }}{% endif %}"
        "[{{ m.content }} {{ m.tool_call_id }}]{% else %}{{ m.content }}{% endif %}{% endfor %}{{ tools and '' }}"
    )
    text = of(source).render(HISTORY)
    first, second = (text[text.index(name) :].split()[1].split(")")[0] for name in ("(first", "(second"))
    assert first != second
    assert f"[one-out {first}]" in text
    assert f"[two-out {second}]" in text
    assert text == of(source).render(HISTORY)
    kept = [HISTORY[0], {"role": "assistant", "tool_calls": [call("first", "abcDEF123")]}, result("x", "abcDEF123")]
    assert "(first abcDEF123)[x abcDEF123]" in of(source).render(kept)
    without = [HISTORY[0], {"role": "assistant", "tool_calls": [call("f", None), call("g", None)]}]
    text = of(source).render([*without, result("x", None), result("y", None)])
    for name, out in (("f", "x"), ("g", "y")):
        assert f"[{out} {text.split(f'({name} ')[1][:9]}]" in text


def test_tools_with_less_than_a_template_reads() -> None:
    source = (
        "{% for t in tools or [] %}{{ t.function.name + t.function.description }}"
        "{{ t.function.parameters.properties|length }}{% endfor %}"
    )
    assert of(source).render([], tools=TOOLS) == "add0bare0"


@every
@pytest.mark.parametrize(
    "returned",
    [{"degrees": 21, "rain": None}, [{"type": "city", "name": "Oslo"}, True]],
    ids=["object", "list"],
)
def test_what_a_tool_returns_is_shown_as_json(name: str, returned: Any) -> None:
    messages = [HISTORY[0], {"role": "assistant", "tool_calls": [call("first", "id1")]}, result(returned, "id1")]
    text = of(SOURCES[name]).render(messages, tools=TOOLS)
    written = json.dumps(returned)
    assert written in text or json.dumps(written)[1:-1] in text


@every
def test_a_conversation_may_begin_with_the_assistant(name: str) -> None:
    text = of(SOURCES[name]).render([{"role": "assistant", "content": "how-can-I-help"}, HISTORY[0]])
    assert -1 < text.find("how-can-I-help") < text.rindex("begin")


@every
def test_tools_are_shown_whoever_spoke(name: str) -> None:
    text = of(SOURCES[name]).render([{"role": "system", "content": "be-brief"}], tools=TOOLS)
    assert [word for word in ("be-brief", "add", "bare") if word not in text] == []


def test_text_that_a_template_leaves_out_beside_a_call_is_told(caplog: pytest.LogCaptureFixture) -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% else %}{{ m.content }}"
        "{% endfor %}{% endfor %}"
    )
    message = {"role": "assistant", "content": "I-look", "tool_calls": [call("first", "id1")]}
    for _ in range(2):
        assert of(source).render([HISTORY[0], {**message, "content": None}, result("out", "id1")]) == "beginfirstout"
    assert not caplog.text
    found = of(source)
    for _ in range(2):
        assert found.render([HISTORY[0], message, result("out", "id1")]) == "beginfirstout"
    assert caplog.text.count("leaves out the text of messages that call tools") == 1


@pytest.mark.parametrize("content", [{"a": 1}, [{"a": 1}], b"text", [1], object()])
def test_content_that_is_no_text(content: Any) -> None:
    with pytest.raises(TemplateError, match="content of the type"):
        of(DROPS).render([{"role": "user", "content": content}])


def test_arguments_with_half_a_surrogate_pair_can_be_sent_back() -> None:
    reader = AnswerReader(["f"])
    (found,) = reader.push('<tool_call>{"name": "f", "arguments": {"a": "\\ud83d", "b": ["x"]}}</tool_call>')
    assert isinstance(found, ToolCall)
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "{{ c.function.arguments.a }}{{ c.function.arguments.b[0] }}{% endfor %}{% endfor %}{{ tools and '' }}"
    )
    sent = {"id": found.id, "type": "function", "function": {"name": "f", "arguments": found.arguments}}
    text = of(source).render([HISTORY[0], {"role": "assistant", "tool_calls": [sent]}])
    assert "f\N{REPLACEMENT CHARACTER}x" in text


def test_what_is_no_message() -> None:
    for wrong in ([1], [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "user", "tool_calls": [1]}]):
        with pytest.raises(TemplateError):
            of(DROPS).render(wrong)  # type: ignore[arg-type]


FRAGMENTS = [
    "Hi ", "<think>", "</think>", '{"name": "add", "arguments": {"a": 1}}', "[add(a=1e999)]", "[add(a=[{}])]", "\n",
    "{",
    '<tool_call>{"name": "add\\"x", "arguments": null}</tool_call>', "```json\n", "```",
    '<function name="add"><param name="a">x</param></function>',
    '[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": "\\ud83d"}',
]  # fmt: skip
pieces = st.lists(st.sampled_from(FRAGMENTS), max_size=5).map("".join)
CHATS = {name: of(source) for name, source in SOURCES.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces, st.booleans())
def test_what_was_returned_can_be_sent_back(text: str, legacy: bool) -> None:
    reader = AnswerReader(["add"])
    events = reader.push(text) + reader.finish()
    calls = [event for event in events if isinstance(event, ToolCall)]
    content = "".join(e.text for e in events if isinstance(e, Piece) and e.kind == "content")
    message: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
    message["reasoning_content"] = "".join(e.text for e in events if isinstance(e, Piece) and e.kind == "reasoning")
    if calls:
        message["tool_calls"] = [call(c.name, c.id, c.arguments) for c in calls]
        if legacy:
            message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    messages = [HISTORY[0], json.loads(json.dumps(message)), *(result("out", c.id) for c in calls)]
    for found in CHATS.values():
        assert "Infinity" not in found.render(messages, tools=TOOLS)
        found.render([*messages[:2], {"role": "user", "content": "Go on"}])


CALLING = {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [call("add", "c1")]}
SHOWN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content }}|{{ m.content }}|{{ m.end_turn }}|"
    "{{ m.tool_calls | length }}{% endfor %}"
)


def test_text_next_to_calls_is_a_message_where_a_template_knows_such() -> None:
    found = of(SHOWN).render([CALLING, result("3", "c1")])
    assert found == "<assistant>Hm.|I look.|False|0<assistant>||None|1<tool>|3||0".replace("None", "")


PARTS = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{{ '[THINK]' + part.thinking + '[/THINK]' if part.type == 'thinking' else part.text }}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %};{% endfor %}"
)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_a_part_of_the_content_where_a_template_reads_it_there(key: str) -> None:
    calling = {"role": "assistant", "content": None, key: "Hm.", "tool_calls": [call("add", "c1")]}
    answer = {"role": "assistant", "content": "Yes", key: "So."}
    found = of(PARTS).render([{"role": "user", "content": "Q"}, calling, result({"n": 3}, "c1"), answer])
    assert found == 'Q;[THINK]Hm.[/THINK]add;{"n": 3};[THINK]So.[/THINK]Yes;'


RESPONSES = (
    "{% for m in messages %}<{{ m.role }}>{% for c in m.tool_calls or [] %}{{ c.function.name }};{% endfor %}"
    "{% for r in m.tool_responses or [] %}{{ r.name }}={{ r.response }};{% endfor %}{{ m.content }}{% endfor %}"
)


def test_results_are_in_the_message_that_called_where_a_template_reads_them_there() -> None:
    calls = [call("first", "c1"), call("second", "c2")]
    calling = {"role": "assistant", "content": None, "tool_calls": calls}
    for results in ([result("2", "c2"), result("1", "c1")], [result("1", None), result("2", None)]):
        conversation = [calling, *results, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "Q"}]
        found = of(RESPONSES).render(conversation)
        assert found.startswith("<assistant>first;second;")
        assert sorted(found.partition("second;")[2].partition("Yes")[0].split(";")) == ["", "first=1", "second=2"]
        assert found.endswith("Yes<user>Q")


def test_reasoning_between_tags_is_reasoning_where_a_template_knows_no_tags() -> None:
    answer = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes"}
    assert of(SHOWN + "{# to=self #}").render([answer]) == "<assistant>Hm.|Yes||0"
    assert "<think>" in of(SHOWN).render([answer])


def test_a_turn_of_the_model_begins_behind_every_other_turn() -> None:
    ends = "{% for m in messages %}<|turn>{{ m.role }}\n{{ m.content }}<turn|>\n{% endfor %}"
    assert of(ends).render([{"role": "user", "content": "Q"}]).endswith("Q<turn|>\n<|turn>model\n")
    thought = ends + "<|channel>thought\n<channel|>"
    found = of(thought).render([{"role": "user", "content": "Q"}])
    assert found.endswith("Q<turn|>\n<|turn>model\n<|channel>thought\n<channel|>")
    assert of(ends).render([{"role": "user", "content": "Q"}], add_generation_prompt=False).endswith("Q<turn|>\n")
