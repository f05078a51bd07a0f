"""Published chat templates render as Hugging Face transformers renders them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamacpu.chat import ChatTemplate
from llamacpu.errors import TemplateError
from template_cases import SNIPPETS

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather é in a <b>city</b> & "more"',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": " The city "},
                    "days": {"type": "integer", "description": "How many"},
                    "unit": {"type": "string", "enum": ["C", "F"], "description": "Scale"},
                    "when": {"type": ["string", "null"], "description": "Date"},
                },
                "required": ["city"],
            },
        },
    }
]


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(content: str | None, arguments: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return message("assistant", content, tool_calls=[{"id": "abcdefghi", "type": "function", "function": function}])


RESULT = message("tool", '{"degrees": 20}', tool_call_id="abcdefghi", name="get_weather")
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "one": [message("user", "Hi ")],
    "system": [message("system", " Be <brief> & kind\n"), message("user", "Hi\n")],
    "turns": [message("user", "a"), message("assistant", " b "), message("user", "c")],
    "ends with the assistant": [message("system", "s"), message("user", "a"), message("assistant", "b")],
    "thinking": [message("user", "a"), message("assistant", "<think>\nhm\n</think>\n\nb"), message("user", "c")],
    "reasoning": [message("user", "a"), message("assistant", "b", reasoning_content="hm"), message("user", "c")],
    "no thinking": [message("system", "short /no_think"), message("user", "a"), message("assistant", "\nb")],
    "tool call": [message("user", "Weather?"), call("", {"city": "Paris", "days": 3})],
    "tool call as text": [message("user", "Weather?"), call(None, '{"city": "Paris"}')],
    "tool result": [message("user", "Weather?"), call("", {"city": "Paris"}), RESULT],
    "tool results": [message("user", "Weather?"), call("I look.", {"city": "Paris"}), RESULT, RESULT],
    "after a tool": [
        message("system", "Use tools."), message("user", "Weather?"), call("", {"city": "Köln"}), RESULT,
        message("assistant", "20 °C"), message("user", "Thanks <|im_end|>"),
    ],
    "wrong order": [message("assistant", "a"), message("assistant", "b")],
    "unknown role": [message("narrator", "Once")],
}  # fmt: skip
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
VARIABLES: dict[str, dict[str, Any]] = {
    "": {},
    "date": {"date_string": "1 Jan 2030"},
    "no thinking": {"enable_thinking": False},
    "builtin tools": {"builtin_tools": ["brave_search", "code_interpreter"], "tools_in_user_message": False},
}
NAMES = [
    "HuggingFaceTB-SmolLM3-3B",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "google-gemma-2-2b-it",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
]


@pytest.fixture(scope="session")
def transformers_render() -> Callable[..., str]:
    """Rendering by transformers, or its error as a TemplateError."""
    utilities = pytest.importorskip("transformers.utils.chat_template_utils", reason="transformers is not installed")

    def render(source: str, messages: list[dict[str, Any]], **variables: Any) -> str:
        texts, _ = utilities.render_jinja_template([messages], chat_template=source, **variables)
        return str(texts[0])

    return render


@functools.cache
def compiled(source: str) -> ChatTemplate:
    """A template is compiled once for all the conversations that it renders."""
    return ChatTemplate(source, **SPECIAL)


def compare(source: str, reference: Callable[..., str], messages: list[dict[str, Any]], **variables: Any) -> None:
    template = compiled(source)
    try:
        expected = reference(source, messages, **SPECIAL, **variables)
    except Exception as error:
        # The template's own words, and Jinja's.
        words = str(error) if type(error).__module__.startswith("jinja2") else None
        with pytest.raises(TemplateError, match=words and re.escape(words)):
            template.render(messages, **variables)
        return
    assert template.render(messages, **variables) == expected
    segments = template.segments(messages, control_tokens=["<|im_end|>", "</s>"], **variables)
    assert "".join(segment.text for segment in segments) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_published_templates_render_as_in_transformers(
    name: str, conversation: str, golden: Path, transformers_render: Callable[..., str]
) -> None:
    source = (golden / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    for tools in (None, TOOLS, []):
        for prompt in (True, False):
            for variables in VARIABLES.values():
                compare(
                    source,
                    transformers_render,
                    CONVERSATIONS[conversation],
                    tools=tools,
                    add_generation_prompt=prompt,
                    **variables,
                )


def test_every_published_template_is_compared(golden: Path) -> None:
    assert sorted(path.stem for path in (golden / "templates").glob("*.jinja")) == sorted(NAMES)


@pytest.mark.parametrize("snippet", SNIPPETS.values(), ids=SNIPPETS.keys())
def test_pieces_of_template_render_as_in_transformers(snippet: str, transformers_render: Callable[..., str]) -> None:
    for tools in (None, TOOLS):
        for name in ("one", "turns", "after a tool"):
            compare(snippet, transformers_render, CONVERSATIONS[name], tools=tools, add_generation_prompt=True)
