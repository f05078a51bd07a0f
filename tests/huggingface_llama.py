"""A file of the `llama` architecture as a model of the transformers library, for comparisons with PyTorch and PEFT."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from llamacpu.gguf.file import GGUFFile
from llamacpu.tools.train.hf_names import hf_name, hf_rows

_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_OTHERS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def huggingface_llama(path: Path) -> Any:
    """A LlamaForCausalLM in float32 with the weights of a file."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    with GGUFFile(path) as file:
        values = {key.removeprefix("llama."): value for key, value in file.metadata.items()}
        names = {tensor.name: tensor.shape[::-1] for tensor in file.tensors}
    heads, kv_heads = values["attention.head_count"], values["attention.head_count_kv"]
    config = LlamaConfig(
        vocab_size=names["token_embd.weight"][0],
        hidden_size=values["embedding_length"],
        intermediate_size=values["feed_forward_length"],
        num_hidden_layers=values["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=values.get("attention.key_length", values["embedding_length"] // heads),
        max_position_embeddings=values["context_length"],
        rms_norm_eps=values["attention.layer_norm_rms_epsilon"],
        rope_theta=values.get("rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in names,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).float()
    state = {}
    for tensor in GGUFReader(path).tensors:
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(names[tensor.name])
        name = tensor.name.removesuffix(".weight")
        if tensor.name in _OTHERS:
            state[_OTHERS[tensor.name]] = array
        elif name.rpartition(".")[2] in _NORMS:
            _, layer, kind = name.split(".")
            state[f"model.layers.{layer}.{_NORMS[kind]}.weight"] = array
        else:
            state[f"{hf_name('llama', name)}.weight"] = hf_rows("llama", name, array, heads, kv_heads)
    found = model.load_state_dict({name: torch.tensor(array.copy()) for name, array in state.items()}, strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {"lm_head.weight"}
    return model.eval()


def loss_of(model: Any, tokens: Any, segments: Any, targets: Any) -> tuple[Any, int]:
    """The sum of the losses of a row, with autograd, and the number of counted tokens; each segment by itself."""
    import torch

    total, count = torch.zeros(()), 0
    for start, end in pairwise(segments):
        wanted = torch.tensor(np.asarray(targets[start:end], np.int64))
        logits = model(torch.tensor(np.asarray(tokens[start:end], np.int64))[None]).logits[0]
        kept = wanted >= 0
        total = total + torch.nn.functional.cross_entropy(logits[kept], wanted[kept], reduction="sum")
        count += int(kept.sum())
    return total, count
