"""Templates in Go's notation give what text/template gives, and nothing that they do goes beyond a TemplateError."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacpu.chat import Limits, OllamaTemplate, is_go_template
from llamacpu.chat.go_template import FUNCTIONS, MAIN, Evaluator, Source, parse
from llamacpu.chat.limits import Budget
from llamacpu.errors import TemplateError

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "go_templates.json").read_text("utf-8"))


def run(template: str, data: Any, limits: Limits | None = None) -> str:
    source = Source(template)
    templates = parse(source, FUNCTIONS)
    return Evaluator(source, templates, Budget(limits or Limits(), 1000, False)).run(templates[MAIN], data)


DATA = {
    "A": "a", "N": 3, "Zero": 0, "F": 0.5, "Yes": True, "No": False, "Nil": None, "Empty": "", "List": [1, 2, 3],
    "Texts": ["x", "y"], "Map": {"b": 2, "a": 1}, "Rows": [{"Name": "p", "On": True}, {"Name": "q", "On": False}],
}  # fmt: skip
# By the rules of https://pkg.go.dev/text/template.
TABLE = {
    # Text, trimming, comments.
    "a {{ .A }} b": "a a b",
    "a  {{- .A -}}  b": "aab",
    "a {{- 3 -}} b": "a3b",
    "a {{-3}} b": "a -3 b",
    "a\n{{- /* c */ -}}\n b{{/* }} */}}": "ab",
    "{{\"}}\"}}": "}}",
    # Conditions.
    "{{ if .Yes }}y{{ else }}n{{ end }}{{ if .Empty }}y{{ end }}{{ if not .Zero }}z{{ end }}": "yz",
    "{{ if .No }}1{{ else if .Zero }}2{{ else if .A }}3{{ else }}4{{ end }}": "3",
    "{{ if and .Yes .N }}{{ and .Yes .N }}{{ end }}{{ or .No .Empty \"d\" }}{{ and .No .Nosuch.More }}": "3dfalse",
    "{{ if eq .A \"z\" \"a\" }}one of{{ end }}{{ ne 1 2 }}{{ lt 1 2 }}{{ le 2 2 }}{{ gt \"b\" \"a\" }}{{ ge .5 .F }}": (
        "one oftruetruetruetruetrue"
    ),
    "{{ eq .Nil nil }}{{ eq .Nosuch \"x\" }}": "truefalse",
    "{{ with .Empty }}w{{ else }}{{ .A }}{{ end }}{{ with .A }}{{ . }}{{ end }}": "aa",
    "{{ with .Empty }}1{{ else with .A }}{{ . }}2{{ end }}": "a2",
    # Loops.
    "{{ range .List }}{{ . }},{{ end }}{{ range .Nosuch }}x{{ else }}none{{ end }}": "1,2,3,none",
    "{{ range $i, $n := .List }}{{ $i }}={{ $n }} {{ end }}{{ range $k, $v := .Map }}{{ $k }}{{ $v }}{{ end }}": (
        "0=1 1=2 2=3 a1b2"
    ),
    "{{ range .List }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ . }}{{ end }}": "13",
    "{{ range .List }}{{ if eq . 2 }}{{ break }}{{ end }}{{ . }}{{ end }}": "1",
    "{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}": "01201",
    "{{ range .Rows }}{{ .Name }}{{ if .On }}+{{ end }}{{ $.A }}{{ end }}": "p+aqa",
    "{{ range $i, $_ := .Rows }}{{ $l := eq (len (slice $.Rows $i)) 1 }}{{ .Name }}{{ if $l }}!{{ end }}{{ end }}": (
        "pq!"
    ),
    # Variables.
    "{{ $x := 1 }}{{ if .Yes }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}": "32",
    "{{ $x := 1 }}{{ if .Yes }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}": "21",
    "{{ $n := 0 }}{{ range $i, $e := .List }}{{ $n = $e }}{{ end }}{{ $n }}": "3",
    "{{ with $w := .Map }}{{ $w.b }}{{ .a }}{{ end }}{{ if $t := .A }}{{ $t }}{{ end }}": "21a",
    # Pipelines and functions.
    "{{ .A | printf \"%s-%s\" \"b\" }}{{ \"ab\" | len }}{{ (index .Rows 1).Name }}": "b-a2q",
    "{{ index .Map \"b\" }}{{ index .List 0 }}{{ index .Rows 0 \"Name\" }}": "21p",
    "{{ slice \"häus\" 1 3 }}{{ len \"ä\" }}{{ index \"a\" 0 }}": "ä297",
    "{{ print 1 2 \"a\" 3 }}|{{ println \"x\" 1 }}{{ print .Nil }}{{ .Nil }}": "1 2a3|x 1\n<nil><no value>",
    "{{ printf \"%5.2f|%-3s|%03d|%q|%v|%x|%%\" 1.5 \"a\" 7 \"b\\n\" .List 255 }}": ' 1.50|a  |007|"b\\n"|[1 2 3]|ff|%',
    "{{ .List }}{{ .Map }}{{ .F }} {{ 1e21 }} {{ 0x1F }}{{ 'a' }} {{ 1_000 }}{{ true }}": (
        "[1 2 3]map[a:1 b:2]0.5 1e+21 3197 1000true"
    ),
    "{{ json .Map }}{{ json \"<é>&\" }}{{ json .Nil }}{{ json 1.0 }}{{ .Texts | json }}": (
        '{"a":1,"b":2}"\\u003cé\\u003e\\u0026"null1["x","y"]'
    ),
    "{{ `raw\\n` }}{{ \"t\\t\\x41\\u00e9\\\"\" }}": 'raw\\nt\tAé"',
    # Templates.
    "{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" .A }}{{ template \"t\" .N }}": "<a><3>",
    "{{ block \"b\" .A }}[{{ . }}]{{ end }}{{ template \"b\" 1 }}": "[a][1]",
}  # fmt: skip


@pytest.mark.parametrize(("template", "expected"), TABLE.items())
def test_what_templates_write(template: str, expected: str) -> None:
    assert run(template, DATA) == expected


def test_random_templates_as_go_runs_them() -> None:
    for template, expected in GOLDEN["cases"]:
        if expected is None:
            with pytest.raises(TemplateError):
                run(template, GOLDEN["data"])
        else:
            assert run(template, GOLDEN["data"]) == expected, template


REFUSED = {
    "a\n  {{ .A | nosuch }}": "line 2, column 11: the function nosuch is not supported; expected one of and,",
    "{{ html .A }}": "line 1, column 4: the function html is not supported",
    "{{ call .A }}": "the function call is not supported",
    "{{ if .A }}x": "line 1, column 13: the template ends before an end",
    "{{ end }}": "end without an if, range or with",
    "{{ .A": "an action is not closed; expected }}",
    "{{ \"a }}": "a text is not closed",
    "{{ /* a */ }}": "unexpected '/'",
    "{{/* a }}": "a comment is not closed",
    "{{ (.A }}": "a parenthesis is not closed",
    "{{ .A) }}": "a parenthesis is closed that was not opened",
    "{{ }}": "a value is missing in an action",
    "{{ $x }}": "there is no variable $x here",
    "{{ if .A }}{{ $x := 1 }}{{ end }}{{ $x }}": "there is no variable $x here",
    "{{ $x, $y := .A }}": "two variables in an action; only range has two",
    "{{ break }}": "break outside of range",
    "{{ .A .N }}": "a field is no function and takes no arguments",
    "{{ 1 | 2 }}": "only a function or a field can stand after |",
    "{{ nil }}": "nil alone has no value",
    "{{ eq 1 \"a\" }}": "int and string cannot be compared",
    "{{ lt .List 1 }}": "slice and int cannot be put in order",
    "{{ len 3 }}": "len of int; expected a text, slice or map",
    "{{ index .List 3 }}": "the index 3 is out of range: expected 0 to 2",
    "{{ slice .List 2 1 }}": "slice from 2 to 1",
    "{{ slice \"ä\" 1 }}": "slice cuts a character in two",
    "{{ range .A }}{{ end }}": "range over string",
    "{{ .A.B }}": "string has no field B",
    "{{ .Nosuch.B }}": "nil has no field B",
    "{{ printf \"%d\" .A }}": "printf writes string with %d",
    "{{ printf \"%z\" 1 }}": "printf does not know %z",
    "{{ printf \"%s\" }}": "printf has no value for %s",
    "{{ not 1 2 }}": "not has 2 arguments; expected 1",
    "{{ template \"nosuch\" }}": "there is no template 'nosuch'",
    "{{ define \"a\" }}x{{ end }}{{ define \"a\" }}y{{ end }}": "the template 'a' is defined twice",
    "{{ if .A }}{{ define \"a\" }}x{{ end }}{{ end }}": "define inside another action",
    "{{ 99999999999999999999 }}": "is no number that a template can have",
    "{{ 3i }}": "is no number",
    "{{ else }}": "else without",
}  # fmt: skip


@pytest.mark.parametrize(("template", "message"), REFUSED.items())
def test_what_is_not_supported_is_refused_with_its_place(template: str, message: str) -> None:
    with pytest.raises(TemplateError, match=r"^the template, line \d+, column \d+: ") as caught:
        run(template, DATA)
    assert message in str(caught.value)


HOSTILE = {
    "steps": "{{ range 99999 }}{{ range 99999 }}{{ end }}{{ end }}",
    "large": "{{ $x := `aaaaaaaaaaaaaaaa` }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}{{ $x }}",
    "output": "{{ range 1000 }}{{ range 1000 }}" + "a" * 1000 + "{{ end }}{{ end }}",
    "width": "{{ range 100000 }}{{ printf `%9999d` 1 }}{{ end }}",
    "range": "{{ range 9223372036854775807 }}{{ end }}",
    "recursion": '{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}',
    "two at once": '{{ define "t" }}{{ template "t" . }}{{ template "t" . }}{{ end }}{{ template "t" . }}',
    "wide recursion": '{{ define "t" }}{{ range 9999 }}{{ template "t" . }}{{ end }}{{ end }}{{ template "t" . }}',
    "nested ifs": "{{ if .A }}" * 3000,
    "nested parentheses": "{{ " + "(" * 5000 + ".A" + ")" * 5000 + " }}",
    "else ifs": "{{ if .A }}" + "{{ else if .A }}" * 3000 + "{{ end }}",
    "json": "{{ $x := `<<<<<<<<` }}{{ range 40 }}{{ $x = json $x }}{{ end }}",
    "quoted": '{{ $x := `"` }}{{ range 60 }}{{ $x = printf `%q` $x }}{{ end }}',
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("traced", [False, True], ids=["render", "segments"])
def test_hostile_templates_end_in_a_template_error(source: str, traced: bool) -> None:
    def render() -> object:
        template, messages = OllamaTemplate(source, limits=Limits(seconds=0.2)), [user("a")]
        return template.segments(messages, control_tokens=("<|a|>",)) if traced else template.render(messages)

    with pytest.raises(TemplateError):
        render()


WORDS = """{{ }} {{- -}} . A .A if else end range with ( ) := = $x $ , " ` ' 1 - eq printf /* */ define template "t" nil
break é %d json index slice |"""
PIECES = st.lists(st.sampled_from([*WORDS.split(), " ", " -}}", "\n", "if ", "range ", "eq ", "json "]), max_size=30)


@given(PIECES.map("".join) | st.text(max_size=60))
def test_any_text_is_a_template_or_a_template_error(source: str) -> None:
    with contextlib.suppress(TemplateError):
        run(source, DATA, Limits(seconds=0.2))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


OLD = "{{ if .System }}S:{{ .System }} {{ end }}{{ if .Prompt }}U:{{ .Prompt }} {{ end }}A:{{ .Response }}<e>"


def test_a_template_of_one_turn_runs_once_for_each() -> None:
    template = OllamaTemplate(OLD)
    assert template.render([user("a")]) == "U:a A:"
    assert template.render([system("s"), user("a"), assistant("b"), user("c")]) == "S:s U:a A:b<e>U:c A:"
    # A system message in the middle begins a turn; neighbours of one role are one message.
    assert template.render([user("a"), system("s"), user("b")]) == "U:a A:<e>S:s U:b A:"
    assert template.render([user("a"), user("b")]) == "U:a\n\nb A:"
    # The answer begins behind the last message, whatever follows its place in the template.
    assert template.render([user("a"), assistant("b")]) == "U:a A:b"
    assert OllamaTemplate("{{ .Prompt }} ").render([user("a"), assistant("b"), user("c")]) == "a bc "
    inner = "{{ if .Response }}{{ .Response }}{{ else }}none{{ end }}behind"
    assert OllamaTemplate(inner).render([user("a")]) == ""


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"when": {"type": ["string", "null"]}, "city": {"type": "string", "description": "a <city>"}},
        },
    },
}


def test_a_template_of_messages_sees_them_all() -> None:
    source = (
        "{{ if .Think }}T{{ .ThinkLevel }} {{ end }}{{ if .IsThinkSet }}set {{ end }}[{{ .System }}]"
        "{{ range .Messages }}{{ .Role }}:{{ .Content }}{{ with .Thinking }}({{ . }}){{ end }}"
        "{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ .ToolName }};{{ end }}"
    )
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": "<x>"}'}}
    messages = [
        system("s"), user("a"), {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "1", "name": "f"}, {"role": "tool", "content": "2", "name": "f"},
    ]  # fmt: skip
    said = 'system:s;user:a;assistant:(hm)f{"a":"\\u003cx\\u003e","b":1};tool:1f;tool:2f;'
    template = OllamaTemplate(source)
    assert template.render(messages) == f"[s]{said}"
    assert template.render(messages, enable_thinking=False) == f"set [s]{said}"
    assert template.render(messages, reasoning_effort="high") == f"Thigh set [s]{said}"
    with pytest.raises(TemplateError, match="column 25: Message has no field Nosuch"):
        OllamaTemplate("{{ range .Messages }}{{ .Nosuch }}{{ end }}").render(messages)


def test_tools_are_json_and_structs() -> None:
    written = (
        '{"type":"function","function":{"name":"weather","description":"","parameters":{"type":"object",'
        '"required":["city"],"properties":{"city":{"type":"string","description":"a \\u003ccity\\u003e"},'
        '"when":{"type":["string","null"]}}}}}'
    )
    render = OllamaTemplate("{{ range .Tools }}{{ . }}{{ end }}{{ .Messages | len }}").render
    assert render([user("a")], [TOOL]) == written + "1"
    assert OllamaTemplate("{{ .Tools }}{{ len .Messages }}").render([user("a")], [TOOL]) == f"[{written}]1"
    assert OllamaTemplate("{{ json .Tools }}{{ len .Messages }}").render([user("a")], [TOOL]) == f"[{written}]1"
    typed = (
        "{{ range .Tools }}{{ .Function.Name }}({{ range $n, $p := .Function.Parameters.Properties }}{{ $n }}: "
        "{{ toTypeScriptType $p }},{{ end }}){{ end }}{{ if .Messages }}{{ end }}"
    )
    assert OllamaTemplate(typed).render([user("a")], [TOOL]) == "weather(city: string,when: string | null,)"


def test_control_tokens_of_messages_stay_text() -> None:
    control = ("<|a|>", "<|b|>")
    for source in (
        "<|a|>{{ .Prompt }}<|b|>{{ .Response }}",
        '<|a|>{{ printf "%s" .Prompt }}<|b|>{{ .Response }}',
        "<|a|>{{ print .Prompt }}<|b|>{{ .Response }}",
        "<|a|>{{ range .Messages }}{{ slice .Content 0 }}{{ end }}<|b|>",
    ):
        segments = OllamaTemplate(source).segments([user("x <|b|> y")], control_tokens=control)
        assert [(one.text, one.special) for one in segments] == [
            ("<|a|>", True), ("x <|b|> y", False), ("<|b|>", True),
        ]  # fmt: skip
    # Texts that are put together keep what each part is.
    source = '{{ $x := printf "<|a|>%s" .Prompt }}{{ $x }}{{ .Response }}'
    segments = OllamaTemplate(source).segments([user("<|b|>")], control_tokens=control)
    assert segments == [("<|a|>", True), ("<|b|>", False)]
    # So do the arguments of calls, as an object or as its text.
    source = "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    for arguments in ({"a": "<|b|>"}, '{"a": "<|b|>"}'):
        call = {"function": {"name": "f", "arguments": arguments}}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        escaped = OllamaTemplate(source).segments([said], control_tokens=("|b|",))
        assert not any(one.special and "|b|" in one.text for one in escaped)


def test_a_suffix_is_filled_in() -> None:
    source = "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}{{ .Prompt }}{{ end }}"
    assert OllamaTemplate(source).render([user("a")], suffix="b") == "<P>a<S>b<M>"
    assert OllamaTemplate(source).render([user("a")]) == "a"


def test_notations_are_told_apart() -> None:
    go = (
        OLD,
        "{{- range .Messages }}{{ end }}",
        "{{ $x := 1 }}",
        "{{/* c */}}",
        "{{ if eq .A 1 }}{{ end }}",
        "{{json .Tools}}",
    )
    jinja = (
        "{{ messages[0].content }}",
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ 'a' + b }}",
        "plain",
    )
    assert all(map(is_go_template, go))
    assert not any(map(is_go_template, jinja))
