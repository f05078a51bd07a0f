"""LoRA adapters of PEFT to GGUF."""

from llamacpu.tools.convert_lora.convert import convert_lora, is_adapter

__all__ = ["convert_lora", "is_adapter"]
