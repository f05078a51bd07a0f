"""Built-in templates give the prompts that the models were trained on, and files get the right one."""

# ruff: noqa: E501, RUF001 (prompts as they are)

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu.chat import Chat, ChatTemplate, Segment, templates_in
from llamacpu.chat.answer import AnswerReader, Piece, ToolCall
from llamacpu.chat.builtin import BUILTINS, builtin, guess, source_of
from llamacpu.chat.harmony import HarmonyReader
from llamacpu.chat.reasoning import begins_message, open_reasoning
from llamacpu.chat.recipients import RecipientReader
from llamacpu.errors import TemplateError

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
EXPECTED = {
    "alpaca": "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nBye\n\n### Response:\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "codellama-70b": "<s>Source: system\n\n Be brief. <step> Source: user\n\n Hi <step> Source: assistant\nDestination: user\n\n "
    "Hello <step> Source: user\n\n Bye <step> Source: assistant\nDestination: user\n\n ",
    "command-r": "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "command-r7b": "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>Hello<|END_RESPONSE|><|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye"
    "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "deepseek": "<s>Be brief.<｜User｜>Hi<｜Assistant｜>Hello</s><｜User｜>Bye<｜Assistant｜>",
    "glm-4": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello<|user|>\nBye<|assistant|>",
    "gpt-oss": "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: "
    f"{date.today()}\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|><|start|>user<|message|>Hi<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hello<|end|><|start|>user<|message|>Bye<|end|><|start|>assistant",
    "granite": "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>Hello<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>",
    "olmo-2": "<s><|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello</s>\n<|user|>\nBye\n<|assistant|>\n",
    "phi-4": "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Hello<|im_end|>"
    "<|im_start|>user<|im_sep|>Bye<|im_end|><|im_start|>assistant<|im_sep|>",
    "phi-4-mini": "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|><|user|>Bye<|end|><|assistant|>",
    "seed": "<seed:bos>system\nBe brief.<seed:eos><seed:bos>user\nHi<seed:eos><seed:bos>assistant\nHello<seed:eos>"
    "<seed:bos>user\nBye<seed:eos><seed:bos>assistant\n",
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    "gemma-4": "<s><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHello<turn|>\n<|turn>user\nBye<turn|>\n"
    "<|turn>model\n<|channel>thought\n<channel|>",
    "muse-glimmer": '<s><|start|>system<|message|>Be brief.\n\nReasoning strength: high.\n\n# Valid recipients: "self", "user".<|eot|>'
    "<|start|>user<|message|>Hi<|eot|><|start|>assistant to=user<|message|>Hello<|eot|><|start|>user<|message|>Bye<|eot|><|start|>assistant",
    "deepseek-3.2": "<s>Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello</s><｜User｜>Bye<｜Assistant｜><think></think>",
    "glm-4.5": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nHello<|user|>\nBye<|assistant|>",
    "qwen-3.5": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "llama-2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST]",
    "llama-3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama-3.1": "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "Hello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama-4": "<s><|header_start|>system<|header_end|>\n\nBe brief.<|eot|><|header_start|>user<|header_end|>\n\nHi<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\nHello<|eot|><|header_start|>user<|header_end|>\n\nBye<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n",
    "mistral-v1": "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]",
    "mistral-v3": "<s>[INST] Hi[/INST] Hello</s>[INST] Be brief.\n\nBye[/INST]",
    "mistral-v3-tekken": "<s>[INST]Hi[/INST]Hello</s>[INST]Be brief.\n\nBye[/INST]",
    "mistral-v7": "<s>[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] Hi[/INST] Hello</s>[INST] Bye[/INST]",
    "mistral-v7-tekken": "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello</s>[INST]Bye[/INST]",
    "openchat": "<s>Be brief.<|end_of_turn|>GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant: Hello<|end_of_turn|>"
    "GPT4 Correct User: Bye<|end_of_turn|>GPT4 Correct Assistant:",
    "phi-3": "<s><|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n",
    "vicuna": "<s>Be brief. USER: Hi ASSISTANT: Hello</s> USER: Bye ASSISTANT:",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
}  # fmt: skip


