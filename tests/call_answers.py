"""Answers of models of every family, and what they are taken apart into: reasoning, content and tool calls."""

# ruff: noqa: E501, RUF001 (answers as they are)

from __future__ import annotations

from typing import Any

WEATHER = ("get_weather", {"city": "Paris"})
ADD = ("add", {"a": 1})
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("Hello there.", {"content": "Hello there."}),
    "Llama 3.1": ('{"name": "get_weather", "parameters": {"city": "Paris"}}', {"calls": [WEATHER]}),
    "leading blanks": ('\n\n{"name": "get_weather", "parameters": {"city": "Paris"}}\n', {"calls": [WEATHER]}),
    "with a type": (
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        {"calls": [WEATHER]},
    ),
    "as OpenAI writes it": (
        '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}}',
        {"calls": [WEATHER]},
    ),
    "several": (
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "add", "arguments": {"a": "1"}}',
        {"calls": [WEATHER, ("add", {"a": "1"})]},
    ),
    "python tag": ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', {"calls": [WEATHER]}),
    "built-in": ('<|python_tag|>brave_search.call(query="a \\"b\\"")', {"calls": [("brave_search", {"query": 'a "b"'})]}),
    "code": ("<|python_tag|>print(1)\nx = [2", {"calls": [("code_interpreter", {"code": "print(1)\nx = [2"})]}),
    "pythonic": (
        '[get_weather(city="Paris"), add(a=-1, b=[1.5, {"c": None}], d=True, e=false)]',
        {"calls": [WEATHER, ("add", {"a": -1, "b": [1.5, {"c": None}], "d": True, "e": False})]},
    ),
    "dotted": ("[spotify.trending(n=20)]", {"calls": [("spotify.trending", {"n": 20})]}),
    "Llama 4": ('<|python_start|>[get_weather(city="Paris")]<|python_end|>', {"calls": [WEATHER]}),
    "Llama 4 JSON": (
        'Let me look.<|python_start|>{"name": "get_weather", "parameters": {"city": "Paris"}}<|python_end|>',
        {"content": "Let me look.", "calls": [WEATHER]},
    ),
    "Hermes": ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', {"calls": [WEATHER]}),
    "Qwen": (
        'I will.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>',
        {"content": "I will.", "calls": [WEATHER, ("add", {})]},
    ),
    "unclosed": ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}', {"calls": [WEATHER]}),
    "Mistral": (
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}, '
        '{"name": "add", "arguments": {"a": 1}}]',
        {"calls": [WEATHER, ("add", {"a": 1})]},
    ),
    "Mistral 11": (
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]add{"a": 1}',
        {"calls": [WEATHER, ("add", {"a": 1})]},
    ),
    "tagged": (
        '<function=get_weather>{"city": "Paris"}</function><function=add>{"a": 1}</function>',
        {"calls": [WEATHER, ("add", {"a": 1})]},
    ),
    "DeepSeek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        {"calls": [WEATHER]},
    ),
    "reasoning": ("<think>\nHm, {x}\n</think>\n\nYes.", {"reasoning": "Hm, {x}", "content": "Yes."}),
    "reasoning and a call": (
        '<think>So.</think>\n<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>',
        {"reasoning": "So.", "calls": [("add", {"a": 1})]},
    ),
    "reasoning without an end": ("<think>Hm", {"reasoning": "Hm"}),
    "Magistral": ("[THINK]Hm[/THINK]Yes", {"reasoning": "Hm", "content": "Yes"}),
    "unknown function": ('{"name": "other", "parameters": {}}', {"content": '{"name": "other", "parameters": {}}'}),
    "other JSON": ('{"answer": 42}', {"content": '{"answer": 42}'}),
    "other list": ("[1, 2, 3]", {"content": "[1, 2, 3]"}),
    "link": ("[text](http://a.b/c)", {"content": "[text](http://a.b/c)"}),
    "half a call": ('{"name": "get_weather", "para', {"content": '{"name": "get_weather", "para'}),
    "not a literal": ("[get_weather(city=open('x'))]", {"content": "[get_weather(city=open('x'))]"}),
    "positional": ("[get_weather('Paris')]", {"content": "[get_weather('Paris')]"}),
    "broken in tags": ("<tool_call>\nnope\n</tool_call>", {"content": "\nnope\n"}),
    "a lone bracket": ("a < b and [", {"content": "a < b and ["}),
    "words of Python": ('[get-x(from="a", class=1, in=[2], not=None)]', {"calls": [("get-x", {"from": "a", "class": 1, "in": [2], "not": None})]}),
    "names of every kind": (
        '[2fa_check(a=1), a/b(a=1), ключ(a=1)]',
        {"calls": [("2fa_check", {"a": 1}), ("a/b", {"a": 1}), ("ключ", {"a": 1})]},
    ),
    "such a name in JSON": ('{"name": "a/b", "parameters": {"a": 1}}', {"calls": [("a/b", {"a": 1})]}),
    "such a name in a tag": ('<function=2fa_check>{"a": 1}</function>', {"calls": [("2fa_check", {"a": 1})]}),
    "such a name before JSON": ('[TOOL_CALLS]ключ[ARGS]{"a": 1}', {"calls": [("ключ", {"a": 1})]}),
    "a closing tag in a string": (
        '<tool_call>{"name": "add", "arguments": {"s": "</tool_call> \\" </tool_call>"}}</tool_call>Yes',
        {"calls": [("add", {"s": '</tool_call> " </tool_call>'})], "content": "Yes"},
    ),
    "tags in strings of every notation": (
        '<function=add>{"s": "</function>"}</function><|python_start|>[add(s="<|python_end|>")]<|python_end|>'
        '[TOOL_CALLS][{"name": "add", "arguments": {"s": "[TOOL_CALLS]"}}][TOOL_CALLS]add[ARGS]{"s": "[TOOL_CALLS]x[ARGS]"}',
        {"calls": [("add", {"s": s}) for s in ("</function>", "<|python_end|>", "[TOOL_CALLS]", "[TOOL_CALLS]x[ARGS]")]},
    ),
    "Mistral Small 3.2": (
        '[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{"city": "Paris"}[TOOL_CALLS]add[CALL_ID]123456789[ARGS]{"a": 1}',
        {"calls": [WEATHER, ADD]},
    ),
    "functionary": ('>>>all\nLet me see.\n>>>get_weather\n{"city": "Paris"}>>>add\n{"a": 1}', {"content": "Let me see.", "calls": [WEATHER, ADD]}),
    "functionary's code": (">>>code_interpreter\nprint(1)\n", {"calls": [("code_interpreter", {"code": "print(1)"})]}),
    "a prompt of Python's": (">>> add(1)\n>>>other\nx", {"content": ">>> add(1)\n>>>other\nx"}),
    "MiniCPM": (
        '<function name="get_weather"><param name="city">Paris</param></function><function name="add"><param name="a">1</param></function>',
        {"calls": [WEATHER, ADD]},
    ),
    "Qwen Coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", {"calls": [WEATHER]},
    ),
    "GLM": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>"
        "<tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>", {"calls": [WEATHER, ADD]},
    ),
    "GLM, without arguments": ("<tool_call>add\n</tool_call>", {"calls": [("add", {})]}),
    "GLM, of something else": ("<tool_call>other\n</tool_call>", {"content": "other\n"}),
    "DeepSeek, newer": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
        '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        {"calls": [WEATHER, ADD]},
    ),
    "a tag in an element": (
        '<function name="get_weather"><param name="city">a </function> b</param></function>',
        {"calls": [("get_weather", {"city": "a </function> b"})]},
    ),
    "a fence": ('Sure:\n```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```\nThere.', {"content": "Sure:\nThere.", "calls": [WEATHER]}),
    "another fence": ('Sure:\n~~~json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n~~~\nThere.', {"content": "Sure:\nThere.", "calls": [WEATHER]}),
    "another fence, with fences inside": (
        '~~~\n```\n{"name": "add"}\n```\n~~~\n{"name": "add", "arguments": {"a": 1}}',
        {"content": '~~~\n```\n{"name": "add"}\n```\n~~~', "calls": [ADD]},
    ),
    "a fence that is not closed by another": ('```json\n{"name": "add"}\n~~~', {"content": '```json\n{"name": "add"}\n~~~'}),
    "a list in a fence": ('```\n[{"name": "get_weather", "arguments": {"city": "Paris"}},\n{"name": "add", "arguments": {"a": 1}}]\n```', {"calls": [WEATHER, ADD]}),
    "a fence of other JSON": ('```json\n{"name": "other"}\n```', {"content": '```json\n{"name": "other"}\n```'}),
    "a fence of Python": ("```python\n [add(a=1)]\n```", {"content": "```python\n [add(a=1)]\n```"}),
    "text around a call": (
        'I look it up. {"name": "get_weather", "parameters": {"city": "Paris"}} Wait.',
        {"content": "I look it up. Wait.", "calls": [WEATHER]},
    ),
    "one bad call": (
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "add", "arguments": {x}}, {"name": "add", "arguments": {"a": 1}}]',
        {"content": '{"name": "add", "arguments": {x}}', "calls": [WEATHER, ADD]},
    ),
    "one without arguments that are any": (
        '[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "add", "arguments": 3}]',
        {"content": '{"name": "add", "arguments": 3}', "calls": [WEATHER]},
    ),
    "one bad call in Python": ('[get_weather(city="Paris"), add(3), add(a=1)]', {"content": "add(3)", "calls": [WEATHER, ADD]}),
    "Phi 4 mini": (
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "add", "arguments": {"a": 1}}]<|/tool_call|>',
        {"calls": [WEATHER, ADD]},
    ),
    "Granite 3": ('<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', {"calls": [WEATHER]}),
    "Command R7B": (
        '<|START_THINKING|>I will.<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}},'
        '\n    {"tool_call_id": "1", "tool_name": "add", "parameters": {"a": 1}}\n]<|END_ACTION|>',
        {"reasoning": "I will.", "calls": [WEATHER, ADD]},
    ),
    "Command R7B's answer": ("<|START_RESPONSE|>It rains.<|END_RESPONSE|>", {"content": "It rains."}),
    "Command R": (
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": {"city": "Paris"}\n    }\n]```',
        {"calls": [WEATHER]},
    ),
    "Seed": (
        "<seed:think>Hm</seed:think><seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n"
        "<function=add>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
        {"reasoning": "Hm", "calls": [WEATHER, ADD]},
    ),
    "GLM 4.5": (
        "<think>Hm</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>\n"
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        {"reasoning": "Hm", "calls": [WEATHER, ADD]},
    ),
    "GLM 4, behind a line break": ('\n\nget_weather \n {"city": "Paris"}\nadd\n{"a": 1}', {"calls": [WEATHER, ADD]}),
    "GLM 4, broken": ('get_weather\n{nope} and {', {"content": 'get_weather\n{nope} and {'}),
    "Gemma": ('Let me see.\n```tool_code\nget_weather(city="Paris")\n```', {"content": "Let me see.", "calls": [WEATHER]}),
    "Gemma, printed": ('```tool_code\nprint(get_weather(\n    city="Paris",\n))\nadd(a=1)```There.', {"content": "There.", "calls": [WEATHER, ADD]}),
    "Gemma, a list": ('```tool_code\n[get_weather(city="Paris"), add(a=1)]\n```', {"calls": [WEATHER, ADD]}),
    "code that is no call": ("```tool_code\nother(a=1)\n```\n[", {"content": "```tool_code\nother(a=1)\n```\n["}),
    "code without an end": ("```tool_code\nadd(a=1)", {"content": "```tool_code\nadd(a=1)"}),
    "GLM 4": ('get_weather\n{"city": "Paris"}', {"calls": [WEATHER]}),
    "text like GLM 4's": ("get_weather\nis a function", {"content": "get_weather\nis a function"}),
    "DeepSeek V3.1": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
        '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        {"calls": [WEATHER, ADD]},
    ),
    "Kimi K2": (
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>'
        '<|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
        {"calls": [WEATHER, ADD]},
    ),
    "OLMo 3": ('<function_calls>\nget_weather(city="Paris")\nadd(a=1)\n</function_calls>', {"calls": [WEATHER, ADD]}),
    "text between calls": (
        'One. <tool_call>{"name": "add", "arguments": {}}</tool_call>\n<tool_call>{"name": "add"}</tool_call>\n\ntwo[TOOL_CALLS]add{}\n three',
        {"content": "One. two\n three", "calls": [("add", {})] * 3},
    ),
    "broken in tags, behind text": ("Hm\n<tool_call>nope</tool_call>", {"content": "Hm\nnope"}),
    "several after a python tag": (
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "add", "parameters": {"a": 1}}',
        {"calls": [WEATHER, ADD]},
    ),
    "a large name of a fence": ('```JSON\n{"name": "add", "arguments": {"a": 1}}\n```', {"calls": [ADD]}),
    "a fence on one line": ('```json {"name": "add", "arguments": {"a": 1}} ```', {"calls": [ADD]}),
    "a fence of jsonc": ('```jsonc\n{"name": "add"}\n```', {"content": '```jsonc\n{"name": "add"}\n```'}),
    "an element that is closed at once": ('<function name="add"/><function name="get_weather"><param name="city">Paris</param></function>', {"calls": [("add", {}), WEATHER]}),
    "a tag of an element in its text": (
        "<function=add><parameter=s>\na</parameter> b\n</parameter><parameter=t>c</parameter></function>",
        {"calls": [("add", {"s": "a</parameter> b", "t": "c"})]},
    ),
    "null in every notation": (
        '<function=add>null</function><function=add> null </function><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>null<|tool_call_end|>'
        '<｜tool▁call▁begin｜>add<｜tool▁sep｜>null<｜tool▁call▁end｜>[TOOL_CALLS]add[TOOL_CALLS]add[ARGS][TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]null',
        {"calls": [("add", {})] * 7},
    ),
    "null for a recipient": (">>>add\nnull", {"calls": [("add", {})]}),
    "null": ('{"name": "add", "parameters": null}', {"calls": [("add", {})]}),
    "null in a tag": ('<tool_call>{"name": "add", "arguments": null}</tool_call>', {"calls": [("add", {})]}),
    "arguments beside the name": ('<tool_call>{"name": "get_weather", "city": "Paris"}</tool_call>', {"calls": [WEATHER]}),
    "Gemma 4": (
        '<|channel>thought\nI will.\n<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|><|tool_call>call:add{a:1}<tool_call|>',
        {"reasoning": "I will.", "calls": [WEATHER, ADD]},
    ),
    "Gemma 4, values of every type": (
        'Hm.<|tool_call>call:add{a:-1.5e2,b:[true,null,{c:<|"|>x,y:{}[]"<tool_call|><|"|>,<|"|>d e<|"|>:[]}],<|"|>f<|"|>:"g\\"h",i:{}}<tool_call|>There.',
        {
            "content": "Hm.There.",
            "calls": [("add", {"a": -150.0, "b": [True, None, {"c": 'x,y:{}[]"<tool_call|>', "d e": []}], "f": 'g"h', "i": {}})],
        },
    ),
    "Gemma 4, a thought between texts": (
        "One.<|channel>thought\nHm.\n<channel|>Two.<|channel>thought\n<channel|> three<channel|>",
        {"reasoning": "Hm.", "content": "One.Two. three"},
    ),
    "Gemma 4, broken": ("<|tool_call>call:add{a:}<tool_call|>", {"content": "call:add{a:}"}),
    "Gemma 4, without an end": ('<|tool_call>call:add{s:<|"|>x', {"content": 'call:add{s:<|"|>x'}),
    "Qwen 3.5": (
        "Hm.</think>\n\nText.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\n"
        '<tool_call>\n<function=add>\n<parameter=s>\nif a < b:\n    "</tool_call>"\n\n</parameter>\n<parameter=o>\n{"x": [1]}\n</parameter>\n</function>\n</tool_call>',
        {
            "content": "Hm.\n\nText.",
            "calls": [WEATHER, ("add", {"s": 'if a < b:\n    "</tool_call>"\n', "o": {"x": [1]}})],
        },
    ),
    "Qwen 3.5, without an end": ("<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>", {"calls": [ADD]}),
    "Qwen 3.5, without arguments": ("<tool_call>\n<function=add>\n</function>\n</tool_call>", {"calls": [("add", {})]}),
    "GLM 4.7": (
        "</think>Text.<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>"
        "<tool_call>add<arg_key>s</arg_key><arg_value></tool_call></arg_value><arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
        {"content": "Text.", "calls": [WEATHER, ("add", {"s": "</tool_call>", "a": 1})]},
    ),
    "DeepSeek V3.2": (
        '<think>Hm.</think>Text.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
        '</｜DSML｜invoke>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="true">1</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="b" string="false">{"c": [2]}</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        {"reasoning": "Hm.", "content": "Text.", "calls": [WEATHER, ("add", {"a": "1", "b": {"c": [2]}})]},
    ),
    "DeepSeek V4, a call in the thought": (
        '<think>Hm.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>',
        {"reasoning": "Hm.", "calls": [ADD]},
    ),
    "DeepSeek V3.2, a closing tag in a value": (
        '<｜DSML｜function_calls><｜DSML｜invoke name="add"><｜DSML｜parameter name="s" string="true"> </｜DSML｜function_calls> </｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>x',
        {"calls": [("add", {"s": " </｜DSML｜function_calls> "})], "content": "x"},
    ),
    "MiniMax": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n<invoke name="add">\n<parameter name="a">1</parameter>\n</invoke>\n</minimax:tool_call>',
        {"calls": [WEATHER, ADD]},
    ),
    "all in one object": (
        'So: {"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}, {"id": "x", "type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1}"}}]}',
        {"content": "So:", "calls": [WEATHER, ADD]},
    ),
    "an object that is none": ('{"tool_calls": [{"name": "other"}]}', {"content": '{"tool_calls": [{"name": "other"}]}'}),
    "strings with brackets": (
        '{"name": "add", "parameters": {"a": "}]\\"{", "b": "it\'s"}}',
        {"calls": [("add", {"a": '}]"{', "b": "it's"})]},
    ),
}  # fmt: skip
