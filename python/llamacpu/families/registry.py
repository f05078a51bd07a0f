"""Families by their names in `general.architecture`, and descriptions of files that belong to none."""

from __future__ import annotations

import importlib

from llamacpu.errors import ModelError
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["FAMILIES", "config_for"]

FAMILIES = {
    "arcee": "arcee",
    "baichuan": "baichuan",
    "bailingmoe": "bailingmoe",
    "bert": "bert",
    "bloom": "bloom",
    "chatglm": "chatglm",
    "codeshell": "codeshell",
    "cohere2": "cohere2",
    "command-r": "command_r",
    "dbrx": "dbrx",
    "deberta-v2": "deberta_v2",
    "deci": "deci",
    "deepseek": "deepseek",
    "deepseek2": "deepseek2",
    "deepseek32": "deepseek32",
    "deepseek4": "deepseek4",
    "dots1": "dots1",
    "ernie4_5": "ernie4_5",
    "ernie4_5-moe": "ernie4_5",
    "eurobert": "eurobert",
    "exaone": "exaone",
    "exaone-moe": "exaone_moe",
    "exaone4": "exaone4",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma-embedding": "gemma_embedding",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma4": "gemma4",
    "glm-dsa": "glm_dsa",
    "glm4": "glm4",
    "glm4moe": "glm4moe",
    "gpt-oss": "gpt_oss",
    "gpt2": "gpt2",
    "gptneox": "gptneox",
    "granite": "granite",
    "granitemoe": "granite",
    "hunyuan-dense": "hunyuan",
    "hunyuan-moe": "hunyuan",
    "internlm2": "internlm2",
    "jais": "jais",
    "jais2": "jais2",
    "jina-bert-v2": "jina_bert_v2",
    "jina-bert-v3": "jina_bert_v3",
    "llama": "llama",
    "llama4": "llama4",
    "minicpm": "minicpm",
    "minimax-m2": "minimax_m2",
    "mistral3": "mistral3",
    "mistral4": "mistral4",
    "mllama": "mllama",
    "modern-bert": "modern_bert",
    "mpt": "mpt",
    "muse-glimmer": "muse_glimmer",
    "nemotron": "nemotron",
    "nomic-bert": "nomic_bert",
    "nomic-bert-moe": "nomic_bert",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
    "openelm": "openelm",
    "orion": "orion",
    "pangu-embedded": "pangu",
    "phi2": "phi2",
    "phi3": "phi3",
    "phimoe": "phimoe",
    "plamo": "plamo",
    "qwen": "qwen",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2moe",
    "qwen2vl": "qwen2vl",
    "qwen3": "qwen3",
    "qwen35": "qwen35",
    "qwen35moe": "qwen35",
    "qwen3moe": "qwen3",
    "qwen3vl": "qwen3vl",
    "qwen3vlmoe": "qwen3vl",
    "qwen3next": "qwen3next",
    "refact": "refact",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder": "gpt2",
    "starcoder2": "starcoder2",
    "xverse": "xverse",
}
"""Architecture, as in general.architecture, to family: a module here with a function of the same name.

It is imported on demand: a model needs only one.
"""

# Files that are valid GGUF but not language models, by general.type and by general.architecture.
_OTHER_KINDS = {
    "adapter": "a LoRA adapter; open the model it was made for",
    "imatrix": "an importance matrix, which is input for quantizing; open a model",
    "mmproj": "the vision part of a model; open the language model that belongs to it",
}
_DRAFTER = (
    "a drafter, which proposes tokens to a model; open the model it was made for, and give it the drafter "
    "(--draft-model, Model.open_draft)"
)
_OTHER_ARCHITECTURES = {
    "clip": "the vision part of a model; open the language model that belongs to it",
    "controlvector": "a control vector; open the model it was made for",
    "dflash": _DRAFTER,
    "eagle3": _DRAFTER,
    "gemma4-assistant": _DRAFTER,
    "imatrix": _OTHER_KINDS["imatrix"],
}


def config_for(file: GGUFFile) -> Config:
    """The configuration of the model in `file`, as its family reads it.

    Raises `ModelError` if the file is not a language model, has an unknown architecture, or has metadata that is
    missing or out of range. Tensors are looked up and shape-checked by the native model.
    """
    metadata = file.metadata
    try:
        kind = metadata.text("general.type", "model")
        if kind in _OTHER_KINDS:
            raise ModelError(f"this is {_OTHER_KINDS[kind]}")
        name = metadata.text("general.architecture")
        if name in _OTHER_ARCHITECTURES:
            raise ModelError(f"this is {_OTHER_ARCHITECTURES[name]}")
        if name not in FAMILIES:
            known = ", ".join(sorted(FAMILIES))
            raise ModelError(f"the architecture {name[:60]!r} is not supported; supported are: {known}")
        if not file.tensors:
            raise ModelError(
                "the file holds a vocabulary and no weights; open it with llamacpu.Tokenizer, or get the model"
            )
        return _family(FAMILIES[name], file, name)
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}") from None


def _family(family: str, file: GGUFFile, name: str) -> Config:
    module = importlib.import_module(f"llamacpu.families.{family}")
    config: Config = getattr(module, family)(file, name)
    return config
