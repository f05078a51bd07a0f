"""Chat formats from the files of Hugging Face transformers, and guesses from the metadata of a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.chat import ChatTemplate
from llamacpu.llama.formats import ChatFormatter, ChatFormatterResponse, FormattedChat, LlamaChatCompletionHandler
from llamacpu.llama.standard_formats import FORMATS

__all__ = [
    "guess_chat_format_from_gguf_metadata",
    "hf_autotokenizer_to_chat_completion_handler",
    "hf_autotokenizer_to_chat_formatter",
    "hf_tokenizer_config_to_chat_completion_handler",
    "hf_tokenizer_config_to_chat_formatter",
]


def hf_autotokenizer_to_chat_formatter(pretrained_model_name_or_path: str | os.PathLike[str]) -> ChatFormatter:
    """A formatter with the chat template of a folder or a Hugging Face repository.

    Raises ImportError without transformers.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ImportError(
            "hf_autotokenizer_to_chat_formatter needs transformers; install it with: pip install transformers"
        ) from None
    tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path)

    def formatter(messages: Sequence[Mapping[str, Any]], **settings: Any) -> ChatFormatterResponse:
        settings = {name: value for name, value in settings.items() if value is not None}
        wanted = {"tokenize": False, "add_generation_prompt": True, **settings}
        prompt = tokenizer.apply_chat_template([dict(message) for message in messages], **wanted)
        return ChatFormatterResponse(str(prompt), stop=tokenizer.eos_token, added_special=True)

    return formatter


def hf_autotokenizer_to_chat_completion_handler(
    pretrained_model_name_or_path: str | os.PathLike[str],
) -> LlamaChatCompletionHandler:
    """A handler with the chat template of a folder or a Hugging Face repository.

    Raises ImportError without transformers.
    """
    return FormattedChat(hf_autotokenizer_to_chat_formatter(pretrained_model_name_or_path))


def hf_tokenizer_config_to_chat_formatter(
    tokenizer_config: Mapping[str, Any], add_generation_prompt: bool = True
) -> ChatFormatter:
    """A formatter with the template of a ``tokenizer_config.json``: its "chat_template", "bos_token" and "eos_token".

    As in llama-cpp-python, the answer begins with an empty assistant message at the end of the conversation, unless
    the template uses `add_generation_prompt` itself. Raises ValueError if one of the three is missing.
    """
    template = ChatTemplate(
        _configured(tokenizer_config, "chat_template"),
        bos_token=_configured(tokenizer_config, "bos_token"),
        eos_token=_configured(tokenizer_config, "eos_token"),
    )

    def formatter(messages: Sequence[Mapping[str, Any]], **variables: Any) -> ChatFormatterResponse:
        if add_generation_prompt and "add_generation_prompt" not in template.variables:
            messages = [*messages, {"role": "assistant", "content": ""}]
        variables.setdefault("add_generation_prompt", add_generation_prompt)
        prompt = template.render(messages, **variables)
        stop = [token for token in (template.eos_token, template.bos_token) if token]
        return ChatFormatterResponse(prompt, stop=stop, added_special=True)

    return formatter


def hf_tokenizer_config_to_chat_completion_handler(
    tokenizer_config: Mapping[str, Any], add_generation_prompt: bool = True
) -> LlamaChatCompletionHandler:
    """A handler with the template of a ``tokenizer_config.json``; see `hf_tokenizer_config_to_chat_formatter`."""
    return FormattedChat(hf_tokenizer_config_to_chat_formatter(tokenizer_config, add_generation_prompt))


def _configured(config: Mapping[str, Any], name: str) -> str:
    """A string of the configuration; tokens may also be objects with their text as "content"."""
    value = config.get(name) if isinstance(config, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get("content")
    if name == "chat_template" and isinstance(value, list):
        found = {item.get("name"): item.get("template") for item in value if isinstance(item, Mapping)}
        value = found.get("default")
    if not isinstance(value, str):
        raise ValueError(f"the tokenizer's configuration has no text {name!r}; expected the JSON object of its file")
    return value


# A conversation that all of the known templates accept, and the beginning of the prompt that each makes of it.
_CONVERSATION = (
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": "answer"},
    {"role": "user", "content": "another"},
)
_KNOWN: dict[str, str | tuple[str, ...]] = {
    "chatml": "<|im_start|>user\nquestion<|im_end|>\n<|im_start|>assistant\nanswer<|im_end|>\n",
    "mistral-instruct": ("[INST] question [/INST]answer</s>", "[INST] question [/INST] answer</s>"),
    "llama-3": "<|start_header_id|>user<|end_header_id|>\n\nquestion<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nanswer<|eot_id|>",
}


def guess_chat_format_from_gguf_metadata(metadata: Mapping[str, Any]) -> str | None:
    """The name of the chat format of the template in the metadata: chatml, mistral-instruct or llama-3.

    None if there is no template or it writes another format. The format is determined by rendering a conversation with
    the template.
    """
    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        return None
    try:
        template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
        prompt = template.render([dict(message) for message in _CONVERSATION]).removeprefix("<s>")
    except ValueError:
        return None
    return next((name for name, begins in _KNOWN.items() if prompt.startswith(begins) and name in FORMATS), None)
