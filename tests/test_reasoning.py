"""Reasoning: it is told apart from the answer, and what an answer must look like begins behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from fake_llama import Model, Tokens, Writer, llama
from fake_model import CONTROL, END, START, ids_of
from llamacpu.answers import answer as run_answer
from llamacpu.answers import chat_prompt, chat_question
from llamacpu.chat import Chat
from llamacpu.chat.answer import AnswerReader, Piece
from llamacpu.chat.reasoning import ANYWHERE, REASONING_TAGS, may_begin_inside, open_reasoning
from llamacpu.constraints.after_reasoning import AfterReasoning
from llamacpu.constraints.tool_constraint import ToolCallConstraint
from llamacpu.sampling import Sampling

__all__ = ["llama"]
USER = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
CALL = '{"name": "f", "parameters": {"n": 1}}'
THOUGHT = "Hm, {so} [f(x)]."


def template(end: str) -> str:
    return (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}"
        + end
        + "{% endif %}"
    )


def answer(found: Any, stream: bool) -> dict[str, Any]:
    """The message of a whole answer, or what the chunks of a streamed one add up to."""
    if not stream:
        choice = found["choices"][0]
        message = {**choice["message"], "finish_reason": choice["finish_reason"]}
    else:
        message = {"content": "", "finish_reason": None}
        for chunk in found:
            choice = chunk["choices"][0]
            message["finish_reason"] = choice["finish_reason"]
            for key in ("content", "reasoning_content"):
                if choice["delta"].get(key):
                    message[key] = message.get(key, "") + choice["delta"][key]
            for call in choice["delta"].get("tool_calls", ()):
                message.setdefault("tool_calls", []).append(call)
    calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls", ())]
    return {
        "content": message.get("content") or "",
        "reasoning": message.get("reasoning_content", ""),
        "calls": calls,
        "reason": message["finish_reason"],
    }


def ask(model: Any, stream: bool, **settings: Any) -> dict[str, Any]:
    settings = {"temperature": 0.0, "max_tokens": 200, **settings}
    return answer(model.create_chat_completion(USER, stream=stream, **settings), stream)


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
needs_schemas = pytest.mark.skipif(find_spec("llguidance") is None, reason="llguidance is not installed")


@needs_schemas
@both
@pytest.mark.parametrize("tags", REASONING_TAGS, ids=[opening for opening, _ in REASONING_TAGS])
@pytest.mark.parametrize("space", ["", "\n", "\n\n"])
def test_a_schema_begins_behind_the_reasoning(
    llama: Callable[..., Any], stream: bool, tags: tuple[str, str], space: str
) -> None:
    model = llama(f'{THOUGHT}{space}{tags[1]}{{"n": 12}}', template(tags[0] + space))
    found = ask(model, stream, response_format=FORMAT)
    assert found == {"content": '{"n": 12}', "reasoning": THOUGHT, "calls": [], "reason": "stop"}


@needs_schemas
@both
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "f"}}], ids=["required", "named"]
)
def test_a_forced_call_begins_behind_the_reasoning(llama: Callable[..., Any], stream: bool, choice: Any) -> None:
    found = ask(llama(f"{THOUGHT}</think>{CALL}", template("<think>\n")), stream, tools=TOOLS, tool_choice=choice)
    assert found == {"content": "", "reasoning": THOUGHT, "calls": [("f", {"n": 1})], "reason": "tool_calls"}


@needs_schemas
@both
def test_a_grammar_begins_behind_the_reasoning(llama: Callable[..., Any], stream: bool) -> None:
    from llamacpu.constraints.grammar import Grammar

    model = llama(f"{THOUGHT}</think>no, yes", template("<think>"))
    found = ask(model, stream, grammar=Grammar.gbnf('root ::= "yes" | "no"'))
    assert (found["content"], found["reasoning"]) == ("no", THOUGHT)
    # Where reasoning is not told apart, it is a part of the text; the grammar begins behind it nevertheless.
    found = ask(model, stream, grammar=Grammar.gbnf('root ::= "yes" | "no"'), reasoning=False)
    assert (found["content"], found["reasoning"]) == (f"{THOUGHT}</think>no", "")


@needs_schemas
@both
def test_reasoning_that_the_template_has_closed_is_none(llama: Callable[..., Any], stream: bool) -> None:
    source = template("<think>\n{% if enable_thinking is false %}\n</think>\n\n{% endif %}")
    settings = {"template_variables": {"enable_thinking": False}, "response_format": FORMAT}
    found = ask(llama('{"n": 3}', source), stream, **settings)
    assert found == {"content": '{"n": 3}', "reasoning": "", "calls": [], "reason": "stop"}
    called = {"template_variables": {"enable_thinking": False}, "tools": TOOLS, "tool_choice": "required"}
    assert ask(llama(CALL, source), stream, **called)["calls"] == [("f", {"n": 1})]


@needs_schemas
@both
def test_an_answer_that_is_cut_off_while_reasoning(llama: Callable[..., Any], stream: bool) -> None:
    model = llama("x" * 100, template("<think>"))
    for settings in ({"response_format": FORMAT}, {"tools": TOOLS, "tool_choice": "required"}, {}):
        found = ask(model, stream, max_tokens=20, **settings)
        assert found == {"content": "", "reasoning": "x" * 20, "calls": [], "reason": "length"}


@needs_schemas
@both
def test_an_answer_does_not_end_before_it_has_begun(llama: Callable[..., Any], stream: bool) -> None:
    # The model wants to end within its reasoning: the tag is written for it, and the answer follows.
    found = ask(llama("Hm", template("<think>")), stream, tools=TOOLS, tool_choice="required")
    assert found["reasoning"] == "Hm"
    assert [name for name, _ in found["calls"]] == ["f"]
    half = ask(llama("Hm</thi", template("<think>")), stream, tools=TOOLS, tool_choice="required")
    assert (half["reasoning"], len(half["calls"])) == ("Hm", 1)


@both
def test_reasoning_that_nothing_has_opened_ends(llama: Callable[..., Any], stream: bool) -> None:
    # A template that speaks of the tag is that of a model that may do so.
    source = template("{# </think> #}")
    found = ask(llama("Hm.\n</think>\n\nYes", source), stream)
    assert (found["content"], found["reasoning"]) == ("Yes", "Hm.")
    call = ask(llama(f"Hm.</think>{CALL}", source), stream, tools=TOOLS)
    assert (call["content"], call["reasoning"], call["calls"]) == ("", "Hm.", [("f", {"n": 1})])
    plain = ask(llama("What <think> and </think> mean", source), stream)
    assert (plain["content"], plain["reasoning"]) == ("What <think> and </think> mean", "")


@needs_schemas
@both
def test_strict_tools_behind_reasoning(llama: Callable[..., Any], stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}}]
    wish = '{"name": "f", "parameters": {"n": "no"}}'
    for end, said in (("[THINK]", f"{wish}[/THINK]"), ("<think>", f"{wish}</think>")):
        found = ask(llama(said + wish, template(end)), stream, tools=tools)
        assert found["reasoning"] == wish
        assert [name for name, _ in found["calls"]] == ["f"]
        assert isinstance(found["calls"][0][1]["n"], int)


def test_where_a_prompt_ends() -> None:
    for opening, closing in REASONING_TAGS:
        assert open_reasoning(f"<|assistant|>{opening}\n") == closing
        assert open_reasoning(f"<|assistant|>{opening}\n\n{closing}\n\n") is None
        always_opened = closing in ANYWHERE.values()
        assert may_begin_inside("<|assistant|>", f"{{% if '{closing}' in x %}}", streamed=True) is not always_opened
        assert not may_begin_inside(f"<|assistant|>{opening}{closing}\n", closing, streamed=False)
    assert open_reasoning("<|assistant|>") is None
    assert may_begin_inside("<|assistant|>", "", streamed=False)
    assert not may_begin_inside("<|assistant|>", "", streamed=True)


class WithLongTokens(Tokens):
    """Bytes, and tokens that go on behind the closing tag."""

    long: dict[int, bytes]

    def __init__(self) -> None:
        super().__init__()
        self.long = {self.vocab_size: b'k>{"', self.vocab_size + 1: b"k>\n\n", self.vocab_size + 2: b"</think>"}
        self.vocab_size += len(self.long)

    def decode_bytes(self, ids: Any, skip_special: bool = False) -> bytes:
        return b"".join(self.long.get(i) or super(WithLongTokens, self).decode_bytes([i], skip_special) for i in ids)


def test_no_token_holds_both_reasoning_and_answer() -> None:
    tokens = WithLongTokens()
    both, spaces, tag = tokens.long
    calls: list[int] = []

    def inner(ids: Any, logits: Any) -> Any:
        calls.append(len(ids))
        return logits

    constraint = AfterReasoning(lambda: inner, tokens, "</think>")  # type: ignore[arg-type]
    ids = [START, *ids_of("</thin")]
    for length in range(1, len(ids) + 1):
        logits = constraint(np.array(ids[:length]), np.zeros(tokens.vocab_size, dtype=np.float32))
        assert logits[spaces] == logits[tag] == 0
    assert logits[both] == -np.inf
    assert logits[END] == -np.inf
    assert not constraint.begun
    constraint(np.array([*ids, spaces]), np.zeros(tokens.vocab_size, dtype=np.float32))
    assert calls == [len(ids) + 1]
    assert constraint.begun


def test_the_tag_in_a_constraint_of_strict_tools() -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}}]
    tokens = Tokens()
    constraint = ToolCallConstraint(tools, tokens, "[/THINK]")  # type: ignore[arg-type]
    ids = [START]
    for token in ids_of('{"name": "g"} </think> {"name"[/THINK]{"name": "'):
        assert constraint(np.array(ids), np.zeros(tokens.vocab_size, dtype=np.float32))[token] == 0
        ids.append(token)
    logits = constraint(np.array(ids), np.zeros(tokens.vocab_size, dtype=np.float32))
    assert logits[ids_of("f")[0]] == 0
    assert logits[ids_of("g")[0]] == -np.inf
    assert logits[CONTROL] == -np.inf


def test_an_unopened_tag_is_never_shown() -> None:
    reader = AnswerReader()
    assert [*reader.push("Hm"), *reader.push("</th"), *reader.push("ink> Yes"), *reader.finish()] == [
        Piece("content", "Hm"),
        Piece("content", " Yes"),
    ]


@pytest.mark.parametrize(
    "content", ["The answer", [{"type": "text", "text": "The "}, {"type": "text", "text": "answer"}]]
)
@pytest.mark.parametrize("end", ["<assistant>", "<assistant><think>\n"])
def test_a_begun_answer_goes_on_behind_its_reasoning(end: str, content: Any) -> None:
    model: Any = Model(Writer(" is 4."))
    chat = Chat({}, model.tokenizer, template(end))
    last = {"role": "assistant", "content": content, "reasoning_content": "Two and two."}
    prompt = chat_prompt(chat, [*USER, last], continue_last=True)
    thought = "Two and two.\n</think>\n\n" if "think" in end else ""
    assert model.tokenizer.decode(prompt.ids).endswith(f"<user>Hi{end}{thought}The answer")
    question = chat_question(chat, prompt, sampling=Sampling(temperature=0), streamed=True)
    running = run_answer(model.session(), question)
    # All of it is content, as it comes.
    kinds = [event.kind for event in running]
    assert set(kinds) == {"content"}
    assert len(kinds) > 3
    assert running.answer.content == " is 4."


@pytest.mark.parametrize("messages", [[], USER, [*USER, {"role": "assistant", "content": None}]])
def test_nothing_is_no_beginning_of_an_answer(messages: list[dict[str, Any]]) -> None:
    model: Any = Model(Writer("x"))
    chat = Chat({}, model.tokenizer, template("<assistant>"))
    with pytest.raises(ValueError, match="no answer to continue"):
        chat_prompt(chat, messages, continue_last=True)
