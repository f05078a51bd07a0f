"""Which family converts a checkpoint: by the class of transformers that its configuration names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from llamacpu.errors import CheckpointError
from llamacpu.families.drafters import DRAFTERS
from llamacpu.families.registry import FAMILIES as RUNNING

if TYPE_CHECKING:
    from llamacpu.tools.convert.families.base import Family
    from llamacpu.tools.convert.source import Source
    from llamacpu.tools.convert.towers.base import Tower

__all__ = ["FAMILIES", "TOWERS", "family_of", "tower_of"]

# Class of transformers to the module in families/ and the class in it.
_CLASSES = {
    "llama.Llama": "LLaMAForCausalLM LlamaForCausalLM LlamaModel MistralForCausalLM MixtralForCausalLM"
    " VLlama3ForCausalLM IQuestCoderForCausalLM LlavaForConditionalGeneration"
    " Idefics3ForConditionalGeneration SmolVLMForConditionalGeneration",
    "llama.Arcee": "ArceeForCausalLM",
    "llama.SmolLM3": "SmolLM3ForCausalLM",
    "llama.Mistral3": "Ministral3ForCausalLM Mistral3ForConditionalGeneration",
    "llama.Granite": "GraniteForCausalLM",
    "llama.GraniteMoe": "GraniteMoeForCausalLM GraniteMoeSharedForCausalLM",
    "llama.Llama4": "Llama4ForCausalLM Llama4ForConditionalGeneration",
    "qwen.Qwen2": "Qwen2ForCausalLM Qwen2Model KORMoForCausalLM Qwen2AudioForConditionalGeneration",
    "qwen.Qwen2Moe": "Qwen2MoeForCausalLM",
    "qwen_vl.Qwen2Vl": "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration",
    "qwen.Qwen3": "Qwen3ForCausalLM Qwen3Model Qwen3ForSequenceClassification",
    "qwen.Qwen3Moe": "Qwen3MoeForCausalLM",
    "qwen_vl.Qwen3Vl": "Qwen3VLForConditionalGeneration",
    "qwen_vl.Qwen3VlMoe": "Qwen3VLMoeForConditionalGeneration",
    "qwen.Olmoe": "OlmoeForCausalLM",
    "qwen.Dots1": "Dots1ForCausalLM",
    "gemma.Gemma": "GemmaForCausalLM",
    "gemma.Gemma2": "Gemma2ForCausalLM",
    "gemma.Gemma3": "Gemma3ForCausalLM Gemma3ForConditionalGeneration",
    "gemma.EmbeddingGemma": "Gemma3TextModel",
    "phi.Phi2": "PhiForCausalLM",
    "phi.Phi3": "Phi3ForCausalLM",
    "deepseek.Deepseek2": "DeepseekV2ForCausalLM DeepseekV3ForCausalLM",
    "deepseek.Deepseek32": "DeepseekV32ForCausalLM",
    "deepseek4.Deepseek4": "DeepseekV4ForCausalLM",
    "deepseek.Glm4MoeLite": "Glm4MoeLiteForCausalLM",
    "deepseek.GlmDsa": "GlmMoeDsaForCausalLM",
    "deepseek.Mistral4": "Mistral4ForCausalLM",
    "hybrids.Qwen3Next": "Qwen3NextForCausalLM",
    "hybrids.Qwen35": "Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration",
    "hybrids.Qwen35Moe": "Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration",
    "gemma4.Gemma4": "Gemma4ForCausalLM Gemma4ForConditionalGeneration",
    "gemma4.Gemma4Unified": "Gemma4UnifiedForConditionalGeneration",
    "gemma4.Gemma4Assistant": "Gemma4AssistantForCausalLM Gemma4UnifiedAssistantForCausalLM",
    "drafters.MuseGlimmerAssistant": "MuseGlimmerAssistantModel",
    "drafters.DFlash": "DFlashDraftModel",
    "drafters.Eagle3": "LlamaForCausalLMEagle3 Eagle3LlamaForCausalLM Eagle3Speculator Eagle3DraftModel",
    "glimmer.MuseGlimmer": "MuseGlimmerForConditionalGeneration MuseGlimmerForCausalLM",
    "gpt_oss.GptOss": "GptOssForCausalLM",
    "deci.Deci": "DeciLMForCausalLM",
    "fused.Ernie": "Ernie4_5ForCausalLM Ernie4_5_ForCausalLM",
    "fused.ErnieMoe": "Ernie4_5_MoeForCausalLM",
    "fused.InternLm2": "InternLM2ForCausalLM",
    "fused.Falcon": "FalconForCausalLM RWForCausalLM",
    "fused.Gpt2": "GPT2LMHeadModel",
    "code_models.Starcoder": "GPTBigCodeForCausalLM",
    "seed_oss.SeedOss": "SeedOssForCausalLM",
    "code_models.Starcoder2": "Starcoder2ForCausalLM",
    "olmo.Olmo2": "Olmo2ForCausalLM Olmo3ForCausalLM",
    "cohere.CommandR": "CohereForCausalLM",
    "cohere.Cohere2": "Cohere2ForCausalLM",
    "glm.Glm4": "Glm4ForCausalLM",
    "glm.Glm4Moe": "Glm4MoeForCausalLM",
    "nemotron.Nemotron": "NemotronForCausalLM",
    "stablelm.StableLm": "StableLmForCausalLM StableLMEpochForCausalLM",
    "exaone.Exaone": "ExaoneForCausalLM",
    "exaone.Exaone4": "Exaone4ForCausalLM",
    "baichuan.Orion": "OrionForCausalLM",
    "baichuan.Xverse": "XverseForCausalLM",
    "llama.MiniCpm": "MiniCPMForCausalLM",
    "older.GptNeox": "GPTNeoXForCausalLM",
    "older.Bloom": "BloomForCausalLM BloomModel",
    "older.Mpt": "MPTForCausalLM MptForCausalLM",
    "olmo.Olmo": "OlmoForCausalLM OLMoForCausalLM",
    "older.PhiMoe": "PhiMoEForCausalLM PhimoeForCausalLM",
    "older.DeepseekMoe": "DeepseekForCausalLM",
    "encoders.Bert": "BertModel BertForMaskedLM BertForSequenceClassification CamembertModel",
    "encoders.DistilBert": "DistilBertModel DistilBertForMaskedLM DistilBertForSequenceClassification",
    "encoders.Roberta": "RobertaModel RobertaForSequenceClassification",
    "encoders.XlmRoberta": "XLMRobertaModel XLMRobertaForSequenceClassification",
    "encoders.NomicBert": "NomicBertModel",
    "encoders.ModernBert": "ModernBertModel ModernBertForMaskedLM ModernBertForSequenceClassification",
    "encoders.EuroBert": "EuroBertModel",
    "jina.JinaBert2": "JinaBertModel JinaBertForMaskedLM",
    "deberta.Deberta": "DebertaV2Model DebertaV2ForMaskedLM DebertaV2ForSequenceClassification",
    "experts.BailingMoe": "BailingMoeForCausalLM",
    "experts.Dbrx": "DbrxForCausalLM",
    "exaone.ExaoneMoe": "ExaoneMoEForCausalLM ExaoneMoeForCausalLM",
    "experts.MiniMaxM2": "MiniMaxM2ForCausalLM",
    "hunyuan.Hunyuan": "HunYuanDenseV1ForCausalLM",
    "hunyuan.HunyuanMoe": "HunYuanMoEV1ForCausalLM",
    "chatglm.ChatGlm": "GlmForCausalLM ChatGLMModel ChatGLMForConditionalGeneration",
    "baichuan.Baichuan": "BaichuanForCausalLM BaiChuanForCausalLM",
    "code_models.CodeShell": "CodeShellForCausalLM",
    "jais.Jais": "JAISLMHeadModel",
    "jais.Jais2": "Jais2ForCausalLM",
    "openelm.OpenElm": "OpenELMForCausalLM",
    "pangu.Pangu": "PanguEmbeddedForCausalLM",
    "plamo.Plamo": "PlamoForCausalLM",
    "qwen.Qwen": "QWenLMHeadModel",
    "code_models.Refact": "GPTRefactForCausalLM",
    "mllama.Mllama": "MllamaForConditionalGeneration",
}
_TOWERS = {
    "kinds.Llama4Tower": "Llama4ForConditionalGeneration",
    "kinds.Gemma3Tower": "Gemma3ForConditionalGeneration",
    "kinds.Idefics3Tower": "Idefics3ForConditionalGeneration SmolVLMForConditionalGeneration",
    "kinds.PixtralTower": "LlavaForConditionalGeneration Mistral3ForConditionalGeneration",
    "qwen.Qwen2VlTower": "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration",
    "qwen.Qwen3VlTower": "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration"
    " Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration",
    "internvl.InternVlTower": "InternVLChatModel InternVLForConditionalGeneration",
    "kinds.MuseGlimmerTower": "MuseGlimmerForConditionalGeneration",
}
TOWERS = {theirs: ours for ours, names in _TOWERS.items() for theirs in names.split()}
FAMILIES = {theirs: ours for ours, names in _CLASSES.items() for theirs in names.split()}


def family_of(source: Source) -> type[Family]:
    """The family of a checkpoint; CheckpointError if its class is not one that can be converted."""
    name = FAMILIES.get(source.architecture)
    if name is None:
        raise CheckpointError(
            f"config.json: the architecture {source.architecture!r:.80} cannot be converted; "
            f"the following can: {', '.join(sorted(FAMILIES))}"
        )
    if name == "encoders.NomicBert" and source.config.get("moe_every_n_layers"):
        name = "encoders.NomicBertMoe"
    if name == "llama.Mistral3" and source.model_type == "mistral4":
        name = "deepseek.Mistral4"
    if name == "llama.Llama" and "draft_vocab_size" in source.config and source.layers == 1:
        name = "drafters.Eagle3"
    if name == "encoders.XlmRoberta" and source.config.get("lora_adaptations"):
        name = "jina.JinaBert3"
    module, _, kind = name.partition(".")
    family: type[Family] = getattr(importlib.import_module(f"llamacpu.tools.convert.families.{module}"), kind)
    if source.target is not None and module != "drafters":
        raise CheckpointError(
            f"config.json: {source.architecture!r:.80} is no drafter that takes the tokenizer of its target model; "
            "convert it without one (target_model, --target-model)"
        )
    if family.architecture not in (*RUNNING, *DRAFTERS):
        raise CheckpointError(
            f"config.json: {source.architecture!r:.80} would become a file of the architecture "
            f"{family.architecture!r}, which does not run here"
        )
    return family


def tower_of(source: Source) -> type[Tower]:
    """The vision encoder in a checkpoint; CheckpointError if its class has none that can be converted."""
    names = source.root.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name not in TOWERS:
        raise CheckpointError(
            f"config.json: the architecture {name!r:.80} has no vision encoder that can be converted; "
            f"expected one of {', '.join(sorted(TOWERS))}"
        )
    module, _, kind = TOWERS[name].partition(".")
    tower: type[Tower] = getattr(importlib.import_module(f"llamacpu.tools.convert.towers.{module}"), kind)
    return tower
