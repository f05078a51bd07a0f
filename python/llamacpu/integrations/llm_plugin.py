"""A plugin for the ``llm`` command: GGUF files as its models.

    llm llamacpu add NAME path/to/model.gguf
    llm -m NAME "Hello"
    llm embed -m NAME -c "Hello"

The list of files is stored in ``llamacpu.json`` in the folder of ``llm``; the demo model is called ``llamacpu-demo``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import llm
from pydantic import Field

from llamacpu.files import replacing

if TYPE_CHECKING:
    from llamacpu.llama import Llama
    from llamacpu.model import Model

DEMO = "llamacpu-demo"


def _list_file() -> Path:
    return Path(llm.user_dir()) / "llamacpu.json"


def known_models() -> dict[str, str]:
    """The added models, as a mapping of names to paths."""
    file = _list_file()
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _save(models: dict[str, str]) -> None:
    _list_file().parent.mkdir(parents=True, exist_ok=True)
    with replacing(_list_file(), "a list of models", _is_list) as file:
        file.write((json.dumps(models, indent=2) + "\n").encode())


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

    def __init__(self, model_id: str, path: str) -> None:
        self.model_id = model_id
        self.path = path
        self._llama: Llama | None = None

    def _open(self, context: int) -> Llama:
        from llamacpu.llama import Llama

        if self._llama is None:
            self._llama = Llama(self.path, n_ctx=context)
        return self._llama

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any = None) -> Iterator[str]:
        """Yield the answer to a prompt, piece by piece."""
        options = prompt.options
        create: Any = self._open(options.context).create_chat_completion
        found = create(
            self._messages(prompt, conversation),
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

    def _messages(self, prompt: Any, conversation: Any) -> list[dict[str, Any]]:
        turns = [*((r.prompt, r) for r in (conversation.responses if conversation else ())), (prompt, None)]
        messages: list[dict[str, Any]] = []
        system = next((turn.system for turn, _ in turns if turn.system), None)
        if system:
            messages.append({"role": "system", "content": system})
        for turn, answer in turns:
            for result in getattr(turn, "tool_results", None) or ():
                messages.append({"role": "tool", "content": str(result.output), "tool_call_id": result.tool_call_id})
            if turn.prompt:
                messages.append({"role": "user", "content": turn.prompt})
            if answer is not None:
                messages.append(_answer(answer))
        return messages


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


def _answer(response: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": response.text_or_raise()}
    calls = response.tool_calls_or_raise()
    if calls:
        functions = [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in calls]
        message["tool_calls"] = [
            {"id": call.tool_call_id or "000000000", "type": "function", "function": function}
            for call, function in zip(calls, functions, strict=True)
        ]
    return message


def _tool(tool: Any) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _every_model() -> dict[str, str]:
    """All models, as a mapping of names to paths."""
    demo = Path(__file__).parents[1] / "data" / "demo.gguf"
    return {**({DEMO: str(demo)} if demo.exists() else {}), **known_models()}


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_models(register: Any) -> None:
    """Register the models; called by ``llm``."""
    for name, path in _every_model().items():
        register(LlamacpuModel(name, path))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_embedding_models(register: Any) -> None:
    """Register the same models for embeddings; called by ``llm``."""
    for name, path in _every_model().items():
        register(LlamacpuEmbeddingModel(name, path))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_commands(cli: click.Group) -> None:
    """Register the commands; called by ``llm``."""

    @cli.group()
    def llamacpu() -> None:
        """GGUF files as models."""

    @llamacpu.command()
    @click.argument("name")
    @click.argument("path", type=click.Path(exists=True, dir_okay=False, resolve_path=True))
    def add(name: str, path: str) -> None:
        """Make the GGUF file at PATH a model called NAME."""
        from llamacpu.gguf.file import GGUFFile

        GGUFFile(path).close()
        _save({**known_models(), name: path})

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
        for name, path in known_models().items():
            click.echo(f"{name}: {path}")
