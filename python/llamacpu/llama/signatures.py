"""The types of the completions of `Llama`: the arguments of each, and the results with and without `stream`.

For type checkers only: at run time, `Llama` has the methods of its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["Signatures"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal, overload

    from llamacpu.answers.messages import ChatMessage, ChatTool, ResponseFormat, ToolChoice
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.generation.request import PromptProgress
    from llamacpu.llama.formats import ChatFormatter
    from llamacpu.llama.streams import ResponseStream
    from llamacpu.llama.types import (
        CreateChatCompletionResponse,
        CreateChatCompletionStreamResponse,
        CreateCompletionResponse,
    )
    from llamacpu.multimodal.rows import PictureProgress
    from llamacpu.pictures import PictureAccess

    class Signatures:
        """The overloads of the completion methods."""

        @overload
        def create_completion(
            self, prompt: str | bytes | Sequence[int], suffix: str | None = None, max_tokens: int |
            None = 16, temperature: float = 0.8, top_p: float = 0.95, min_p: float = 0.05,
            typical_p: float = 1.0, logprobs: int | None = None, echo: bool = False, stop: str |
            Sequence[str] | None = (), frequency_penalty: float = 0.0, presence_penalty: float =
            0.0, repeat_penalty: float = 1.0, top_k: int = 40, stream: Literal[False] = False, seed:
            int | None = None, tfs_z: float = 1.0, mirostat_mode: int = 0, mirostat_tau: float =
            5.0, mirostat_eta: float = 0.1, model: str | None = None, stopping_criteria:
            Iterable[Any] | Callable[..., bool] | None = None, logits_processor: Iterable[Any] |
            None = None, grammar: Grammar | None = None, logit_bias: Mapping[Any, float] | None =
            None, *, stream_options: Mapping[str, Any] | None = None, on_prompt: PromptProgress |
            None = None, cancel: CancelToken | None = None, timeout: float | None = None,
        ) -> CreateCompletionResponse: ...  # fmt: skip
        @overload
        def create_completion(
            self, prompt: str | bytes | Sequence[int], *, stream: Literal[True], suffix: str | None
            = None, max_tokens: int | None = 16, temperature: float = 0.8, top_p: float = 0.95,
            min_p: float = 0.05, typical_p: float = 1.0, logprobs: int | None = None, echo: bool =
            False, stop: str | Sequence[str] | None = (), frequency_penalty: float = 0.0,
            presence_penalty: float = 0.0, repeat_penalty: float = 1.0, top_k: int = 40, seed: int |
            None = None, tfs_z: float = 1.0, mirostat_mode: int = 0, mirostat_tau: float = 5.0,
            mirostat_eta: float = 0.1, model: str | None = None, stopping_criteria: Iterable[Any] |
            Callable[..., bool] | None = None, logits_processor: Iterable[Any] | None = None,
            grammar: Grammar | None = None, logit_bias: Mapping[Any, float] | None = None,
            stream_options: Mapping[str, Any] | None = None, on_prompt: PromptProgress | None =
            None, cancel: CancelToken | None = None, timeout: float | None = None,
        ) -> ResponseStream[CreateCompletionResponse]: ...  # fmt: skip
        @overload
        def create_completion(
            self, prompt: str | bytes | Sequence[int], *, stream: bool, suffix: str | None = None,
            max_tokens: int | None = 16, temperature: float = 0.8, top_p: float = 0.95, min_p: float
            = 0.05, typical_p: float = 1.0, logprobs: int | None = None, echo: bool = False, stop:
            str | Sequence[str] | None = (), frequency_penalty: float = 0.0, presence_penalty: float
            = 0.0, repeat_penalty: float = 1.0, top_k: int = 40, seed: int | None = None, tfs_z:
            float = 1.0, mirostat_mode: int = 0, mirostat_tau: float = 5.0, mirostat_eta: float =
            0.1, model: str | None = None, stopping_criteria: Iterable[Any] | Callable[..., bool] |
            None = None, logits_processor: Iterable[Any] | None = None, grammar: Grammar | None =
            None, logit_bias: Mapping[Any, float] | None = None, stream_options: Mapping[str, Any] |
            None = None, on_prompt: PromptProgress | None = None, cancel: CancelToken | None = None,
            timeout: float | None = None,
        ) -> CreateCompletionResponse | ResponseStream[CreateCompletionResponse]: ...  # fmt: skip
        def create_completion(self, *args: Any, **kwargs: Any) -> Any: ...

        __call__ = create_completion

        @overload
        def create_chat_completion(
            self, messages: Sequence[ChatMessage], functions: Sequence[Any] | None = None,
            function_call: Any = None, tools: Sequence[ChatTool] | None = None, tool_choice:
            ToolChoice | None = None, temperature: float = 0.2, top_p: float = 0.95, top_k: int =
            40, min_p: float = 0.05, typical_p: float = 1.0, stream: Literal[False] = False, stop:
            str | Sequence[str] | None = (), seed: int | None = None, response_format:
            ResponseFormat | None = None, max_tokens: int | None = None, presence_penalty: float =
            0.0, frequency_penalty: float = 0.0, repeat_penalty: float = 1.0, tfs_z: float = 1.0,
            mirostat_mode: int = 0, mirostat_tau: float = 5.0, mirostat_eta: float = 0.1, model: str
            | None = None, logits_processor: Iterable[Any] | None = None, grammar: Grammar | None =
            None, logit_bias: Mapping[Any, float] | None = None, logprobs: bool | None = None,
            top_logprobs: int | None = None, *, stream_options: Mapping[str, Any] | None = None,
            template_variables: Mapping[str, Any] | None = None, formatter: ChatFormatter | None =
            None, reasoning: bool = True, on_prompt: PromptProgress | None = None, cancel:
            CancelToken | None = None, timeout: float | None = None, access: PictureAccess | None = None,
            on_picture: PictureProgress | None = None,
        ) -> CreateChatCompletionResponse: ...  # fmt: skip
        @overload
        def create_chat_completion(
            self, messages: Sequence[ChatMessage], *, stream: Literal[True], functions:
            Sequence[Any] | None = None, function_call: Any = None, tools: Sequence[ChatTool] | None
            = None, tool_choice: ToolChoice | None = None, temperature: float = 0.2, top_p: float =
            0.95, top_k: int = 40, min_p: float = 0.05, typical_p: float = 1.0, stop: str |
            Sequence[str] | None = (), seed: int | None = None, response_format: ResponseFormat |
            None = None, max_tokens: int | None = None, presence_penalty: float = 0.0,
            frequency_penalty: float = 0.0, repeat_penalty: float = 1.0, tfs_z: float = 1.0,
            mirostat_mode: int = 0, mirostat_tau: float = 5.0, mirostat_eta: float = 0.1, model: str
            | None = None, logits_processor: Iterable[Any] | None = None, grammar: Grammar | None =
            None, logit_bias: Mapping[Any, float] | None = None, logprobs: bool | None = None,
            top_logprobs: int | None = None, stream_options: Mapping[str, Any] | None = None,
            template_variables: Mapping[str, Any] | None = None, formatter: ChatFormatter | None =
            None, reasoning: bool = True, on_prompt: PromptProgress | None = None, cancel:
            CancelToken | None = None, timeout: float | None = None, access: PictureAccess | None = None,
            on_picture: PictureProgress | None = None,
        ) -> ResponseStream[CreateChatCompletionStreamResponse]: ...  # fmt: skip
        @overload
        def create_chat_completion(
            self, messages: Sequence[ChatMessage], *, stream: bool, functions: Sequence[Any] | None
            = None, function_call: Any = None, tools: Sequence[ChatTool] | None = None, tool_choice:
            ToolChoice | None = None, temperature: float = 0.2, top_p: float = 0.95, top_k: int =
            40, min_p: float = 0.05, typical_p: float = 1.0, stop: str | Sequence[str] | None = (),
            seed: int | None = None, response_format: ResponseFormat | None = None, max_tokens: int
            | None = None, presence_penalty: float = 0.0, frequency_penalty: float = 0.0,
            repeat_penalty: float = 1.0, tfs_z: float = 1.0, mirostat_mode: int = 0, mirostat_tau:
            float = 5.0, mirostat_eta: float = 0.1, model: str | None = None, logits_processor:
            Iterable[Any] | None = None, grammar: Grammar | None = None, logit_bias: Mapping[Any,
            float] | None = None, logprobs: bool | None = None, top_logprobs: int | None = None,
            stream_options: Mapping[str, Any] | None = None, template_variables: Mapping[str, Any] |
            None = None, formatter: ChatFormatter | None = None, reasoning: bool = True, on_prompt:
            PromptProgress | None = None, cancel: CancelToken | None = None, timeout: float | None =
            None, access: PictureAccess | None = None,
            on_picture: PictureProgress | None = None,
        ) -> CreateChatCompletionResponse | ResponseStream[CreateChatCompletionStreamResponse]: ...  # fmt: skip
        def create_chat_completion(self, *args: Any, **kwargs: Any) -> Any: ...


else:

    class Signatures:
        """An empty class at run time."""
