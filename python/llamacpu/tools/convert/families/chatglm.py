"""ChatGLM 2 and 3, and GLM 4 of 2024, in the names of their own code and in those of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.tools.convert.families.glm import Glm4
from llamacpu.tools.convert.tokenizers.chatglm import has_chatglm_pieces, set_chatglm_pieces, set_chatglm_ranks
from llamacpu.tools.convert.tokenizers.ranks import has_ranks

__all__ = ["ChatGlm"]


class ChatGlm(Glm4):
    """ChatGLM."""

    architecture = "chatglm"
    names: ClassVar[Mapping[str, str]] = {}

    def renamed(self, name: str) -> str | None:
        if name.endswith(".rotary_pos_emb.inv_freq"):
            return None
        return super().renamed(name.removeprefix("transformer."))

    def set_vocabulary(self) -> None:
        self.config.setdefault("vocab_size", self.config.get("padded_vocab_size"))
        if has_chatglm_pieces(self.folder):
            set_chatglm_pieces(self.folder, self.config, self.keys)
        elif has_ranks(self.folder):
            set_chatglm_ranks(self.folder, self.config, self.keys, self.special_texts())
        else:
            super().set_vocabulary()

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        return ("eos", "<|endoftext|>"), ("eot", "<|user|>"), ("unk", "<|endoftext|>")

    def set_parameters(self) -> None:
        keys, source, config = self.keys, self.source, self.config
        width, heads = source.integer("hidden_size", "n_embed"), source.integer("n_head", "num_attention_heads")
        keys.set("context_length", config.get("seq_length", width))
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", config.get("ffn_hidden_size", config.get("intermediate_size", 4 * width)))
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", heads)
        keys.set(
            "attention.head_count_kv", config.get("multi_query_group_num", config.get("num_key_value_heads", heads))
        )
        keys.set("attention.layer_norm_rms_epsilon", config.get("layernorm_epsilon", 1e-5))
        keys.add("general.file_type", self.file_type, "uint32")
        size = source.integer("attention_dim") if "attention_dim" in config else width // heads
        keys.set("rope.dimension_count", int(size * source.rope_number("partial_rotary_factor", 0.5)))
        keys.add("tokenizer.ggml.add_bos_token", False, "bool")
        keys.set("rope.freq_base", 10000 * (source.number("rope_ratio") if "rope_ratio" in config else 1))
