"""Jina Embeddings 2 and 3."""

from __future__ import annotations

from collections.abc import Iterator

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Named
from llamacpu.tools.convert.families.encoders import Bert, XlmRoberta
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.names import gguf_name
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["JinaBert2", "JinaBert3"]


class JinaBert2(Bert):
    """Jina Embeddings 2, also for code."""

    architecture = "jina-bert-v2"

    def set_vocabulary(self) -> None:
        if self.folder.kind == "WordPiece":
            super().set_vocabulary()
            return
        rule = self.folder.json.get("pre_tokenizer")
        if isinstance(rule, dict) and rule.get("type") == "Whitespace":
            raise CheckpointError(
                "tokenizer.json: vocabularies of whole words (pre_tokenizer Whitespace) do not run here"
            )
        set_byte_pair(self.folder, self.config, self.keys)
        self.keys.add("tokenizer.ggml.token_type_count", 2, "uint32")


class JinaBert3(XlmRoberta):
    """Jina Embeddings 3. Its adapters, one for each task, become files beside the model's."""

    architecture = "jina-bert-v3"

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        tasks = self.config.get("lora_adaptations")
        if not isinstance(tasks, list) or not all(isinstance(task, str) and "/" not in task for task in tasks):
            raise CheckpointError(f"config.json: lora_adaptations is {tasks!r:.60}; expected names of tasks")
        self._tasks: list[str] = tasks
        self._low_rank: list[tuple[str, Array]] = []

    def renamed(self, name: str) -> str | None:
        if ".parametrizations." in name:
            name = name.replace(".parametrizations.", ".").removesuffix(".original")
        return super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if not name.endswith((".0.lora_A", ".0.lora_B")):
            yield from super().converted(name, array, layer)
        elif not name.startswith("pooler.dense"):
            count = len(self._tasks)
            if array.shape[:1] != (count,) or len(array.shape) != 3:
                raise CheckpointError(
                    f"the tensor {name!r:.120} has the shape {array.shape}; expected matrices for {count} tasks"
                )
            self._low_rank.append((name, array))

    def adapters(self) -> Iterator[tuple[str, Keys, list[tuple[str, Array]]]]:
        prefixes, alpha = self.config.get("task_instructions"), self.config.get("lora_alpha")
        for number, task in enumerate(self._tasks if self._low_rank else ()):
            keys = Keys(self.architecture)
            keys.add("general.type", "adapter", "string")
            keys.add("adapter.type", "lora", "string")
            keys.add("adapter.lora.alpha", 1.0 if alpha is None else alpha, "float32")
            keys.add("adapter.lora.task_name", task, "string")
            if isinstance(prefixes, dict) and prefixes:
                keys.add("adapter.lora.prompt_prefix", prefixes.get(task), "string")
            yield task, keys, [self._named(name, array, number) for name, array in self._low_rank]

    def _named(self, name: str, array: Array, task: int) -> tuple[str, Array]:
        stem, suffix = gguf_name(name[:-9], self.names), name[-7:].lower()
        if stem is None:
            raise CheckpointError(f"the tensor {name!r:.120} has no place in the architecture {self.architecture!r}")
        matrix = array.rows(task, task + 1).reshaped(array.shape[1:])
        if stem == "token_embd.weight" and suffix == ".lora_b":  # stored as the rows of the embedding are
            matrix = matrix.transposed()
        elif stem == "token_types.weight":
            suffix = ".lora_b" if suffix == ".lora_a" else ".lora_a"
        return stem + suffix, matrix
