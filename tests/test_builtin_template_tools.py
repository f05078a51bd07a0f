"""Built-in templates describe tools, and the calls that templates print are read back."""

# ruff: noqa: E501, RUF001 (prompts as they are)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chats import CALL, TOOL, template
from llamacpu.chat import ChatTemplate
from llamacpu.chat.answer import AnswerReader, Piece, ToolCall
from llamacpu.chat.harmony import HarmonyReader
from llamacpu.chat.reasoning import begins_message, open_reasoning
from llamacpu.chat.recipients import RecipientReader

TOOL_PARTS = {
    "command-r7b": ['<|START_TOOL_RESULT|>[{"tool_call_id": "0", "results": {"0": "3"}, "is_error": null}]<|END_TOOL_RESULT|>'],
    "command-r": ["<results>\n3\n</results>", '"tool_name": "add", "parameters": {"a": 1}'],
    "deepseek": ["<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n", "<｜tool▁output▁begin｜>3<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"],
    "deepseek-3.2": [
        '<functions>\n{"name": "add", "parameters": {"type": "object", "properties": {}}}\n</functions>\n<｜User｜>1+2?<｜Assistant｜></think>\n\n',
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n',
        "</｜DSML｜function_calls></s>\n\n<function_results>\n<result>3</result>\n</function_results>\n\n<think></think>",
    ],
    "deepseek-4": [
        '### Available Tool Schemas\n\n{"name": "add", "parameters": {"type": "object", "properties": {}}}\n<｜User｜>1+2?<｜Assistant｜></think>\n\n',
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n',
        "</｜DSML｜tool_calls></s><｜User｜><tool_result>3</tool_result><｜Assistant｜></think>",
    ],
    "glm-4.5": [
        "<|assistant|>\n<think></think>\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        "<|observation|>\n<tool_response>\n3\n</tool_response><|assistant|>",
    ],
    "qwen-3.5": [
        '\n<tools>\n{"type": "function", "function": {"name": "add",',
        "<think>\n\n</think>\n\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call><|im_end|>\n",
        "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n",
    ],
    "gemma-4": [
        '<|tool>declaration:add{description:<|"|><|"|>,parameters:{properties:{},type:<|"|>OBJECT<|"|>}}<tool|><turn|>',
        '<|turn>model\n<|tool_call>call:add{a:1}<tool_call|><|tool_response>response:add{value:<|"|>3<|"|>}<tool_response|>',
    ],
    "muse-glimmer": [
        '// Tool metadata\n{"name": "add", "description": ""}\n// Function schemas\n{"name": "add", "description": "", "parameters": {',
        '# Valid recipients: "self", "add.*", "user".<|eot|>',
        '<|start|>assistant to=add<|message|><atem:function_calls>\n<atem:invoke name="add">\n<atem:parameter name="a">1</atem:parameter>\n',
        '<|start|>tool add<|message|><tool_output name="add">\n3\n</tool_output><|eot|><|start|>assistant',
    ],
    "glm-4": ['<|assistant|>add\n{"a": 1}<|observation|>\n3', "## add"],
    "gpt-oss": ["<|start|>functions.add to=assistant<|channel|>commentary<|message|>3<|end|>", "type add = (_: "],
    "granite": ["<|start_of_role|>tool_response<|end_of_role|>3<|end_of_text|>", "<|start_of_role|>tools<|end_of_role|>["],
    "phi-4-mini": ['<|tool|>[{"type"', '<|tool_call|>[{"name": "add", "arguments": {"a": 1}}]<|/tool_call|><|end|><|tool|>3<|end|>'],
    "seed": ["<function=add>\n<parameter=a>1</parameter>\n</function>", "<seed:bos>tool\n3<seed:eos>"],
    "chatml": ['<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', "<tool_response>\n3\n</tool_response>"],
    "llama-3.1": ['{"name": "add", "parameters": {"a": 1}}<|eot_id|>', 'ipython<|end_header_id|>\n\n"3"', "Environment: ipython"],
    "llama-4": ['<|python_start|>{"name": "add", "parameters": {"a": 1}}<|python_end|><|eom|>', 'ipython<|header_end|>\n\n"3"'],
    "mistral-v3": ['[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "123456789"}]</s>', "[AVAILABLE_TOOLS] [{"],
    "mistral-v7-tekken": ['[TOOL_RESULTS]{"content": "3", "call_id": "123456789"}[/TOOL_RESULTS]', "[AVAILABLE_TOOLS][{"],
}  # fmt: skip


