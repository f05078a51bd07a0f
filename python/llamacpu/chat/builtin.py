"""Built-in chat templates by name, for files without one of their own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from llamacpu.errors import TemplateError


@dataclass(frozen=True)
class Builtin:
    """A built-in template: its file, the text placed before it, and the texts that end an answer."""

    file: str
    prelude: str = ""
    stop: tuple[str, ...] = ()


def _mistral(space: str, system_turns: bool) -> Builtin:
    return Builtin("mistral", f'{{%- set space = "{space}" %}}{{%- set system_turns = {str(system_turns).lower()} %}}')


def _command_r(opening: str, closing: str, responses: bool) -> Builtin:
    prelude = f'{{%- set opening = "{opening}" %}}{{%- set closing = "{closing}" %}}'
    return Builtin("command-r", f"{prelude}{{%- set responses = {str(responses).lower()} %}}")


BUILTINS: Mapping[str, Builtin] = {
    "alpaca": Builtin("alpaca", stop=("### Instruction:",)),
    "chatml": Builtin("chatml", stop=("<|im_end|>",)),
    "codellama-70b": Builtin("codellama-70b", stop=("<step>",)),
    "command-r": _command_r("Action: ```json\\n", "```", False),
    "command-r7b": _command_r("<|START_ACTION|>", "<|END_ACTION|>", True),
    "deepseek": Builtin("deepseek"),
    "deepseek-3.2": Builtin("deepseek-3.2"),
    "deepseek-4": Builtin("deepseek-4"),
    "gemma": Builtin("gemma", stop=("<end_of_turn>",)),
    "gemma-4": Builtin("gemma-4", stop=("<turn|>",)),
    "glm-4": Builtin("glm-4", stop=("<|user|>", "<|observation|>")),
    "glm-4.5": Builtin("glm-4.5", stop=("<|user|>", "<|observation|>")),
    "gpt-oss": Builtin("gpt-oss"),
    "granite": Builtin("granite"),
    "llama-2": Builtin("llama-2"),
    "llama-3": Builtin("llama-3"),
    "llama-3.1": Builtin("llama-3.1"),
    "llama-4": Builtin("llama-4"),
    "llama-guard": Builtin("llama-guard"),
    "mistral-v1": Builtin("mistral-v1"),
    "mistral-v3": _mistral(" ", False),
    "mistral-v3-tekken": _mistral("", False),
    "mistral-v7": _mistral(" ", True),
    "mistral-v7-tekken": _mistral("", True),
    "muse-glimmer": Builtin("muse-glimmer", stop=("<|eot|>",)),
    "olmo-2": Builtin("olmo-2"),
    "openchat": Builtin("openchat", stop=("<|end_of_turn|>",)),
    "phi-3": Builtin("phi-3", stop=("<|end|>",)),
    "phi-4": Builtin("phi-4", stop=("<|im_end|>",)),
    "phi-4-mini": Builtin("phi-4-mini", stop=("<|end|>",)),
    "qwen-3.5": Builtin("qwen-3.5", stop=("<|im_end|>",)),
    "seed": Builtin("seed", stop=("<seed:eos>",)),
    "vicuna": Builtin("vicuna", stop=("USER:",)),
    "zephyr": Builtin("zephyr", stop=("<|user|>",)),
}
"""Every built-in template by its name."""

# Names that other programs use for them.
_OTHER_NAMES = {
    "chatml-function-calling": "chatml",
    "code-llama-70b": "codellama-70b",
    "llama2": "llama-2",
    "llama2-sys": "llama-2",
    "llama3": "llama-3",
    "llama-3.2": "llama-3.1",
    "llama-3.3": "llama-3.1",
    "llama4": "llama-4",
    "mistral-instruct": "mistral-v1",
    "mistral-nemo": "mistral-v3-tekken",
    "mistral-tekken": "mistral-v3-tekken",
    "phi3": "phi-3",
    "qwen": "chatml",
    "tinyllama": "zephyr",
}


def builtin(name: str) -> Builtin:
    """The built-in template `name`; names used by other programs are also accepted.

    Raises TemplateError if there is no such template.
    """
    found = BUILTINS.get(_OTHER_NAMES.get(name, name))
    if found is None:
        raise TemplateError(f"there is no built-in chat template {name!r}; expected one of {', '.join(BUILTINS)}")
    return found


def is_builtin(name: str) -> bool:
    """Whether `name` names a built-in template."""
    return _OTHER_NAMES.get(name, name) in BUILTINS


@functools.cache
def source_of(template: Builtin) -> str:
    """The Jinja source of a built-in template."""
    file = resources.files("llamacpu.chat").joinpath("templates", f"{template.file}.jinja")
    return template.prelude + file.read_text(encoding="utf-8")


# Tokens that reveal which format a vocabulary was made for, the most specific first.
_TELLING_TOKENS = (
    ("<|header_start|>", "llama-4"),
    ("<|start_header_id|>", "llama-3"),
    ("<|eom|>", "muse-glimmer"),
    ("<|im_sep|>", "phi-4"),
    ("<|im_start|>", "chatml"),
    ("<|turn>", "gemma-4"),
    ("<start_of_turn>", "gemma"),
    ("<|START_ACTION|>", "command-r7b"),
    ("<|START_OF_TURN_TOKEN|>", "command-r"),
    ("\uff5cDSML\uff5c", "deepseek-3.2"),
    ("<\uff5cAssistant\uff5c>", "deepseek"),
    ("<|channel|>", "gpt-oss"),
    ("<|start_of_role|>", "granite"),
    ("<seed:bos>", "seed"),
    ("<arg_key>", "glm-4.5"),
    ("[gMASK]", "glm-4"),
    ("<|/tool_call|>", "phi-4-mini"),
    ("<|assistant|>", "phi-3"),
    ("[SYSTEM_PROMPT]", "mistral-v7-tekken"),
    ("[INST]", "mistral-v3"),
)
# Parts of model names that reveal the format when the vocabulary does not.
_TELLING_NAMES = (
    ("olmo-2", "olmo-2"),
    ("olmo2", "olmo-2"),
    ("codellama-70b", "codellama-70b"),
    ("codellama", "llama-2"),
    ("llama-2", "llama-2"),
    ("mistral", "mistral-v1"),
    ("mixtral", "mistral-v1"),
    ("tinyllama", "zephyr"),
    ("zephyr", "zephyr"),
    ("vicuna", "vicuna"),
    ("alpaca", "alpaca"),
)


# Words in the names of models that were trained to answer.
_CHAT_WORDS = re.compile(
    r"instruct|chat|assistant|guard|vicuna|zephyr|alpaca|hermes|dolphin|wizard|orca|tulu|koala|guanaco"
    r"|(?<![a-z])(it|sft|dpo|rlhf|tuned)(?![a-z])"
)
_NAME_KEYS = ("general.name", "general.basename", "general.finetune")


def speaks_of_chat(metadata: Mapping[str, Any], file_name: str = "") -> bool:
    """Whether one of the model's names says that it was trained to answer messages."""
    names = " ".join([*(str(metadata.get(key, "")) for key in _NAME_KEYS), file_name]).lower()
    return _CHAT_WORDS.search(names) is not None


# Architectures whose models use another template than others with the same tokens.
_TELLING_ARCHITECTURES = {"deepseek4": "deepseek-4", "qwen35": "qwen-3.5", "qwen35moe": "qwen-3.5"}


def guess(model_name: str, has_token: Callable[[str], bool], architecture: str = "") -> str:
    """Guess the built-in template for a file without one: ChatML, unless the file indicates another."""
    if architecture in _TELLING_ARCHITECTURES:
        return _TELLING_ARCHITECTURES[architecture]
    for token, name in _TELLING_TOKENS:
        if has_token(token):
            return name
    plain = model_name.lower().replace("_", "-").replace(" ", "-").replace("code-llama", "codellama")
    return next((name for part, name in _TELLING_NAMES if part in plain), "chatml")
