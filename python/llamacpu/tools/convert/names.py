"""Names of tensors: those of transformers to those of GGUF files.

A tensor of a layer is found by what follows the layer's number ("self_attn.q_proj"), another by its whole name. Where
two architectures give one name to different things, the family says which it is (`Family.names`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["BLOCKS", "gguf_name"]

_LAYER = re.compile(
    r"(?:(?:model|gpt_neox|transformer|encoder|backbone|decoder)\.)*(?:layers?|h|blocks)\.(?P<layer>\d+)\.(?P<part>.+)"
)

WHOLE = {
    "token_embd": "gpt_neox.embed_in model.embed_tokens embed_tokens tok_embeddings model.tok_embeddings"
    " transformer.wte wte transformer.word_embeddings word_embeddings embeddings.word_embeddings"
    " embeddings.tok_embeddings embedding.word_embeddings transformer.token_embeddings model.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "word_embeddings_layernorm transformer.word_embeddings_layernorm embeddings.LayerNorm"
    " embeddings.norm emb_ln",
    "position_embd": "transformer.wpe wpe embeddings.position_embeddings",
    "output": "embed_out lm_head output model.lm_head output_layer",
    "output_norm": "gpt_neox.final_layer_norm model.norm norm transformer.ln_f ln_f model.final_layernorm final_norm"
    " encoder.final_layernorm transformer.norm_f transformer.norm",
    "cls": "classifier classifier.dense pre_classifier head.dense",
    "cls.output": "classifier.out_proj",
    "cls.norm": "head.norm",
    "rope_freqs": "rope.freqs",
}
BLOCKS = {
    "attn_norm": "input_layernorm attention_norm attn_norm ln_1 pre_attn_norm pre_attention_layernorm",
    "attn_norm_2": "ln_attn layer_norm_1",
    "attn_q": "self_attn.q_proj attention.wq attention.self.query attention.q_lin attn.q_proj attn.attention.q_proj",
    "attn_k": "self_attn.k_proj attention.wk attention.self.key attention.k_lin attn.k_proj attn.attention.k_proj",
    "attn_v": "self_attn.v_proj attention.wv attention.self.value attention.v_lin attn.v_proj attn.attention.v_proj",
    "attn_qkv": "attention.query_key_value self_attn.qkv_proj attn.Wqkv attn.c_attn self_attention.query_key_value"
    " mixer.Wqkv attn.qkv_proj",
    "attn_output": "attention.dense self_attn.o_proj self_attn.dense attention.wo attention.output.dense"
    " attention.out_lin attn.Wo attn.c_proj attn.out_proj self_attention.dense attn.attention.out_proj mixer.out_proj"
    " self_attn.linear_attn",
    "attn_output_norm": "attention.output.LayerNorm sa_layer_norm norm1",
    "attn_q_norm": "self_attn.q_norm self_attn.q_layernorm self_attn.query_layernorm attn.q_norm"
    " attention.self.layer_norm_q",
    "attn_k_norm": "self_attn.k_norm self_attn.k_layernorm self_attn.key_layernorm attn.k_norm"
    " attention.self.layer_norm_k",
    "attn_sinks": "self_attn.sinks",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_k_b": "self_attn.k_b_proj",
    "attn_v_b": "self_attn.v_b_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "indexer.k_norm": "self_attn.indexer.k_norm",
    "indexer.proj": "self_attn.indexer.weights_proj",
    "indexer.attn_k": "self_attn.indexer.wk",
    "indexer.attn_q_b": "self_attn.indexer.wq_b",
    "ffn_norm": "post_attention_layernorm ffn_norm ln_2 pre_feedforward_layernorm mlp_norm pre_mlp_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm post_mlp_layernorm",
    "ffn_gate": "mlp.gate_proj feed_forward.w1 feed_forward.gate_proj mlp.c_fc_0 mlp.fc12 mlp.c_fc2",
    "ffn_up": "mlp.up_proj feed_forward.w3 feed_forward.up_proj mlp.gate_up_proj mlp.c_fc mlp.fc1 mlp.fc11 mlp.Wi"
    " mlp.dense_h_to_4h mlp.c_fc_1 intermediate.dense ffn.lin1 mlp.gated_layers mlp.up_gated_layer",
    "ffn_down": "mlp.down_proj feed_forward.w2 feed_forward.down_proj mlp.c_proj mlp.fc2 mlp.Wo mlp.dense_4h_to_h"
    " output.dense ffn.lin2 mlp.wo mlp.down_layer ffn.proj_2",
    "ffn_gate_inp": "mlp.gate block_sparse_moe.gate block_sparse_moe.router.layer mlp.router feed_forward.router"
    " mlp.router.layer mlp.gate.wg",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "exp_probs_b": "mlp.gate.e_score_correction mlp.moe_statics.e_score_correction mlp.e_score_correction"
    " block_sparse_moe.e_score_correction",
    "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
    "ffn_gate_exps": "mlp.experts.gate_proj feed_forward.experts.gate_proj block_sparse_moe.experts.w1",
    "ffn_up_exps": "mlp.experts.up_proj feed_forward.experts.up_proj block_sparse_moe.experts.w3 mlp.experts.mlp.w1",
    "ffn_down_exps": "mlp.experts.down_proj feed_forward.experts.down_proj block_sparse_moe.experts.w2"
    " block_sparse_moe.output_linear mlp.experts.mlp.w2",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj mlp.shared_experts.gate_proj feed_forward.shared_expert.gate_proj"
    " mlp.shared_mlp.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj mlp.shared_experts.up_proj feed_forward.shared_expert.up_proj"
    " mlp.shared_mlp.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj mlp.shared_experts.down_proj feed_forward.shared_expert.down_proj"
    " mlp.shared_mlp.down_proj shared_mlp.output_linear",
    "layer_output_norm": "output.LayerNorm output_layer_norm norm2 layer_norm_2 mlp.layernorm",
    "nextn.eh_proj": "eh_proj",
    "nextn.embed_tokens": "embed_tokens",
    "nextn.enorm": "enorm",
    "nextn.hnorm": "hnorm",
    "nextn.shared_head_head": "shared_head.head",
    "nextn.shared_head_norm": "shared_head.norm",
}


def _inverted(table: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, names in table.items() for theirs in names.split()}


_WHOLE = _inverted(WHOLE)
_BLOCKS = _inverted(BLOCKS)


def gguf_name(name: str, own: Mapping[str, str]) -> str | None:
    """The name in a GGUF file of a tensor of a checkpoint, None if it is unknown.

    own: names of the family's own, which count before the general ones. Names that are those of a file stay.
    """
    stem, dot, suffix = name.rpartition(".")
    if suffix not in ("weight", "bias"):
        stem, dot, suffix = name, "", ""
    match = _LAYER.fullmatch(stem)
    if match:
        part = own.get(match["part"]) or _BLOCKS.get(match["part"])
        return f"blk.{int(match['layer'])}.{part}{dot}{suffix}" if part else None
    whole = own.get(stem) or _WHOLE.get(stem)
    if whole is None and (stem.startswith(("blk.", "v.", "mm.")) or stem in WHOLE):
        whole = stem
    return f"{whole}{dot}{suffix}" if whole else None
