"""Write the trained weights, the tokenizer and the chat template as one GGUF file.

    python tools/demo/export.py --folder target/demo --output python/llamacpu/data/demo.gguf

Matrices become Q4_K, the more sensitive ones and the embedding (which is also the output matrix) Q6_K.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from quantizer import q4_k, q6_k
from sizes import Sizes

DESCRIPTION = (
    "A tiny language model that comes with llamacpu. It talks about llamacpu and tells short stories. It was trained "
    "from nothing on sentences that tools/demo of the llamacpu repository makes; it knows nothing else."
)
FINE = ("token_embd", "attn_v", "attn_output", "ffn_down")
Q4_K, Q6_K = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K


def describe(writer: gguf.GGUFWriter, sizes: Sizes) -> None:
    """Write the name, licence and sizes of the model."""
    writer.add_name("llamacpu demo")
    writer.add_author("The llamacpu authors")
    writer.add_description(DESCRIPTION)
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_tags(["text-generation", "demo"])
    writer.add_size_label("3M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.feed_forward)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_rope_dimension_count(sizes.head_size)
    writer.add_rope_freq_base(sizes.rope_base)
    writer.add_layer_norm_rms_eps(sizes.epsilon)
    writer.add_vocab_size(sizes.vocabulary)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict, template: str) -> None:
    """Write the byte-level BPE vocabulary of a `tokenizers` file."""
    ids = dict(tokenizer["model"]["vocab"])
    control = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids |= control
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("the token ids have gaps")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["{} {}".format(*pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(control["<|begin_of_text|>"])
    writer.add_eos_token_id(control["<|end_of_text|>"])
    writer.add_eot_token_id(control["<|eot_id|>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(template)


def add_matrix(writer: gguf.GGUFWriter, name: str, rows: np.ndarray, fine: bool) -> None:
    """Write a matrix (outputs, inputs); fine: as Q6_K instead of Q4_K."""
    kind, quantize = (Q6_K, q6_k) if fine else (Q4_K, q4_k)
    writer.add_tensor(f"{name}.weight", quantize(np.ascontiguousarray(rows, np.float32)), raw_dtype=kind)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("target/demo"))
    parser.add_argument("--output", type=Path, default=Path("python/llamacpu/data/demo.gguf"))
    arguments = parser.parse_args()
    weights = dict(np.load(arguments.folder / "weights.npz"))
    tokenizer = json.loads((arguments.folder / "tokenizer.json").read_text(encoding="utf-8"))
    template = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    vocabulary = len(weights["token_embd"])
    sizes = Sizes(vocabulary=vocabulary, layers=len(weights["attn_q"]), feed_forward=weights["ffn_gate"].shape[2])
    writer = gguf.GGUFWriter(arguments.output, "llama")
    describe(writer, sizes)
    add_tokenizer(writer, tokenizer, template)
    add_matrix(writer, "token_embd", weights.pop("token_embd"), True)
    writer.add_tensor("output_norm.weight", weights.pop("output_norm").astype(np.float32))
    for layer in range(sizes.layers):
        for name, value in sorted(weights.items()):
            if name.endswith("_norm"):
                writer.add_tensor(f"blk.{layer}.{name}.weight", value[layer].astype(np.float32))
            else:
                add_matrix(writer, f"blk.{layer}.{name}", value[layer].T, name in FINE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
