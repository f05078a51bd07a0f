#!/usr/bin/env python3
"""Answers every row of a CSV file: `python examples/batch_csv.py INPUT.csv OUTPUT.csv --prompt "Translate: {text}"`.

`{column}` in the prompt stands for a column of the row; the answers go into a new column. Many rows are answered at
once, in passes over the weights that they share. A run that was stopped goes on where it was: rows that OUTPUT has are
not answered again. Needs nothing but llamacpu.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import deque
from importlib import resources
from pathlib import Path

import llamacpu
from llamacpu.answers import chat_prompt, chat_question
from llamacpu.chat import Chat
from llamacpu.scheduler import Request

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")
AT_ONCE = 16


def main() -> None:
    """Read the command line and answer all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--prompt", required=True, help="the text of a message, with {column} for columns")
    parser.add_argument("--column", default="answer", help="where the answers go")
    parser.add_argument("--model", default=DEMO, help="file or name (the demo model)")
    parser.add_argument("--max-tokens", type=int, default=200)
    given = parser.parse_args()
    with given.input.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = list(reader.fieldnames or [])
        rows = list(reader)
    try:
        prompts = [given.prompt.format_map(row) for row in rows]
    except KeyError as error:
        sys.exit(f"Error: the prompt speaks of a column {error}; {given.input} has {', '.join(columns)}")
    done = 0
    if given.output.exists():
        with given.output.open(encoding="utf-8", newline="") as lines:
            done = sum(1 for _ in csv.DictReader(lines))
    with (
        llamacpu.Model(given.model) as model,
        llamacpu.Engine(model, max_running=AT_ONCE) as engine,
        given.output.open("a", encoding="utf-8", newline="") as lines,
    ):
        writer = csv.DictWriter(lines, [*columns, given.column])
        if done == 0:
            writer.writeheader()
        chat = Chat.of(model)
        running: deque[tuple[dict[str, str], Request]] = deque()
        waiting = deque(list(zip(rows, prompts, strict=True))[done:])
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                row, prompt = waiting.popleft()
                asked = chat_prompt(chat, [{"role": "user", "content": prompt}])
                question = chat_question(chat, asked, max_tokens=given.max_tokens)
                running.append((row, engine.submit(question)))
            row, request = running.popleft()
            # In row order, so that an interrupted run leaves no gaps.
            writer.writerow({**row, given.column: request.read().content})
            lines.flush()
            done += 1
            sys.stderr.write(f"\r{done} of {len(rows)} rows")
    sys.stderr.write("\n")


if __name__ == "__main__":
    main()
