"""Training of LoRA adapters beside PyTorch and PEFT on the CPU, interleaved in one run, as a Markdown table.

    python benches/training_speed.py MODEL.gguf --peer-python PYTHON [--tokens 512] [--steps 2] [--rounds 2] [--rank 16]

MODEL is a `llama` file, in any quantization; the peer is a transformers model of the same sizes with random weights, in
F32 and in BF16, run by PYTHON, an interpreter with torch, transformers and peft. All seven matrices of every layer have
an adapter. A step is one sequence forward and backward with a loss on every token, then an update by AdamW. Each round
runs every contestant in a process of its own: one step that does not count, then the timed ones; the best round of each
counts. Memory is the process's largest resident set, the mapped file included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import llamacpu
from compare import processor

PEAK = """
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
def data(tokens):
    return [5 + index * 7919 % 20000 for index in range(tokens + 1)]
def timed(step, steps):
    step()
    start = time.perf_counter()
    losses = [step() for _ in range(steps)]
    print(json.dumps({"seconds": (time.perf_counter() - start) / steps, "bytes": peak(), "loss": losses[-1]}))
"""

OURS = (
    """
import json, sys, time
import numpy as np
import llamacpu
from llamacpu import _native
path = sys.argv[1]
threads, tokens, rank, steps, kept = map(int, sys.argv[2:7])
"""
    + PEAK
    + """
with llamacpu.Model(path, threads=threads) as model:
    native = model._native
    names = [name for name, _, _ in _native.trainable(native) if name.startswith("blk.")]
    trainer = _native.Trainer(native, _native.TrainerShape(names, rank, tokens, kept), 2.0 * rank)
    ids = np.array(data(tokens), np.int32)
    segments = np.array([0, tokens], np.int32)
    def step():
        loss, count = trainer.step(ids[:-1], segments, ids[1:])
        trainer.optimizer_step(1e-4, divide_by=count)
        return loss / count
    timed(step, steps)
"""
)

PEER = (
    """
import json, sys, time
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
sizes, kind = json.loads(sys.argv[1]), sys.argv[2]
threads, tokens, rank, steps = map(int, sys.argv[3:7])
torch.set_num_threads(threads)
"""
    + PEAK
    + """
torch.set_default_dtype(torch.bfloat16 if kind == "bf16" else torch.float32)
model = LlamaForCausalLM(LlamaConfig(**sizes))
parts = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=parts, lora_dropout=0.0))
model.train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
ids = torch.tensor([data(tokens)])
def step():
    optimizer.zero_grad()
    # Labels are shifted inside: the last token is the target of the one before it.
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    return loss.item()
timed(step, steps)
"""
)


def sizes_of(path: Path) -> dict[str, Any]:
    """The sizes of a `llama` file, by the names of transformers."""
    with llamacpu.Model(path) as model:
        config = model.config
        tied = "output.weight" not in {tensor.name for tensor in model.file.tensors}
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.embedding_length,
        "intermediate_size": config.feed_forward[0],
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads[0],
        "num_key_value_heads": config.kv_heads[0],
        "head_dim": config.key_size,
        "tie_word_embeddings": tied,
    }


def run(command: list[str]) -> dict[str, float]:
    """Run one contestant; return its seconds a step, its peak of memory in bytes and its last loss."""
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer-python", help="an interpreter with torch, transformers and peft")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    numbers = [str(number) for number in (options.threads, options.tokens, options.rank, options.steps)]
    sizes = sizes_of(options.model)
    contestants = {
        "llamacpu, all activations kept": [sys.executable, "-c", OURS, str(options.model), *numbers, "999"],
        "llamacpu, layers computed again": [sys.executable, "-c", OURS, str(options.model), *numbers, "0"],
    }
    if options.peer_python:
        for kind in ("f32", "bf16"):
            command = [options.peer_python, "-c", PEER, json.dumps(sizes), kind, *numbers]
            contestants[f"PyTorch and PEFT, {kind.upper()}"] = command
    best: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for name, command in contestants.items():
            found = run(command)
            print(name, found, file=sys.stderr, flush=True)
            if name not in best or found["seconds"] < best[name]["seconds"]:
                best[name] = found
    shape = f"{options.tokens} tokens, rank {options.rank}, {options.threads} threads"
    print(f"{options.model.name}, {shape}; {processor()}\n")
    print("| | tokens/s | memory |\n|---|---|---|")
    for name, found in best.items():
        print(f"| {name} | {options.tokens / found['seconds']:.1f} | {found['bytes'] / 1e9:.2f} GB |")


if __name__ == "__main__":
    main()
