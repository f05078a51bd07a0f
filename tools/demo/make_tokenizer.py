"""Train the demo model's byte-level BPE tokenizer on the training text.

    python tools/demo/make_tokenizer.py --text target/demo/text.jsonl --output target/demo/tokenizer.json

The vocabulary holds all 256 bytes, the pieces learned from the text, and Llama 3's control tokens at the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts(path: Path) -> Iterator[str]:
    """Yield all texts of the documents."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            document = json.loads(line)
            if "text" in document:
                yield document["text"]
            for message in document.get("messages", ()):
                yield from (message["role"], "\n\n", message["content"])


def main() -> None:
    """Train and save the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=Path("target/demo/text.jsonl"))
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--output", type=Path, default=Path("target/demo/tokenizer.json"))
    arguments = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=arguments.vocabulary - len(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(arguments.text), trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    tokenizer.save(str(arguments.output))
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
