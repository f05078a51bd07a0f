"""A file gets the right template, and messages the form that the template wants."""

# ruff: noqa: E501, RUF001 (prompts as they are)

from __future__ import annotations

import pytest

from chats import CALL, TOOL, TURNS, chat
from llamacpu.chat import Segment, templates_in
from llamacpu.chat.builtin import guess
from llamacpu.errors import TemplateError


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
    # The vocabulary of DeepSeek V4 is that of V3.2, its format another one.
    assert guess(model, tokens.__contains__, "deepseek4") == "deepseek-4"
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