def template(name: str) -> ChatTemplate:
    return ChatTemplate(source_of(builtin(name)), bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("name", EXPECTED)
def test_built_in_templates_give_the_documented_prompt(name: str) -> None:
    assert template(name).render(TURNS) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_built_in_templates_survive_conversations_of_every_kind(name: str) -> None:
    for messages in ([], TURNS[:1], TURNS[1:2], TURNS[:3]):
        text = template(name).render(messages, add_generation_prompt=False)
        assert all(message["content"] in text for message in messages if message["role"] != "system")
        assert template(name).render(messages).startswith(text)


def test_every_built_in_template_is_tested() -> None:
    assert set(BUILTINS) == {*EXPECTED, "llama-guard"}


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = [
    {"role": "user", "content": "1+2?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "123456789", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "content": "3", "tool_call_id": "123456789"},
]
TOOL_PARTS = {
    "command-r7b": ['<|START_TOOL_RESULT|>[{"tool_call_id": "0", "results": {"0": "3"}, "is_error": null}]<|END_TOOL_RESULT|>'],
    "command-r": ["<results>\n3\n</results>", '"tool_name": "add", "parameters": {"a": 1}'],
    "deepseek": ["<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n", "<｜tool▁output▁begin｜>3<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"],
    "deepseek-3.2": [
        '<functions>\n{"name": "add", "parameters": {"type": "object", "properties": {}}}\n</functions>\n<｜User｜>1+2?<｜Assistant｜></think>\n\n',
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n',
        "</｜DSML｜function_calls></s>\n\n<function_results>\n<result>3</result>\n</function_results>\n\n<think></think>",
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


def test_llama_2_wants_alternating_roles() -> None:
    with pytest.raises(TemplateError, match="alternate"):
        template("llama-2").render([TURNS[1], TURNS[1]])


class FakeTokenizer:
    """Characters as tokens, and special tokens by name from 1000 on."""

    def __init__(self, special: list[str], add_bos: bool = True, bos: str | None = "<s>") -> None:
        self.special = {text: 1000 + index for index, text in enumerate(special)}
        self.bos = self.special[bos] if bos else None
        self.eos = self.special.get("</s>")
        self.eot = self.unk = None
        self.eog = frozenset(() if self.eos is None else (self.eos,))
        self.add_bos = add_bos

    def id_to_piece(self, token: int) -> str:
        return next((text for text, number in self.special.items() if number == token), chr(token))

    def token_to_id(self, text: str) -> int | None:
        return self.special.get(text)

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        ids, position = [], 0
        while position < len(text):
            match = next((s for s in self.special if parse_special and text.startswith(s, position)), None)
            ids.append(self.special[match] if match else ord(text[position]))
            position += len(match or " ")
        return ids


def chat(metadata: Mapping[str, Any], special: list[str], name: str | None = None, **options: Any) -> Chat:
    types = np.full(1000 + len(special), 1)
    types[1000:] = 3
    return Chat({"tokenizer.ggml.token_type": types, **metadata}, FakeTokenizer(special, **options), name)  # type: ignore[arg-type]


def test_the_templates_of_a_file() -> None:
    metadata = {
        "tokenizer.chat_template": "main{{ x }}",
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "tools",
    }
    assert templates_in(metadata) == {"default": "main{{ x }}", "tool_use": "tools"}
    found = chat(metadata, ["<s>"])
    assert found.render([]) == "main"
    assert found.render([], tools=[TOOL]) == "tools"
    assert chat(metadata, ["<s>"], "tool_use").render([]) == "tools"
    assert chat(metadata, ["<s>"], "{{ 1 }}").render([]) == "1"
    assert chat(metadata, ["<s>"], "llama-2").render(TURNS[1:2]).endswith("[INST] Hi [/INST]")
    with pytest.raises(TemplateError, match="nosuch"):
        chat(metadata, ["<s>"], "nosuch")


@pytest.mark.parametrize(
    ("tokens", "model", "name"),
    [
        (["<|start_header_id|>"], "", "llama-3"),
        (["<|header_start|>"], "", "llama-4"),
        (["<|im_start|>"], "Llama 2", "chatml"),
        ([], "Llama-2-7B-Chat", "llama-2"),
        ([], "CodeLlama 7B", "llama-2"),
        ([], "TinyLlama", "zephyr"),
        ([], "Something", "chatml"),
        (["<|im_start|>", "<|im_sep|>"], "", "phi-4"),
        (["<|START_OF_TURN_TOKEN|>"], "", "command-r"),
        (["<|START_OF_TURN_TOKEN|>", "<|START_ACTION|>"], "", "command-r7b"),
        (["<｜Assistant｜>"], "", "deepseek"),
        (["<|start|>", "<|channel|>"], "", "gpt-oss"),
        (["<|start_of_role|>", "<|tool_call|>"], "", "granite"),
        (["<|start|>", "<|eom|>", "<|eot|>"], "", "muse-glimmer"),
        (["<|turn>", "<turn|>"], "", "gemma-4"),
        (["<｜Assistant｜>", "｜DSML｜"], "", "deepseek-3.2"),
        (["[gMASK]", "<|assistant|>", "<arg_key>"], "", "glm-4.5"),
        (["<seed:bos>"], "", "seed"),
        (["[gMASK]", "<|assistant|>"], "", "glm-4"),
        (["<|assistant|>", "<|/tool_call|>"], "", "phi-4-mini"),
        (["<|assistant|>"], "", "phi-3"),
        ([], "OLMo 2 7B", "olmo-2"),
    ],
)
def test_a_file_without_a_template_gets_the_one_its_tokens_point_to(tokens: list[str], model: str, name: str) -> None:
    assert guess(model, tokens.__contains__) == name
    assert chat({"general.name": model}, ["<s>", *tokens]).name == name
    assert chat({"general.architecture": "qwen35"}, ["<s>", *tokens]).name == "qwen-3.5"


def test_there_is_exactly_one_begin_of_text() -> None:
    for source in ("{{ bos_token }}a", "a", "{{ bos_token }}{{ bos_token }}a"):
        assert chat({"tokenizer.chat_template": source}, ["<s>"]).encode([]) == [1000, 97]
    without = {"add_bos": False}
    assert chat({"tokenizer.chat_template": "{{ bos_token }}a"}, ["<s>"], **without).encode([]) == [1000, 97]
    assert chat({"tokenizer.chat_template": "a"}, ["<s>"], **without).encode([]) == [97]
    assert chat({"tokenizer.chat_template": "a"}, ["</s>"], bos=None).encode([]) == [97]


def test_begin_of_text_in_a_message_is_text() -> None:
    found = chat({"tokenizer.chat_template": "{{ messages[0].content }}"}, ["<s>"])
    assert found.encode([{"role": "user", "content": "<s>"}]) == [1000, *map(ord, "<s>")]


def test_control_tokens_in_messages_are_encoded_as_text() -> None:
    found = chat({}, ["<s>", "<|im_start|>", "<|im_end|>"])
    ids = found.encode([{"role": "user", "content": "a<|im_end|>"}])
    assert ids[:2] == [1000, 1001]
    assert ids.count(1002) == 1
    assert found.segments([{"role": "user", "content": "a<|im_end|>"}])[1] == Segment("user\na<|im_end|>", False)


def test_arguments_of_tool_calls_take_the_form_that_the_template_wants() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    as_object = "{{ messages[0].tool_calls[0].function.arguments.a + 1 }}"
    as_text = "{{ 'x' + messages[0].tool_calls[0].function.arguments }}"
    no_null = "{{ 'x' + messages[0].content }}{# tool_calls #}"
    assert chat({"tokenizer.chat_template": as_object}, ["<s>"]).render(messages) == "2"
    assert chat({"tokenizer.chat_template": as_text}, ["<s>"]).render(messages) == 'x{"a": 1}'
    assert chat({"tokenizer.chat_template": no_null}, ["<s>"]).render(messages) == "x"


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = chat({"tokenizer.chat_template": "{{ messages[0].content }}"}, ["<s>"])
    assert found.render([{"role": "user", "content": parts}]) == "a\nb"


def test_a_template_that_reads_parts_gets_parts() -> None:
    source = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    found = chat({"tokenizer.chat_template": source}, ["<s>"])
    assert found.render([{"role": "user", "content": "Hello"}]) == "Hello"
    answered = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert found.render(answered) == "HelloHi"


def test_content_that_is_no_text_is_an_error() -> None:
    found = chat({"tokenizer.chat_template": "{{ messages }}"}, ["<s>"])
    with pytest.raises(TemplateError, match="image_url"):
        found.render([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])


def test_a_template_that_knows_no_tools_gets_them_in_words() -> None:
    found = chat(
        {"tokenizer.chat_template": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"}, ["<s>"]
    )
    text = found.render(CALL, tools=[TOOL])
    assert text.startswith("<user>You can call these functions:")
    assert '"name": "add"' in text
    assert '1+2?<assistant>{"name": "add", "parameters": {"a": 1}}<user>The function returned: 3' in text
    assert found.render(CALL[:1]) == "<user>1+2?"
    system = [{"role": "system", "content": "Be kind."}, *CALL[:1]]
    assert found.render(system, tools=[TOOL]).endswith("Be kind.<user>1+2?")


HOSTILE_MARKS = ["<|eot|>", "<|eom|>", "<|start|>", "<|message|>", "<turn|>", "<|turn>", "<|im_end|>", "<|im_start|>", "<|user|>",
                 "<|assistant|>", "<｜User｜>", "<｜Assistant｜>", "</s>", "<|tool_response>", "<|observation|>"]  # fmt: skip


@pytest.mark.parametrize("name", ["muse-glimmer", "gemma-4", "qwen-3.5", "deepseek-3.2", "glm-4.5"])
def test_no_text_of_a_caller_becomes_a_control_token(name: str) -> None:
    def ids(extra: str) -> list[int]:
        schema = {"type": "object", "properties": {f"k{extra}": {"type": "string", "description": f"d{extra}"}}}
        tool = {"type": "function", "function": {"name": f"f{extra}", "description": f"d{extra}", "parameters": schema}}
        function = {"name": f"f{extra}", "arguments": {f"k{extra}": f"v{extra}", "o": [{"x": extra}]}}
        call = {"id": f"1{extra}", "type": "function", "function": function}
        turns = [
            {"role": "system", "content": f"Be brief.{extra}"},
            {"role": "user", "content": f"Hi{extra}"},
            {"role": "assistant", "content": f"I look{extra}", "reasoning_content": f"Hm{extra}", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"1{extra}", "content": f"3{extra}"},
        ]
        found = chat({}, ["<s>", *HOSTILE_MARKS], name)
        return found.encode(turns, [tool], reasoning_strength=f"low{extra}")

    for mark in HOSTILE_MARKS:
        without, within = ids(""), ids(mark)
        special = range(1000, 1001 + len(HOSTILE_MARKS))
        assert [token for token in within if token in special] == [token for token in without if token in special], mark
        assert "".join(chr(token) for token in within if token not in special).count(mark) > 5
