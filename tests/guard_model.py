"""A model that answers as Llama Guard 3 does: "unsafe" and S9 where a word is in the conversation, else "safe".

One layer of attention without queries and keys takes the mean over all tokens, in which only the word's embedding has a
component; the output's rows read that component and the token before, of which each names its follower.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

import llamacpu
from llamacpu.tasks.moderation import LLAMA_GUARD_3

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
TEMPLATE = Path(llamacpu.__file__).parent / "chat" / "templates" / "llama-guard.jinja"
WIDTH = 32
CONSTANT, FOUND, WORD, STATES = 0, 1, 2, 3
_PLAIN = ("model", "pre", "bos_token_id", "eos_token_id", "eot_token_id", "add_bos_token")


def write_guard(path: Path, word: str, own_template: bool = True) -> Path:
    """Writes the model to `path`; `word` is one token. With `own_template` the file has the template and categories."""
    with llamacpu.Model(DEMO) as demo:
        tokenizer, metadata = demo.tokenizer, dict(demo.metadata)
        lists = {name: list(metadata[f"tokenizer.ggml.{name}"]) for name in ("tokens", "token_type", "merges")}
        (trigger,) = tokenizer.encode(word, add_special=False, space_prefix=False)
        verdict = tokenizer.encode("unsafe\nS9", add_special=False)
        (head,) = tokenizer.encode("\n\n", add_special=False)
        eot = tokenizer.token_to_id("<|eot_id|>")
    un, s, af, e, line, letter, digit = verdict
    states = {token: STATES + number for number, token in enumerate([head, *verdict])}
    count = len(lists["tokens"])
    embedding = np.zeros((count, WIDTH), np.float32)
    embedding[:, CONSTANT] = 1
    embedding[trigger, WORD] = 1
    output = np.zeros((count, WIDTH), np.float32)
    for token, state in states.items():
        embedding[token, state] = 1
    for before, after in ((un, s), (s, af), (af, e), (e, eot), (line, letter), (letter, digit), (digit, eot)):
        output[after, states[before]] = 1000
    # The verdict, and whether categories follow it.
    output[s, states[head]], output[un, FOUND] = 40, 10
    output[line, [state for token, state in states.items() if token != e]] = -10_000
    output[line, states[e]], output[line, FOUND] = 400, 100
    value, out = np.zeros((2, WIDTH, WIDTH), np.float32)
    value[0, WORD], out[FOUND, 0] = 1, 1000

    writer = GGUFWriter(str(path), "llama")
    writer.add_name("guard")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for name in _PLAIN:
        key = f"tokenizer.ggml.{name}"
        found = metadata.get(key)
        if isinstance(found, str):
            writer.add_string(key, found)
        elif isinstance(found, bool):
            writer.add_bool(key, found)
        elif found is not None:
            writer.add_uint32(key, int(found))
    writer.add_token_list(lists["tokens"])
    writer.add_token_types([int(kind) for kind in lists["token_type"]])
    writer.add_token_merges(lists["merges"])
    if own_template:
        known = f"{{%- set categories = {json.dumps(dict(LLAMA_GUARD_3))} %}}{{%- set llama_2 = false %}}"
        writer.add_chat_template(known + TEMPLATE.read_text())
    zeros, ones = np.zeros((WIDTH, WIDTH), np.float32), np.ones(WIDTH, np.float32)
    layer = {
        "attn_norm": ones, "attn_q": zeros, "attn_k": zeros, "attn_v": value, "attn_output": out, "ffn_norm": ones,
        "ffn_gate": zeros, "ffn_up": zeros, "ffn_down": zeros,
    }  # fmt: skip
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output)
    for name, data in layer.items():
        writer.add_tensor(f"blk.0.{name}.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
