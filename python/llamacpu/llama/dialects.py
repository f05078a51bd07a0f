"""Function-calling notations of models: the prompts of chatml-function-calling and functionary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llamacpu.chat.template import Traced
from llamacpu.llama.function_definitions import definitions

Messages = Sequence[Mapping[str, Any]]
Functions = Sequence[Mapping[str, Any]]


class Dialect(Protocol):
    """The notation in which a model reads function definitions and writes calls.

    stop     texts that end an answer
    many     whether one answer may contain several calls
    opening  the control token that begins a call, "" for none
    """

    stop: tuple[str, ...]
    opening: str
    many: bool

    def prompt(self, messages: Messages, functions: Functions) -> str:
        """The conversation as text, up to the point where the model decides between a text and a call."""

    def call(self, name: str) -> tuple[str, str]:
        """What the model writes to call a function, and what is added after it, before the arguments."""

    def text(self) -> tuple[str, str]:
        """What the model writes to answer in text, and what is added after it; not used without functions."""

    def plain(self) -> str:
        """The beginning of an answer if there are no functions."""

    def between(self) -> str:
        """What is added after a call, before the model decides what follows."""


def _data(value: Any) -> str:
    """A text from the caller, marked as data; the texts of its parts are joined."""
    if isinstance(value, (list, tuple)):
        value = "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in value)
    return Traced(str(value)) if value else ""


def _calls(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The name and arguments of every call in an assistant message, including calls in the old form."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    if not calls and message.get("function_call"):
        calls = [message["function_call"]]
    found = []
    for call in calls:
        arguments = call.get("arguments", "")
        found.append((str(call["name"]), arguments if isinstance(arguments, str) else json.dumps(arguments)))
    return found


def _names_of_results(messages: Messages) -> dict[str, str]:
    """The names of the called functions by call id."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    return {str(call["id"]): str(call["function"]["name"]) for call in calls if "id" in call and "function" in call}


def _is_result(message: Mapping[str, Any]) -> bool:
    return message["role"] in ("tool", "function")


def _name(message: Mapping[str, Any], names: Mapping[str, str]) -> str:
    found = message.get("name") or names.get(str(message.get("tool_call_id")), message.get("tool_call_id"))
    return str(found or "function")


class ChatMLFunctions(Dialect):
    """ChatML with the functions in the system message; an answer begins with "message:" or "functions.NAME:"."""

    stop: tuple[str, ...] = ("<|im_end|>",)
    opening = ""
    many = True
    _HOW = (
        "\n\nAnswer the user with a message, or call one or more of these functions."
        "\n\nA message begins with 'message:':\n\nmessage:\n<message>"
        "\n\nA call begins with 'functions.<function_name>:', its arguments follow as JSON:"
        '\n\nfunctions.<function_name>:\n{ "arg1": "value1", "arg2": "value2" }'
        '\nfunctions.<function_name>:\n{ "arg1": "value1", "arg2": "value2" }'
    )

    def prompt(self, messages: Messages, functions: Functions) -> str:
        """The conversation as text."""
        if functions and not any(message["role"] in ("system", "developer") for message in messages):
            messages = [{"role": "system", "content": "You are a helpful assistant."}, *messages]
        names = _names_of_results(messages)
        text, told = "", False
        for message in messages:
            role = "system" if message["role"] == "developer" else message["role"]
            content = _data(message.get("content"))
            if role == "system" and functions and not told:
                told = True
                content += "\n\nYou have access to the following functions:\n"
                for function in functions:
                    schema = json.dumps(function.get("parameters") or {}, ensure_ascii=False)
                    described = _data(function.get("description"))
                    content += (
                        "\nfunctions." + _data(function["name"]) + ":\n" + (described + "\n" if described else "")
                    )
                    content += _data(schema) + "\n"
                content += self._HOW
            if role == "assistant":
                parts = ["message:\n" + content if functions else content] if content else []
                parts += ["functions." + _data(name) + ":\n" + _data(given) for name, given in _calls(message)]
                content = parts[0] if parts else ""
                for part in parts[1:]:
                    content = content + "\n" + part
            elif _is_result(message):
                role, content = "tool", "functions." + _data(_name(message, names)) + ":\n" + content
            text = text + "<|im_start|>" + _data(role) + "\n" + content + "<|im_end|>\n"
        return text + "<|im_start|>assistant\n"

    def call(self, name: str) -> tuple[str, str]:
        """The beginning of a call."""
        return f"functions.{name}:", "\n"

    def text(self) -> tuple[str, str]:
        """The beginning of a message."""
        return "message:", "\n"

    def plain(self) -> str:
        """The empty string: an answer without functions has no prefix."""
        return ""

    def between(self) -> str:
        """A line break."""
        return "\n"


_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. The assistant calls functions with appropriate input when necessary"
)


