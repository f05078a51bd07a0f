"""The tokenizer's files of a checkpoint, read once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.errors import CheckpointError

__all__ = ["Added", "TokenizerFolder"]


class Added:
    """A token that was added to a vocabulary: its text, and whether it is a special one."""

    def __init__(self, text: str, special: bool) -> None:
        self.text = text
        self.special = special


class TokenizerFolder:
    """tokenizer.json, tokenizer_config.json and what else describes a tokenizer.

    checkpoint  the folder
    json        tokenizer.json; {} if there is none
    config      tokenizer_config.json; {} if there is none
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.json: dict[str, Any] = checkpoint.json("tokenizer.json") or {}
        self.config: dict[str, Any] = checkpoint.json("tokenizer_config.json") or {}

    @property
    def model(self) -> dict[str, Any]:
        """The `model` of tokenizer.json."""
        model = self.json.get("model")
        return model if isinstance(model, dict) else {}

    @property
    def kind(self) -> str:
        """The kind of vocabulary in tokenizer.json: "BPE", "WordPiece", "Unigram"; "" without that file."""
        kind = self.model.get("type", "BPE" if "merges" in self.model else "")
        return kind if isinstance(kind, str) else ""

    @cached_property
    def listed(self) -> list[dict[str, Any]]:
        """The added tokens of tokenizer.json, each with an `id` and a `content`."""
        found = self.json.get("added_tokens", [])
        if not isinstance(found, list) or not all(
            isinstance(token, dict) and _is_id(token.get("id")) and isinstance(token.get("content"), str)
            for token in found
        ):
            raise CheckpointError("tokenizer.json: expected `added_tokens` with an id and a content each")
        return found

    @cached_property
    def configured(self) -> dict[int, Added]:
        """The `added_tokens_decoder` of tokenizer_config.json."""
        found = self.config.get("added_tokens_decoder", {})
        tokens = {}
        for id, token in found.items() if isinstance(found, dict) else ():
            if not str(id).isdecimal() or not isinstance(token, dict) or not isinstance(token.get("content"), str):
                raise CheckpointError(f"tokenizer_config.json: entry {id!r:.40} of `added_tokens_decoder` is no token")
            tokens[int(id)] = Added(token["content"], bool(token.get("special")))
        return tokens

    @cached_property
    def added(self) -> dict[int, Added]:
        """All added tokens by id, in ascending order."""
        tokens = {token["id"]: Added(token["content"], bool(token.get("special"))) for token in self.listed}
        tokens.update(self.configured)
        return dict(sorted(tokens.items()))

    def ids_of(self, name: str) -> dict[str, int]:
        """A JSON file of texts to ids (added_tokens.json); {} if there is none."""
        found = self.checkpoint.json(name) or {}
        if not all(_is_id(id) for id in found.values()):
            raise CheckpointError(f"{name}: expected an object of texts and ids")
        return found


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