SCHEMAS = {
    "weather": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "now": {"properties": {}},
}
CALLS = [("weather", {"city": 'Paris "x"', "days": 3}), ("now", {})]
# Texts that end an answer, as the tokens of a vocabulary do.
ENDS = (
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eom|>",
    "<|eot|>",
    "<|im_end|>",
    "<|end|>",
    "<turn|>",
    "<|end_of_text|>",
    "<|END_OF_TURN_TOKEN|>",
    "<seed:eos>",
)
ALL_CALLS = [
    "chatml",
    "command-r",
    "command-r7b",
    "deepseek",
    "deepseek-3.2",
    "deepseek-4",
    "gemma-4",
    "glm-4",
    "glm-4.5",
    "gpt-oss",
    "granite",
    "llama-3.1",
    "llama-4",
    "mistral-v3",
    "mistral-v7-tekken",
    "muse-glimmer",
    "phi-4-mini",
    "qwen-3.5",
    "seed",
]


@pytest.mark.parametrize("name", ALL_CALLS)
@pytest.mark.parametrize("calls", [CALLS[:1], CALLS[1:], CALLS], ids=["arguments", "none", "both"])
@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_calls_that_a_built_in_template_prints_are_read_back(name: str, calls: list[Any], size: int) -> None:
    if len(calls) > 1 and name in ("llama-3.1", "glm-4"):
        calls = calls[:1]
    written = [
        {"id": f"12345678{n}", "type": "function", "function": {"name": function, "arguments": arguments}}
        for n, (function, arguments) in enumerate(calls)
    ]
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "", "tool_calls": written}]
    prompt = template(name).render(turns[:1], tools=[TOOL])
    whole = template(name).render(turns, tools=[TOOL], add_generation_prompt=False)
    begun = {"llama-4": "<|python_start|>", "gemma-4": "<|tool_call>", "deepseek-3.2": "</think>"}
    assert whole.startswith(prompt) or name in begun
    answer = whole[len(prompt) :] if whole.startswith(prompt) else whole[whole.index(begun[name]) :]
    in_headers: Any = RecipientReader if name == "muse-glimmer" else HarmonyReader
    opened = open_reasoning(prompt)
    reader: Any = (
        in_headers(SCHEMAS) if begins_message(prompt) else AnswerReader(SCHEMAS, drop=ENDS, begins_reasoning=opened)
    )
    events = [event for start in range(0, len(answer), size) for event in reader.push(answer[start : start + size])]
    events += reader.finish()
    assert [(event.name, json.loads(event.arguments)) for event in events if isinstance(event, ToolCall)] == calls
    assert not "".join(event.text for event in events if isinstance(event, Piece)).strip()


PUBLISHED = [
    "Qwen-Qwen3-0.6B",
    "Qwen-Qwen2.5-7B-Instruct",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [1, 10**6])
def test_calls_that_a_published_template_prints_are_read_back(golden: Path, name: str, size: int) -> None:
    source = (golden / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    published = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    function, arguments = CALLS[0]
    given: Any = json.dumps(arguments) if "DeepSeek" in name else arguments
    call = {"id": "123456789", "type": "function", "function": {"name": function, "arguments": given}}
    content = None if "DeepSeek" in name else ""
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": content, "tool_calls": [call]}]
    described = {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "w",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}},
        },
    }
    prompt = published.render(turns[:1], tools=[described])
    whole = published.render(turns, tools=[described], add_generation_prompt=False)
    begun = next(length for length in range(len(whole), 0, -1) if prompt.startswith(whole[:length]))
    reader = AnswerReader(SCHEMAS, drop=(*ENDS, "<｜end▁of▁sentence｜>"))
    events = [event for start in range(begun, len(whole), size) for event in reader.push(whole[start : start + size])]
    events += reader.finish()
    assert [(event.name, json.loads(event.arguments)) for event in events if isinstance(event, ToolCall)] == CALLS[:1]


@pytest.mark.parametrize("name", TOOL_PARTS)
def test_built_in_templates_describe_tools_calls_and_results(name: str) -> None:
    text = template(name).render(CALL, tools=[TOOL])
    for part in TOOL_PARTS[name]:
        assert part in text
