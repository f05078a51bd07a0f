"""Built-in templates give the prompts that the models were trained on, and no text of a caller becomes a control token."""

# ruff: noqa: E501, RUF001 (prompts as they are)

from __future__ import annotations

from datetime import datetime

import pytest

from chats import TURNS, chat, template
from llamacpu.chat import fixed_time
from llamacpu.chat.builtin import BUILTINS
from llamacpu.errors import TemplateError

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
    "2026-11-28\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
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
    "deepseek-4": "<s>Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello</s><｜User｜>Bye<｜Assistant｜></think>",
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


@pytest.mark.parametrize("name", EXPECTED)
def test_built_in_templates_give_the_documented_prompt(name: str) -> None:
    with fixed_time(datetime(2026, 11, 28)):
        assert template(name).render(TURNS) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_built_in_templates_survive_conversations_of_every_kind(name: str) -> None:
    for messages in ([], TURNS[:1], TURNS[1:2], TURNS[:3]):
        text = template(name).render(messages, add_generation_prompt=False)
        assert all(message["content"] in text for message in messages if message["role"] != "system")
        assert template(name).render(messages).startswith(text)


def test_every_built_in_template_is_tested() -> None:
    assert set(BUILTINS) == {*EXPECTED, "llama-guard"}


def test_llama_2_wants_alternating_roles() -> None:
    with pytest.raises(TemplateError, match="alternate"):
        template("llama-2").render([TURNS[1], TURNS[1]])


HOSTILE_MARKS = ["<|eot|>", "<|eom|>", "<|start|>", "<|message|>", "<turn|>", "<|turn>", "<|im_end|>", "<|im_start|>", "<|user|>",
                 "<|assistant|>", "<｜User｜>", "<｜Assistant｜>", "</s>", "<|tool_response>", "<|observation|>"]  # fmt: skip


@pytest.mark.parametrize("name", ["muse-glimmer", "gemma-4", "qwen-3.5", "deepseek-3.2", "deepseek-4", "glm-4.5"])
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
