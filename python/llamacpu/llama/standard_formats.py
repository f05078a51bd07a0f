"""The named chat formats of llama-cpp-python: functions from messages to a prompt, all of them registered.

    format_llama3(messages=[{"role": "user", "content": "Hi"}]).prompt

The prompts are those of that library, except where it loses the messages (open-orca) or prints the name of a variable
(intel): here the prompts have the messages and the value. Nothing in the text of messages is treated as a control
token. `Llama(chat_format=...)` prefers the built-in template of a name if there is one, because that supports tools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamacpu.chat.builtin import builtin, is_builtin, source_of
from llamacpu.chat.template import Traced
from llamacpu.llama.formats import (
    ChatFormatter,
    ChatFormatterResponse,
    FormattedChat,
    LlamaChatCompletionHandlerRegistry,
)

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Turns:
    """A chat format made of turns.

    roles       what begins the turn of each role; messages of other roles are left out
    gap         text between that and the message
    empty       replaces gap, text and separator for a message without text, and at the start of the answer
    separators  texts after the messages, used in rotation
    system      the system part, with "{}" for the text of system messages; None if these are turns like the others
    default     the system text if there is none, or in any case if `fixed`
    behind      text after the system part
    stop        the text that ends an answer
    answer      whether the assistant's turn is started at the end
    """

    roles: Mapping[str, str]
    gap: str = ""
    empty: str = ""
    separators: tuple[str, ...] = ("",)
    system: str | None = "{}"
    default: str = ""
    fixed: bool = False
    behind: str = ""
    stop: str | None = None
    answer: bool = True

    def __call__(self, messages: Messages, **kwargs: Any) -> ChatFormatterResponse:
        """Return the prompt for the messages."""
        prompt = ""
        if self.system is not None:
            before, _, after = self.system.partition("{}")
            text = self.default if self.fixed else _system(messages) or self.default
            prompt = before + text + after + self.behind
        for place, (role, text) in enumerate(_turns(messages, self.roles)):
            end = self.separators[place % len(self.separators)]
            prompt += role + self.gap + text + end if text else role + self.empty
        if self.answer:
            prompt += self.roles["assistant"] + self.empty
        return ChatFormatterResponse(prompt, stop=self.stop)


def _text(message: Mapping[str, Any]) -> str:
    """The text of a message, marked as data; the texts of its parts are joined."""
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        parts = [part if isinstance(part, str) else part.get("text", "") for part in content]
        content = "".join(str(part) for part in parts)
    return Traced(str(content)) if content else ""


def _system(messages: Messages) -> str:
    """The text of the first system message."""
    return next((_text(message) for message in messages if message["role"] in ("system", "developer")), "")


def _turns(messages: Messages, roles: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(roles[message["role"]], _text(message)) for message in messages if message["role"] in roles]


def _two(user: str, assistant: str) -> dict[str, str]:
    return {"user": user, "assistant": assistant}


_LINE = "\n"
_CURIOUS = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# The texts below are those that the models were trained with.
_BUDDY = """You are a helpful, respectful and honest INTP-T AI Assistant named Buddy. You are talking to a human User.
Always answer as helpfully and logically as possible, while being safe. Your answers should not include any harmful, political, religious, unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive in nature.
If a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. If you don't know the answer to a question, please don't share false information.
You can speak fluently in many languages, for example: English, Chinese.
You cannot access the internet, but you have vast knowledge, cutoff: 2021-09.
You are trained by OpenBuddy team, (https://openbuddy.ai, https://github.com/OpenBuddy/OpenBuddy), you are based on LLaMA and Falcon transformers model, not related to GPT or OpenAI.

"""  # noqa: E501
_ORCA = (
    "You are a helpful assistant. Please answer truthfully and write out your thinking step by step to be sure you get "
    "the right answer. If you make a mistake or encounter an error in your thinking, say so out loud and attempt to "
    "correct it. If you don't know or aren't sure about something, say so clearly. You will act as a professional "
    "logician, mathematician, and physicist. You will also act as the most appropriate type of expert to answer any "
    "particular question or solve the relevant problem; state which expert type your are, if so. Also think of any "
    "particular named expert that would be ideal to answer the relevant question or solve the relevant problem; name "
    "and act as them, if appropriate."
)
_SNOOZY = (
    "The prompt below is a question to answer, a task to complete, or a conversation to respond to; decide which and "
    "write an appropriate response."
)


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


format_llama3: Turns = Turns(
    {role: _header(role) for role in ("system", "user", "assistant")}, separators=("<|eot_id|>",), system=None,
    stop="<|eot_id|>",
)  # fmt: skip
format_alpaca: Turns = Turns(
    _two("### Instruction", "### Response"), ": ", ":", ("\n\n", "</s>"), behind="\n\n", answer=False
)  # fmt: skip
format_qwen: Turns = Turns(
    _two("<|im_start|>user", "<|im_start|>assistant"), _LINE, _LINE, ("<|im_end|>\n",), "<|im_start|>system\n{}",
    "You are a helpful assistant.", behind="<|im_end|>\n", stop="<|endoftext|>",
)  # fmt: skip
format_vicuna: Turns = Turns(
    _two("USER", "ASSISTANT"), ": ", ":", (" ", "</s>"), fixed=True, default=_CURIOUS, behind=" "
)
format_oasst_llama: Turns = Turns(
    _two("<|prompter|>", "<|assistant|>"), separators=("</s>",), system="[INST] <<SYS>>\n{}\n<</SYS>>\n\n"
)
format_baichuan2: Turns = Turns(_two("<reserved_106>", "<reserved_107>"))
format_baichuan: Turns = Turns(_two("<reserved_102>", "<reserved_103>"))
format_openbuddy: Turns = Turns(
    _two("User", "Assistant"), ": ", ":", (_LINE,), fixed=True, default=_BUDDY, behind=_LINE
)
format_redpajama_incite: Turns = Turns(_two("<human>", "<bot>"), ": ", ":", (_LINE,), behind=_LINE, stop="<human>")
format_snoozy: Turns = Turns(
    _two("### Prompt", "### Response"), ": ", ":", (_LINE,), default=_SNOOZY, behind=_LINE, stop="###"
)
format_phind: Turns = Turns(
    _two("### User Message", "### Assistant"), ": ", ":", ("\n\n",),
    fixed=True, default="### System Prompt\nYou are an intelligent programming assistant.", behind="\n\n",
)  # fmt: skip
format_intel: Turns = Turns(
    _two("### User:", "### Assistant:"), ": ", ":", (_LINE,), system="### System:\n{}", behind=_LINE
)  # fmt: skip
format_open_orca: Turns = Turns(
    _two("User", "Assistant"), ": ", ": ", ("<|end_of_turn|>\n",), fixed=True, default=_ORCA,
    behind="<|end_of_turn|>\n", stop="User",
)  # fmt: skip
format_mistrallite: Turns = Turns(
    _two("<|prompter|>", "</s>\n<|assistant|>"), separators=(" ",), system="<|system|>{}</s>"
)  # fmt: skip
format_zephyr: Turns = Turns(
    _two("<|user|>\n", "<|assistant|>\n"), _LINE, _LINE, ("</s>\n",), "<|system|>\n{}", behind="</s>\n", stop="</s>"
)
format_pygmalion: Turns = Turns(
    _two("<|user|>", "<|model|>"), _LINE, _LINE, ("\n\n",), "<|system|>{}", behind="\n\n", stop=_LINE
)
format_chatml: Turns = Turns(
    _two("<|im_start|>user", "<|im_start|>assistant"), _LINE, _LINE, ("<|im_end|>\n",), "<|im_start|>system\n{}",
    behind="<|im_end|>\n", stop="<|im_end|>",
)  # fmt: skip
format_chatglm3: Turns = Turns(
    _two("<|user|>", "<|assistant|>"), "\n ", system="<|system|>\n{}", stop="</s>"
)  # fmt: skip
format_openchat: Turns = Turns(
    _two("GPT4 Correct User: ", "<|end_of_turn|>GPT4 Correct Assistant: "), _LINE, _LINE, ("<|end_of_turn|>\n",),
    "{}<|end_of_turn|>", behind="<|end_of_turn|>\n", stop="<|end_of_turn|>",
)  # fmt: skip
format_gemma: Turns = Turns(
    _two("<start_of_turn>user\n", "<start_of_turn>model\n"), separators=("<end_of_turn>\n",), system=None,
    stop="<end_of_turn>\n",
)  # fmt: skip


def format_llama2(messages: Messages, **kwargs: Any) -> ChatFormatterResponse:
    """Return the prompt for the messages; the system text is part of the first turn."""
    system = _system(messages)
    prompt = "[INST] <<SYS>>\n" + system + "\n<</SYS>> " if system else " "
    for place, (role, text) in enumerate(_turns(messages, _two("<s>[INST]", "[/INST]"))):
        end = "</s>" if place % 2 else " "
        if system and place == 0:
            prompt += text + end
        else:
            prompt += role + text + " " + end if text else role + " "
    return ChatFormatterResponse(prompt + "[/INST]")


def format_mistral_instruct(messages: Messages, **kwargs: Any) -> ChatFormatterResponse:
    """Return the prompt for the messages, without the system message."""
    prompt = ""
    for message in messages:
        if message.get("content") is None:
            continue
        if message["role"] == "user":
            prompt += "[INST] " + _text(message)
        elif message["role"] == "assistant":
            prompt += " [/INST]" + _text(message) + "</s>"
    return ChatFormatterResponse(prompt + " [/INST]", stop="</s>")


def format_saiga(messages: Messages, **kwargs: Any) -> ChatFormatterResponse:
    """Return the prompt for the messages; the model calls the assistant "bot"."""
    prompt = ""
    roles = {"user": "user", "bot": "bot", "assistant": "bot", "system": "system"}
    for role, text in _turns(messages, roles):
        prompt += "<s>" + role + _LINE + text + ("</s>" if text else "")
    return ChatFormatterResponse((prompt + "<s>bot").strip())


FORMATS: Mapping[str, ChatFormatter] = {
    "llama-2": format_llama2, "llama-3": format_llama3, "alpaca": format_alpaca, "qwen": format_qwen,
    "vicuna": format_vicuna, "oasst_llama": format_oasst_llama, "baichuan-2": format_baichuan2,
    "baichuan": format_baichuan, "openbuddy": format_openbuddy, "redpajama-incite": format_redpajama_incite,
    "snoozy": format_snoozy, "phind": format_phind, "intel": format_intel, "open-orca": format_open_orca,
    "mistrallite": format_mistrallite, "zephyr": format_zephyr, "pygmalion": format_pygmalion,
    "chatml": format_chatml, "mistral-instruct": format_mistral_instruct, "chatglm3": format_chatglm3,
    "openchat": format_openchat, "saiga": format_saiga, "gemma": format_gemma,
}  # fmt: skip
"""All formats by their name in `chat_format`."""

# All formats by the names of their functions; the one for vicuna is called `format` in llama-cpp-python.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "format": format_vicuna,
    **{name: value for name, value in dict(globals()).items() if name.startswith("format_")},
}


def templates() -> dict[str, str]:
    """Jinja sources and special tokens under llama-cpp-python's names."""
    mistral = source_of(builtin("mistral-v1"))
    return {
        "CHATML_CHAT_TEMPLATE": source_of(builtin("chatml")),
        "CHATML_BOS_TOKEN": "<s>",
        "CHATML_EOS_TOKEN": "<|im_end|>",
        "MISTRAL_INSTRUCT_CHAT_TEMPLATE": mistral,
        "MISTRAL_INSTRUCT_BOS_TOKEN": "<s>",
        "MISTRAL_INSTRUCT_EOS_TOKEN": "</s>",
        "MIXTRAL_INSTRUCT_CHAT_TEMPLATE": mistral,
        "LLAMA3_INSTRUCT_CHAT_TEMPLATE": source_of(builtin("llama-3")),
    }


for _name, _formatter in FORMATS.items():
    LlamaChatCompletionHandlerRegistry().register_chat_completion_handler(
        _name, FormattedChat(_formatter, template_instead=is_builtin(_name)), overwrite=True
    )
