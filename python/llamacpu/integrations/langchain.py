"""LangChain chat model and embeddings based on `llamacpu.Llama` (``pip install llamacpu[langchain]``).

    from llamacpu.integrations.langchain import ChatLlamaCpu, LlamaCpuEmbeddings

    chat = ChatLlamaCpu(model_path="model.gguf", temperature=0)
    chat.invoke("Hello").content
    chat.with_structured_output(Person).invoke("Who wrote Faust?")      # Person: a pydantic class
    LlamaCpuEmbeddings(model_path="model.gguf").embed_query("a text")

Cancelling a call in its event loop also stops the model. Reasoning is in `additional_kwargs` of the message as
"reasoning_content", and is passed back to the model from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

try:
    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable, run_in_executor
    from langchain_core.tools import BaseTool
    from pydantic import Field, PrivateAttr
except ImportError as _error:
    raise ImportError(
        f"llamacpu.integrations.langchain needs langchain-core ({_error}); install it with: "
        "pip install llamacpu[langchain]"
    ) from None

from llamacpu.chat.shown import prompt_ids
from llamacpu.engine.interfaces import CancelToken
from llamacpu.integrations.langchain_embeddings import LlamaCpuEmbeddings, path_of_environment
from llamacpu.integrations.langchain_messages import chunk_of, last_chunk_of, messages_of, result_of
from llamacpu.integrations.langchain_tools import choice_of, structured, tool_of
from llamacpu.llama import Llama

__all__ = ["ChatLlamaCpu", "LlamaCpuEmbeddings"]

# Arguments that programs bind for every chat model and that have no effect here.
_OF_OTHERS = ("model", "parallel_tool_calls", "ls_structured_output_format", "stream_usage")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed", "timeout")


class ChatLlamaCpu(BaseChatModel):
    """A chat model from a GGUF file.

    Messages may also be in Anthropic's form: `tool_use` and `tool_result` are calls and results, `thinking` is
    reasoning. `langchain_core.load.dumpd` serializes the settings, and `load` opens the file again with them.

    `temperature` and the settings after it are those of `Llama.create_chat_completion`, and can be passed with each
    call (`chat.invoke(..., max_tokens=20)`) or bound; None leaves them at their defaults there.
    """

    model_path: str = Field(default_factory=path_of_environment)
    """Path of the file; defaults to the environment variable LLAMACPU_MODEL_PATH."""
    n_ctx: int = 0
    """Maximum number of tokens of prompt and answer together; 0 for the model's training context."""
    n_threads: int | None = None
    """Number of threads; None for as many as the machine provides."""
    chat_format: str | None = None
    """A chat template by name or source; None for the file's own."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Other arguments of `llamacpu.Llama`, such as `mmproj` for a vision encoder that is not beside the model."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    timeout: float | None = None
    """Seconds after which an answer is cut off."""
    stop: list[str] | None = None
    """Texts that end an answer, unless a call gives its own."""
    template_variables: dict[str, Any] | None = None
    """Variables passed to the chat template, for instance `{"enable_thinking": False}`."""
    streaming: bool = False
    """Whether `invoke` gets the answer piece by piece and calls the callbacks for each."""

    _llama: Llama = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Open the file."""
        super().model_post_init(context)
        self._llama = Llama(
            self.model_path,
            **{"n_ctx": self.n_ctx, "n_threads": self.n_threads, "chat_format": self.chat_format, **self.model_kwargs},
        )

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: the settings describe the object completely."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where `load` finds the class."""
        return ["llamacpu", "integrations", "langchain"]

    @property
    def llama(self) -> Llama:
        """The underlying `llamacpu.Llama`."""
        return self._llama

    def close(self) -> None:
        """Free the model's memory; the object cannot be used afterwards."""
        self._llama.close()

    @property
    def _llm_type(self) -> str:
        return "llamacpu-chat"

    @property
    def _name(self) -> str:
        return Path(self.model_path).stem

    @property
    def _identifying_params(self) -> dict[str, Any]:
        chosen = {name: getattr(self, name) for name in (*_SAMPLING, "stop")}
        return {"model_path": self.model_path, "n_ctx": self.n_ctx, "chat_format": self.chat_format, **chosen}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        return {**params, "ls_provider": "llamacpu", "ls_model_name": kwargs.get("model") or self._name}

    # --- Tokens ---

    def get_token_ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        return list(self._llama.tokenize(text.encode(), add_bos=False))

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """The number of tokens in the prompt that the chat template makes from messages and tools."""
        offered = [tool_of(tool) for tool in tools or ()]
        return len(prompt_ids(self._llama.chat, messages_of(messages), offered or None))

    # --- Answers ---

    def _settings(self, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `create_chat_completion`: those of the object, overridden by those of the call."""
        found: dict[str, Any] = {name: getattr(self, name) for name in (*_SAMPLING, "template_variables")}
        found.update({name: value for name, value in given.items() if name not in _OF_OTHERS})
        found = {name: value for name, value in found.items() if value is not None}
        return {**found, "stop": stop if stop is not None else self.stop or []}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        settings = self._settings(stop, kwargs)
        create: Any = self._llama.create_chat_completion
        return result_of(create(messages_of(messages), **settings), self._name)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, self._settings(stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _chunks(self, messages: list[BaseMessage], settings: Mapping[str, Any]) -> Iterator[ChatGenerationChunk]:
        wanted = {"stream_options": {"include_usage": True}, **settings}
        create: Any = self._llama.create_chat_completion
        responses = create(messages_of(messages), stream=True, **wanted)
        reason: str | None = None
        usage: Mapping[str, Any] | None = None
        try:
            for response in responses:
                usage = response.get("usage") or usage
                for choice in response["choices"]:
                    reason = choice["finish_reason"] or reason
                    if chunk := chunk_of(response["id"], choice):
                        yield chunk
        finally:
            responses.close()
        yield last_chunk_of(reason, usage, self._name)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        settings = self._settings(stop, kwargs)
        with _Cancelling(settings) as cancelling:
            answer = await cancelling.wait(self._llama.create_chat_completion, messages_of(messages), **settings)
        return result_of(answer, self._name)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        settings = self._settings(stop, kwargs)
        with _Cancelling(settings) as cancelling:
            chunks = self._chunks(messages, settings)
            try:
                while (chunk := await cancelling.wait(next, chunks, None)) is not None:
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            finally:
                await asyncio.shield(run_in_executor(None, _closed, chunks, cancelling))

    # --- Tools and structured answers ---

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools that it may call.

        tool_choice  "auto", "none", "any" or "required" or True (it must call one), or the name of the one it must call
        strict       call arguments are valid under the tools' schemas even if the model itself decides to call

        Raises ValueError for a tool_choice that is not among the tools.
        """
        offered = [tool_of(tool, strict) for tool in tools]
        if tool_choice:
            kwargs["tool_choice"] = choice_of(tool_choice, offered)
        return self.bind(tools=offered, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return the model with answers that follow the schema: instances of a pydantic class, or else dicts.

        method  "json_schema" (the answer is JSON that is valid under the schema), "function_calling" (it is a call of
                a function with that schema) or "json_mode" (like the first if a schema is given, which other
                models only use for parsing; otherwise any JSON object)

        Raises ValueError for an unknown method, or if the method needs a schema and there is none.
        """
        return structured(self, schema, method, include_raw, strict, kwargs)


class _Cancelling:
    """Work in another thread that stops when the task waiting for it is cancelled."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.token = settings.setdefault("cancel", CancelToken())
        self._running: asyncio.Future[Any] | None = None

    def __enter__(self) -> _Cancelling:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.token.cancel()

    async def wait(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the function in another thread and return its result."""
        running = asyncio.ensure_future(run_in_executor(None, function, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.token.cancel()
            # The model is busy until its current step has ended.
            await asyncio.wait([running])
            raise


def _closed(chunks: Any, cancelling: _Cancelling) -> None:
    cancelling.token.cancel()
    chunks.close()
