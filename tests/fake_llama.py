"""A `Llama` over the fake model of `fake_model`: it writes a known text after any prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fake_model import (
    CONTROL,
    END,
    FIRST_BYTE,
    START,
    VOCABULARY,
    FakeModel,
    FakeSession,
    FakeStream,
    FakeTokenizer,
    ids_of,
)
from llamacpu.llama import Llama, opening

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments|tojson }}{% endfor %}{% endfor %}"
    "{% if tools %}{{ tools|tojson }}{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
NAMES = {START: "<s>", END: "</s>", CONTROL: "<|c|>"}


class Tokens(FakeTokenizer):
    """Bytes as tokens, with the rest of a tokenizer."""

    eos = END
    eot = unk = None
    add_bos, add_eos = True, False
    vocab_size = VOCABULARY
    fim: dict[str, int]

    def __init__(self) -> None:
        self.fim = {}

    def encode(
        self, text: str | bytes, add_special: bool = True, parse_special: bool = False, *, space_prefix: bool = True
    ) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        ids: list[int] = [START] if add_special else []
        while data:
            found = next((t for t, name in NAMES.items() if parse_special and data.startswith(name.encode())), None)
            ids.append(found if found is not None else FIRST_BYTE + data[0])
            data = data[len(NAMES[found]) if found is not None else 1 :]
        return ids

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        parts = [
            bytes([i - FIRST_BYTE]) if i >= FIRST_BYTE else b"" if skip_special else NAMES[i].encode() for i in ids
        ]
        return b"".join(parts)

    def id_to_piece(self, token: int) -> str:
        return NAMES.get(token) or chr(token - FIRST_BYTE)

    def token_to_id(self, text: str) -> int | None:
        return next((token for token, name in NAMES.items() if name == text), None)

    def stream(self, skip_special: bool = False) -> FakeStream:
        return FakeStream(skip_special)


class Model(FakeModel):
    """The fake model with the rest of `llamacpu.Model`."""

    def __init__(self, next_token: Callable[[list[int]], int], template: str | None = TEMPLATE) -> None:
        super().__init__(next_token)
        self.tokenizer = Tokens()
        types = np.ones(VOCABULARY, dtype=np.int32)
        types[[START, END, CONTROL]] = 3
        self.metadata = {
            "general.name": "fake",
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.add_bos_token": True,
            **({"tokenizer.chat_template": template} if template else {}),
        }
        self.config = {"embedding_length": 8}
        self.file = SimpleNamespace(metadata=self.metadata)
        self.prompts: list[list[int]] = []
        self.closed = False
        self.fingerprint = "00" * 32
        self.memory_note: str | None = None

    def session(self, context: int | None = None, kv_type: str = "f16") -> Session:  # type: ignore[override]
        return Session(self, context or 1000)

    def close(self) -> None:
        self.closed = True


class Session(FakeSession):
    """The fake session with the rest of `llamacpu.Session`."""

    nbytes = 1000
    kv_type = "f16"
    fresh = True
    prompt_length = 0

    def fork(self) -> Session:
        other = Session(self.model, self.context)  # type: ignore[arg-type]
        other._tokens = list(self._tokens)
        return other

    def truncate(self, tokens: int) -> None:
        # Forgetting the end of an answer is the work of drafts; a new prompt forgets nothing, or more.
        self.fresh = self.fresh or tokens == self.position or tokens <= self.prompt_length
        super().truncate(tokens)

    def forward(self, ids: Sequence[int], logits: str = "last", cancel: Any = None) -> Any:
        if self.fresh:
            self.prompt_length = self.position + len(ids)
            self.fresh = logits == "none"
        if isinstance(self.model.next_token, Writer):
            self.model.next_token.prompt_length = self.prompt_length
        if logits != "all":
            return super().forward(ids, logits, cancel)
        return np.stack([super(Session, self).forward([token], "last", cancel) for token in ids])


class Writer:
    """Chooses the tokens of a text, whatever prompt it follows."""

    def __init__(self, text: str | bytes | list[int]) -> None:
        self.text = text
        self.prompt_length = 0

    def __call__(self, tokens: list[int]) -> int:
        ids = ids_of(self.text) if isinstance(self.text, (str, bytes)) else self.text
        answer = [*ids, END]
        place = max(0, len(tokens) - self.prompt_length)
        return answer[place] if place < len(answer) else END


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Llama]:
    """`llama("text", ...)`: a Llama that answers every completion with the text."""

    def make(text: str | bytes | list[int] = "", template: str | None = TEMPLATE, **settings: Any) -> Llama:
        writer = Writer(text)
        model = Model(writer, template)
        monkeypatch.setattr(opening, "Model", lambda path, **settings: model)
        found = Llama("fake.gguf", **{"n_ctx": 0, "seed": 1, **settings})
        lease = found._conversation.lease

        def watched(prompt: Sequence[int]) -> Any:
            model.prompts.append(list(prompt))
            return lease(prompt)

        monkeypatch.setattr(found._conversation, "lease", watched)
        return found

    return make
