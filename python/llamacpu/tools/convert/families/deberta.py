"""DeBERTa V2 and V3, in the layout of llamacpu.families.deberta_v2; llama.cpp has no such architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.families.encoders import Bert
from llamacpu.tools.convert.tokenizers.encoders import set_unigrams, set_word_pieces

__all__ = ["Deberta"]

RANK = 4
_MASKED_HEADS = ("cls.", "lm_predictions.", "mask_predictions.")


class Deberta(Bert):
    """DeBERTa V2 and V3, mDeBERTa, Prompt Guard."""

    architecture = "deberta-v2"
    prefix = "deberta."
    drops: ClassVar[tuple[str, ...]] = ("embeddings.position_ids",)
    names: ClassVar[Mapping[str, str]] = {
        "attention.self.query_proj": "attn_q", "attention.self.key_proj": "attn_k",
        "attention.self.value_proj": "attn_v", "encoder.rel_embeddings": "rel_embd",
        "encoder.LayerNorm": "rel_embd_norm", "pooler.dense": "cls", "classifier": "cls.output",
    }  # fmt: skip

    @property
    def classifies(self) -> bool:
        """Whether the checkpoint is a classifier's."""
        return self.source.architecture.endswith("ForSequenceClassification")

    def set_parameters(self) -> None:
        self._check()
        super().set_parameters()
        keys, config = self.keys, self.config
        farthest = config.get("max_relative_positions", -1)
        if not isinstance(farthest, int) or farthest < 1:
            farthest = self.source.integer("max_position_embeddings")
        buckets = config.get("position_buckets", -1)
        keys.set("attention.relative_positions_max", farthest)
        keys.set("attention.relative_buckets_count", max(buckets if isinstance(buckets, int) else -1, 0))
        if self.classifies:
            keys.set("pooling_type", RANK)
            labels = config.get("id2label")
            found: dict[Any, Any] = labels if isinstance(labels, dict) and labels else {"0": "LABEL_0", "1": "LABEL_1"}
            ordered = [str(label) for _, label in sorted(found.items(), key=lambda item: int(item[0]))]
            keys.add(f"{self.architecture}.classifier.output_labels", ordered, "string")

    def _check(self) -> None:
        config = self.config
        kinds = config.get("pos_att_type")
        if isinstance(kinds, str):
            kinds = [kind.strip() for kind in kinds.lower().split("|")]
        for key, value, expected in (
            ("pos_att_type", sorted(kinds) if isinstance(kinds, list) else kinds, ["c2p", "p2c"]),
            ("relative_attention", config.get("relative_attention", False), True),
            ("share_att_key", config.get("share_att_key", False), True),
            ("position_biased_input", config.get("position_biased_input", True), False),
            ("embedding_size", config.get("embedding_size", config.get("hidden_size")), config.get("hidden_size")),
            ("hidden_act", config.get("hidden_act", "gelu"), "gelu"),
            ("pooler_hidden_act", config.get("pooler_hidden_act", "gelu"), "gelu"),
        ):
            if value != expected:
                raise CheckpointError(f"config.json: {key} is {value!r:.60}; DeBERTa is supported with {expected!r}")

    def set_vocabulary(self) -> None:
        if self.folder.kind == "WordPiece":
            set_word_pieces(self.folder, self.config, self.keys)
        else:
            set_unigrams(self.folder, self.config, self.keys, "spm.model")

    def renamed(self, name: str) -> str | None:
        name = name.removeprefix(self.prefix)
        return None if name.startswith(_MASKED_HEADS) else Family.renamed(self, name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        yield name, array
