"""Talk to trained weights, or to the finished file, with a plain NumPy forward pass.

python tools/demo/sample.py --folder target/demo "Hello" "Tell me a story about a cat"
python tools/demo/sample.py --folder target/demo --gguf python/llamacpu/data/demo.gguf --temperature 0.8 "Hello"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sizes import Sizes
from tokenizers import Tokenizer


def weights_of_gguf(path: Path) -> dict[str, np.ndarray]:
    """Return the dequantized tensors of a file under the names of training, matrices as (layers, inputs, outputs)."""
    import gguf

    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    weights: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        if parts[0] != "blk":
            weights[parts[0]] = value
        elif parts[1] == "0":
            layers = sorted(key for key in tensors if key.split(".")[0] == "blk" and key.split(".")[2] == parts[2])
            layers.sort(key=lambda key: int(key.split(".")[1]))
            weights[parts[2]] = np.stack([tensors[key].T for key in layers])
    return weights


class Speaker:
    """One conversation: the keys and values of its tokens so far, and the logits of the next one."""

    def __init__(self, weights: dict[str, np.ndarray], sizes: Sizes) -> None:
        self.weights, self.sizes = {name: value.astype(np.float32) for name, value in weights.items()}, sizes
        self.keys = np.zeros((sizes.layers, 0, sizes.kv_heads, sizes.head_size), np.float32)
        self.values = self.keys.copy()

    def feed(self, tokens: list[int]) -> np.ndarray:
        """Return the logits (tokens, vocabulary) of new tokens."""
        w, s = self.weights, self.sizes
        old, new = self.keys.shape[1], len(tokens)
        pairs = s.head_size // 2
        angles = np.arange(old, old + new)[:, None] * s.rope_base ** (-np.arange(pairs) / pairs)
        turn = np.exp(1j * angles)[:, None]
        hidden = np.arange(old + new)[None, :] > np.arange(old, old + new)[:, None]
        all_keys, all_values = [], []
        x = w["token_embd"][tokens]
        for layer in range(s.layers):
            h = self._norm(x) * w["attn_norm"][layer]
            q = self._rotate((h @ w["attn_q"][layer]).reshape(new, s.heads, s.head_size), turn)
            k = self._rotate((h @ w["attn_k"][layer]).reshape(new, s.kv_heads, s.head_size), turn)
            v = (h @ w["attn_v"][layer]).reshape(new, s.kv_heads, s.head_size)
            keys, values = np.concatenate([self.keys[layer], k]), np.concatenate([self.values[layer], v])
            all_keys.append(keys)
            all_values.append(values)
            group = s.heads // s.kv_heads
            scores = np.einsum("qhd,shd->hqs", q, np.repeat(keys, group, 1)) * s.head_size**-0.5
            scores = np.where(hidden, -np.inf, scores)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = np.einsum("hqs,shd->qhd", scores, np.repeat(values, group, 1)).reshape(new, -1)
            x = x + mixed @ w["attn_output"][layer]
            h = self._norm(x) * w["ffn_norm"][layer]
            gate = h @ w["ffn_gate"][layer]
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"][layer])) @ w["ffn_down"][layer]
        self.keys, self.values = np.stack(all_keys), np.stack(all_values)
        return self._norm(x) * w["output_norm"] @ w["token_embd"].T

    def _norm(self, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.sizes.epsilon)

    @staticmethod
    def _rotate(x: np.ndarray, turn: np.ndarray) -> np.ndarray:
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape).astype(np.float32)


def choose(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """Return a token: the most likely one at temperature 0, else sampled after top-k 40, top-p 0.95, min-p 0.05."""
    if temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits)[:40]
    chances = np.exp(logits[order] - logits[order[0]])
    chances /= chances.sum()
    kept = ((np.cumsum(chances) - chances) < 0.95) & (chances >= 0.05 * chances[0])
    chances = chances[kept] ** (1 / temperature)
    return int(rng.choice(order[kept], p=chances / chances.sum()))


def answer(speaker: Speaker, tokenizer: Tokenizer, prompt: str, temperature: float, seed: int) -> str:
    """Return the text up to and including the end-of-turn token, or 300 tokens."""
    rng = np.random.default_rng(seed)
    ends = {tokenizer.token_to_id("<|eot_id|>"), tokenizer.token_to_id("<|end_of_text|>")}
    logits = speaker.feed(tokenizer.encode(prompt, add_special_tokens=False).ids)[-1]
    tokens: list[int] = []
    while len(tokens) < 300 and not ends.intersection(tokens[-1:]):
        tokens.append(choose(logits, temperature, rng))
        logits = speaker.feed(tokens[-1:])[-1]
    return tokenizer.decode(tokens, skip_special_tokens=False)


def main() -> None:
    """Print the answer to every prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("target/demo"))
    parser.add_argument("--gguf", type=Path, help="read the weights from this file")
    parser.add_argument("--system")
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    weights = weights_of_gguf(arguments.gguf) if arguments.gguf else dict(np.load(arguments.folder / "weights.npz"))
    sizes = Sizes(
        vocabulary=tokenizer.get_vocab_size(), layers=len(weights["attn_q"]), feed_forward=weights["ffn_gate"].shape[2]
    )
    for prompt in arguments.prompts:
        text = "<|begin_of_text|>"
        if not arguments.raw:
            turns = [("system", arguments.system)] if arguments.system else []
            for role, content in [*turns, ("user", prompt)]:
                text += f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"
            text += "<|start_header_id|>assistant<|end_header_id|>\n\n"
        else:
            text += prompt
        said = answer(Speaker(weights, sizes), tokenizer, text, arguments.temperature, arguments.seed)
        print(f"> {prompt}\n{said}\n", flush=True)


if __name__ == "__main__":
    main()
