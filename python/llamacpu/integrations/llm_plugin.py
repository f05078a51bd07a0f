"""A plugin for the ``llm`` command: GGUF files as its models.

    llm llamacpu add NAME path/to/model.gguf
    llm -m NAME "Hello"
    llm -m NAME "What is this?" -a photo.jpg
    llm embed -m NAME -c "Hello"

The list of files is stored in ``llamacpu.json`` in the folder of ``llm``; the demo model is called ``llamacpu-demo``.
Pictures are shown to models with a vision encoder: the mmproj file beside the model, or ``add --mmproj FILE``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import click
import llm
from pydantic import Field

from llamacpu.files import replacing
from llamacpu.integrations.llm_messages import messages_of

if TYPE_CHECKING:
    from llamacpu.llama import Llama
    from llamacpu.model import Model

DEMO = "llamacpu-demo"
# What Pillow reads in every installation; AVIF and HEIC depend on it.
PICTURES = frozenset(f"image/{kind}" for kind in ("avif", "bmp", "gif", "heic", "jpeg", "png", "tiff", "webp"))


class Added(NamedTuple):
    """The files of a model."""

    path: str
    mmproj: str | None = None
    """the vision encoder; None for the one beside the model"""


def _list_file() -> Path:
    return Path(llm.user_dir()) / "llamacpu.json"


def known_models() -> dict[str, Added]:
    """The added models, as a mapping of names to files."""
    file = _list_file()
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: Added(files) if isinstance(files, str) else Added(**files) for name, files in found.items()}


def _save(models: dict[str, Added]) -> None:
    _list_file().parent.mkdir(parents=True, exist_ok=True)
    written = {name: files._asdict() if files.mmproj else files.path for name, files in models.items()}
    with replacing(_list_file(), "a list of models", _is_list) as file:
        file.write((json.dumps(written, indent=2) + "\n").encode())


def _is_list(file: BinaryIO) -> bool:
    try:
        return isinstance(json.load(file), dict)
    except ValueError:
        return False


class LlamacpuModel(llm.Model):  # type: ignore[misc]
    """One GGUF file as a model of ``llm``; it is opened on first use."""

    can_stream = True
    supports_schema = True
    supports_tools = True

    class Options(llm.Options):  # type: ignore[misc]
        """Settings for ``llm -o``."""

        max_tokens: int | None = Field(default=None, description="The most tokens of an answer")
        temperature: float = Field(default=0.8, description="0 always takes the most likely token")
        top_k: int = Field(default=40, description="Choose among so many tokens; 0 is all")
        top_p: float = Field(default=0.95, description="Choose among the most likely tokens of this mass")
        min_p: float = Field(default=0.05, description="Choose among tokens at least this likely, to the best")
        seed: int | None = Field(default=None, description="The same seed gives the same answer")
        context: int = Field(default=0, description="The most tokens of a conversation; 0 is what the model knows")
        priority: Literal["low", "normal", "high"] | None = Field(
            default=None, description="Of the process: low leaves the processors to other programs"
        )
        duty: float | None = Field(default=None, description="Compute for at most this percent of the time")

    def __init__(self, model_id: str, path: str, mmproj: str | None = None) -> None:
        self.model_id = model_id
        self.path = path
        self.mmproj = mmproj
        self._llama: Llama | None = None

    @cached_property
    def attachment_types(self) -> frozenset[str]:
        """The media types of what can be attached to a prompt: pictures, if the model has a vision encoder."""
        return PICTURES if self.mmproj or _sees(Path(self.path)) else frozenset()

    def _open(self, options: Any) -> Llama:
        from llamacpu.llama import Llama

        if self._llama is None:
            self._llama = Llama(
                self.path, n_ctx=options.context, mmproj=self.mmproj, priority=options.priority, duty=options.duty
            )
        return self._llama

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any = None) -> Iterator[str]:
        """Yield the answer to a prompt, piece by piece."""
        options = prompt.options
        create: Any = self._open(options).create_chat_completion
        found = create(
            messages_of(prompt, conversation),
            tools=[_tool(tool) for tool in getattr(prompt, "tools", None) or ()] or None,
            response_format={"type": "json_object", "schema": prompt.schema} if prompt.schema else None,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            seed=options.seed,
            stream=True,
        )
        for chunk in found:
            delta = chunk["choices"][0]["delta"]
            for call in delta.get("tool_calls", ()):
                function = call["function"]
                response.add_tool_call(
                    llm.ToolCall(function["name"], json.loads(function["arguments"]), tool_call_id=call["id"])
                )
            if delta.get("content"):
                yield delta["content"]
        result = self._llama.last_result if self._llama is not None else None
        if result is not None:
            response.set_usage(input=result.prompt_tokens, output=len(result.tokens))


class LlamacpuEmbeddingModel(llm.EmbeddingModel):  # type: ignore[misc]
    """One GGUF file as an embedding model of ``llm``; pooling is as the file recommends, else the mean."""

    batch_size: int = 64

    def __init__(self, model_id: str, path: str) -> None:
        self.model_id = model_id
        self.path = path
        self._model: Model | None = None

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        """Yield the embeddings of texts."""
        from llamacpu.model import Model

        if self._model is None:
            self._model = Model(self.path)
        texts = [item if isinstance(item, str) else item.decode("utf-8", "replace") for item in items]
        for vector in self._model.embed(texts):
            yield vector.tolist()


def _sees(path: Path) -> bool:
    """Whether a model has a vision encoder beside it or in its own file."""
    from llamacpu.errors import LlamaCpuError
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.multimodal.projectors import has_vision

    try:
        with GGUFFile(path) as file:
            return has_vision(path, file.metadata)
    except (OSError, LlamaCpuError):  # `llm` says what is wrong with the file when it opens it
        return False


def _tool(tool: Any) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _every_model() -> dict[str, Added]:
    """All models, as a mapping of names to files."""
    demo = Path(__file__).parents[1] / "data" / "demo.gguf"
    return {**({DEMO: Added(str(demo))} if demo.exists() else {}), **known_models()}


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_models(register: Any) -> None:
    """Register the models; called by ``llm``."""
    for name, files in _every_model().items():
        register(LlamacpuModel(name, *files))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_embedding_models(register: Any) -> None:
    """Register the same models for embeddings; called by ``llm``."""
    for name, files in _every_model().items():
        register(LlamacpuEmbeddingModel(name, files.path))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_commands(cli: click.Group) -> None:
    """Register the commands; called by ``llm``."""

    @cli.group()
    def llamacpu() -> None:
        """GGUF files as models."""

    @llamacpu.command()
    @click.argument("name")
    @click.argument("path", type=click.Path(exists=True, dir_okay=False, resolve_path=True))
    @click.option(
        "--mmproj", type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        help="The file of its vision encoder. [default: the one beside it]",
    )  # fmt: skip
    def add(name: str, path: str, mmproj: str | None) -> None:
        """Make the GGUF file at PATH a model called NAME."""
        from llamacpu.gguf.file import GGUFFile

        for file in filter(None, (path, mmproj)):
            GGUFFile(file).close()
        _save({**known_models(), name: Added(path, mmproj)})

    @llamacpu.command()
    @click.argument("name")
    def remove(name: str) -> None:
        """Take the model called NAME off the list; the file stays."""
        models = known_models()
        if name not in models:
            raise click.ClickException(f"there is no model {name!r}; expected one of: {', '.join(models) or 'none'}")
        del models[name]
        _save(models)

    @llamacpu.command(name="list")
    def list_models() -> None:
        """The models and their files."""
        for name, files in known_models().items():
            click.echo(f"{name}: {files.path}" + (f" with {files.mmproj}" if files.mmproj else ""))
