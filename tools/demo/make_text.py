"""Write the demo model's training text: one JSON document per line, the same for the same seed.

python tools/demo/make_text.py --seed 1 --documents 60000 --output target/demo/text.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from text.dialogues import document


def main() -> None:
    """Write the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--output", type=Path, default=Path("target/demo/text.jsonl"))
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    with arguments.output.open("w", encoding="utf-8") as file:
        for _ in range(arguments.documents):
            file.write(json.dumps(document(rng), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