class Functionary(Dialect):
    """The first functionary models: role names in plain text, "assistant to=functions.NAME:" for a call."""

    stop: tuple[str, ...] = ("user:", "</s>")
    opening = ""
    many = False

    def prompt(self, messages: Messages, functions: Functions) -> str:
        """The conversation as text."""
        names = _names_of_results(messages)
        text = "system:\n" + _data(definitions(functions, "  ")) + "\n\n" if functions else ""
        text += "system:\n" + _SYSTEM + "\n"
        for message in messages:
            content = _data(message.get("content"))
            if _is_result(message):
                text = text + "function name=functions." + _data(_name(message, names)) + ":\n" + content + "\n"
            elif message["role"] == "user":
                text = text + "user:\n</s>" + content + "</s>\n"
            elif message["role"] == "assistant":
                text = text + "assistant:\n" + content + "\n" if content else text
                for name, arguments in _calls(message):
                    text = text + "assistant to=functions." + _data(name) + ":\n" + _data(arguments) + "</s>\n"
            else:
                text = text + "system:\n" + content + "\n"
        return text + "assistant"

    def call(self, name: str) -> tuple[str, str]:
        """The beginning of a call."""
        return f" to=functions.{name}:", "\n"

    def text(self) -> tuple[str, str]:
        """The beginning of a text."""
        return ":", "\n"

    def plain(self) -> str:
        """The rest of the name of the role."""
        return ":\n"

    def between(self) -> str:
        """The empty string: there is only one call."""
        return ""


class FunctionaryV1(Functionary):
    """Functionary 1: like `Functionary`, but with control tokens at the ends of turns and around calls."""

    stop: tuple[str, ...] = ("<|END_OF_ASSISTANT|>", "<|END_OF_FUNCTION_CALL|>")
    opening = "<|START_OF_FUNCTION_CALL|>"

    def prompt(self, messages: Messages, functions: Functions) -> str:
        """The conversation as text."""
        names = _names_of_results(messages)
        text = "system:\n" + _data(definitions(functions)) + "<|END_OF_SYSTEM|>\n" if functions else ""
        text += "system:\n" + _SYSTEM + "<|END_OF_SYSTEM|>\n"
        for message in messages:
            content = _data(message.get("content"))
            if _is_result(message):
                name = _data(_name(message, names))
                text = text + "function name=functions." + name + ":\n" + content + "<|END_OF_FUNCTION_RESULT|>\n"
            elif message["role"] == "user":
                text = text + "user:\n" + content + "<|END_OF_USER|>\n"
            elif message["role"] == "assistant":
                text = text + "assistant:\n" + content
                for name, arguments in _calls(message):
                    text = text + "<|START_OF_FUNCTION_CALL|>" + _data(name) + ":\n" + _data(arguments)
                    text += "<|END_OF_FUNCTION_CALL|>"
                text += "<|END_OF_ASSISTANT|>\n"
            else:
                text = text + "system:\n" + content + "<|END_OF_SYSTEM|>\n"
        return text + "assistant:\n"

    def call(self, name: str) -> tuple[str, str]:
        """The beginning of a call."""
        return f"{name}:", "\n"

    def text(self) -> tuple[str, str]:
        """Two empty strings: any text that is not a call."""
        return "", ""

    def plain(self) -> str:
        """The empty string: an answer without functions has no prefix."""
        return ""


class FunctionaryV2(Dialect):
    """Functionary 2: every message names its sender and its recipient."""

    stop: tuple[str, ...] = ("<|stop|>", "<|from|>")
    opening = ""
    many = True

    def prompt(self, messages: Messages, functions: Functions) -> str:
        """The conversation as text."""
        names = _names_of_results(messages)
        text = self._turn("system", "all", _data(definitions(functions))) if functions else ""
        text += self._turn("system", "all", _SYSTEM)
        for message in messages:
            content = _data(message.get("content"))
            if _is_result(message):
                text += self._turn(_data(_name(message, names)), "all", content)
            elif message["role"] == "assistant":
                turns = [("all", content)] if content else []
                turns += [(_data(name), _data(arguments)) for name, arguments in _calls(message)]
                for place, (whom, what) in enumerate(turns):
                    last = place == len(turns) - 1
                    text += self._turn("assistant", whom, what + "<|stop|>" if last else what)
            else:
                text += self._turn("user" if message["role"] == "user" else "system", "all", content)
        return text + "<|from|>assistant\n<|recipient|>"

    def _turn(self, who: str, whom: str, text: str) -> str:
        return "<|from|>" + who + "\n<|recipient|>" + whom + "\n<|content|>" + text + "\n"

    def call(self, name: str) -> tuple[str, str]:
        """The recipient of a call."""
        return f"{name}\n", "<|content|>"

    def text(self) -> tuple[str, str]:
        """The recipient of a text."""
        return "all\n", "<|content|>"

    def plain(self) -> str:
        """The recipient "all" and the start of the content."""
        return "all\n<|content|>"

    def between(self) -> str:
        """The start of another message."""
        return "\n<|from|>assistant\n<|recipient|>"
