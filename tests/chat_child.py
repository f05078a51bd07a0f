"""A conversation at this terminal with a model whose answers are known: `chat_child.py [--plain] [--context N]`.

The last word of a message names the answer; it goes on with each byte that comes through the pipe of descriptor
CHAT_GATE, if there is one: tests hold answers back and look at the screen.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

import fake_model
from llamacpu.cli.chat.conversation import Conversation
from llamacpu.cli.chat.loop import interact
from llamacpu.cli.run import drawing
from llamacpu.errors import Cancelled
from llamacpu.sampling import Sampling

MARK = "\x05"
DOCUMENT = """\
# A title

Some *slanted*, **strong** and `coded` words, which go over the edge of any narrow terminal that there is, and [a \
link](https://example.org/).

1. One
   - with a nested item that is long enough to be wrapped at forty columns
2. Two

> Quoted words that are long enough to be wrapped at the edge, too.

| Name | Count |
|------|------:|
| one  | 1 |
| many | 1000 |

```python
print("hello")  # code
```
日本語の文章は空白なしで書かれますから、行の端で折り返します。🎉
"""
ANSWERS = {
    "document": DOCUMENT,
    "hostile": (
        "A \x1b]0;title\x07 \x1b[2J\x1b[31mred \x9b5n \x1b[6n **\x1b[5mbold** `\x1b[1A` [x](http://a\x1b[2J) end"
    ),
    "endless": "word " * 100_000,
    "prose": (
        "The quick *brown fox* jumps over the **lazy dog** and then, after a while, comes back to `run()` once more "
        "to see whether anything at all has changed.\n\nSecond paragraph."
    ),
}


def answer_to(message: str) -> str:
    word = (message.split() or [""])[-1]
    return ANSWERS.get(word, f"You said {len(message.splitlines())} lines: {message!r}.")


def next_token(tokens: list[int]) -> int:
    said = bytes(token - fake_model.FIRST_BYTE for token in tokens if token >= fake_model.FIRST_BYTE)
    _, _, turn = said.rpartition(MARK.encode())
    message, _, answer = turn.partition(b"\x06")
    wanted = answer_to(message.decode()).encode()
    gate = os.environ.get("CHAT_GATE")
    if gate and len(answer) == int(os.environ.get("CHAT_HOLD", "0")):
        os.read(int(gate), 1)
    return fake_model.FIRST_BYTE + wanted[len(answer)] if len(answer) < len(wanted) else fake_model.END


class Session(fake_model.FakeSession):
    kv_type = "f16"


class Tokenizer(fake_model.FakeTokenizer):
    add_bos = False


class Model(fake_model.FakeModel):
    path = "fake.gguf"
    tokenizer: Any
    fingerprint = "00" * 32

    def session(self, context: int | None = None, kv_type: str = "f16") -> Session:
        return Session(self, self.context_length if context is None else context)

    def prepare(self, on_load: Any = None, cancel: Any = None) -> None:
        on_load(3 << 30, 8 << 30)
        gate = os.environ.get("CHAT_LOAD")
        while gate and not (cancel.cancelled or select.select([int(gate)], [], [], 0.01)[0]):
            pass
        if cancel.cancelled:
            raise Cancelled("the fake was cancelled")
        on_load(8 << 30, 8 << 30)


class Talk(Conversation):
    """Marks what was said, so that the model knows where a message begins and ends."""

    def answer(self, text: str) -> None:
        super().answer(f"{MARK}{text}\x06")


def main() -> None:
    settings = {"max_tokens": None, "sampling": Sampling(temperature=0), "stop": (), "ignore_end": False}
    model = Model(next_token, context=int(os.environ.get("CHAT_CONTEXT", "100000")))
    model.tokenizer = Tokenizer()
    plain = "--plain" in sys.argv
    talk = Talk(model.session(), {**settings, "grammar": None}, {"draft": None}, None, None, False, drawing(plain))
    interact(talk, "--no-history" not in sys.argv)


main()
