"""The class `Llama`: its constructor, and the methods of its parts under llama-cpp-python's names."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

import numpy as np
import numpy.typing as npt

from llamacpu.chat import Chat
from llamacpu.drafting import Draft
from llamacpu.engine.interfaces import Load, LoadProgress
from llamacpu.engine.session import Session
from llamacpu.generation import GenerationResult
from llamacpu.generation.context_window import Overflow, shared_length
from llamacpu.gguf.file import GGUFFile
from llamacpu.llama import settings
from llamacpu.llama.attributes import Attributes
from llamacpu.llama.caches import BaseLlamaCache
from llamacpu.llama.completions import Completions
from llamacpu.llama.conversation import Conversation
from llamacpu.llama.delegation import FieldOf, method_of, named, with_signature_of
from llamacpu.llama.embedding import Embeddings
from llamacpu.llama.formats import OwnHandler, registered
from llamacpu.llama.sampling import RANDOM_SEED, Samplers
from llamacpu.llama.signatures import Signatures
from llamacpu.llama.state import LlamaState
from llamacpu.llama.steps import Steps
from llamacpu.llama.text import LlamaText
from llamacpu.llama.tokenizer import LlamaTokenizer
from llamacpu.locks import cached_property
from llamacpu.model import Model
from llamacpu.text.tokenizer import Tokenizer

__all__ = ["Llama"]


def _loader(owner: weakref.ref[Llama]) -> Callable[[LlamaState], None]:
    """A function that calls `load_state` of an object if it is still alive, without keeping it alive."""

    def load(state: LlamaState) -> None:
        found = owner()
        if found is not None:
            found.load_state(state)

    return load


Constructor = TypeVar("Constructor", bound=Callable[..., None])
# Settings that handlers written for llama-cpp-python do not support.
_OWN_CHAT_SETTINGS = ("template_variables", "reasoning", "on_prompt", "cancel", "timeout")


def _keeping_arguments(initialize: Constructor) -> Constructor:
    """Decorator of the constructor that stores its arguments, from which a copy of the object is made."""

    @wraps(initialize)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        self._arguments = named(initialize, args, kwargs)
        self._given = frozenset(kwargs)
        self._arguments.pop("on_load")
        initialize(self, *args, **kwargs)

    return cast(Constructor, call)


class Llama(Attributes, Signatures):
    """A model and its conversation; see the module's description.

    model_path    path of a GGUF file, or the name of a model
    n_ctx         maximum number of tokens of prompt and answer together; 0 for the model's training context. If not
                  given, the num_ctx that came with a model opened by name applies, like its other settings in
                  completions
    n_batch       maximum number of tokens of a text that `embed` takes
    n_threads     number of threads; None or 0 for as many as the machine provides
    seed          seed of the random choices; the default, -1 and None draw one
    embedding     whether `embed` and `create_embedding` may be called
    pooling_type  how these combine token vectors into one, see the method `pooling_type`; -1 for the file's setting
    chat_format   a built-in chat template, one of the file's, Jinja source, or a name registered in
                  `llamacpu.llama.formats`; None for the file's own
    chat_handler  a function that answers conversations itself, see `llamacpu.llama.formats`
    tokenizer     replaces the file's tokenizer: an object like those in `llamacpu.llama.tokenizer`
    type_k        how keys and values are stored: 1 (16 bits), 0 (32 bits) or 8 (about 8 bits)
    logits_all    whether `scores` keeps the logits of every token, not only of the last one
    vocab_only    whether to open only the tokenizer
    use_mmap      False reads the whole file into memory at once: `load="copy"` of `llamacpu.Model`
    draft_model   speculative decoding, which gives the same text sooner: "auto" or anything else that `draft` of
                  `llamacpu.generation.generate` takes, or the path of a small model; None for none
    on_load       (bytes done, bytes of weights): prepares the weights at once and is called with the progress, see
                  `llamacpu.Model.prepare`
    overflow      what happens to a text that the context cannot hold: "error", "truncate" or "shift", as in
                  `llamacpu.generation.generate`; `last_result.dropped_tokens` says how many tokens were left out

    The other arguments are those of llama-cpp-python; `kv_overrides` and those of the rotary position embedding
    (rope_..., yarn_...) replace metadata of the file. Arguments without meaning on a CPU are noted in the log, and
    those that would change the result in a way that this engine does not support (bidirectional attention) raise
    ValueError. `lora_path` and `lora_scale` are a LoRA adapter and its scale; it is applied to the weights of the model
    as they are, without `lora_base`.
    """

    _arguments: dict[str, Any]
    _given: frozenset[str]

    @_keeping_arguments
    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        n_gpu_layers: int = 0,
        split_mode: int = 1,
        main_gpu: int = 0,
        tensor_split: Sequence[float] | None = None,
        vocab_only: bool = False,
        use_mmap: bool = True,
        use_mlock: bool = False,
        kv_overrides: Mapping[str, Any] | None = None,
        seed: int | None = RANDOM_SEED,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        rope_scaling_type: int | None = -1,
        pooling_type: int = -1,
        attention_type: int = -1,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        yarn_ext_factor: float = -1.0,
        yarn_attn_factor: float = 1.0,
        yarn_beta_fast: float = 32.0,
        yarn_beta_slow: float = 1.0,
        yarn_orig_ctx: int = 0,
        logits_all: bool = False,
        embedding: bool = False,
        offload_kqv: bool = True,
        flash_attn: bool = False,
        op_offload: bool | None = None,
        swa_full: bool | None = None,
        no_perf: bool = False,
        last_n_tokens_size: int = 64,
        lora_base: str | None = None,
        lora_scale: float = 1.0,
        lora_path: str | None = None,
        numa: bool | int = False,
        chat_format: str | None = None,
        chat_handler: Callable[..., Any] | None = None,
        draft_model: Any = "auto",
        tokenizer: Any = None,
        type_k: int | str | None = None,
        type_v: int | str | None = None,
        spm_infill: bool = False,
        verbose: bool = True,
        overflow: Overflow = "error",
        on_load: LoadProgress | None = None,
        **other: NoReturn,
    ) -> None:
        settings.check(self._arguments, other)
        overrides = settings.overrides(self._arguments)
        self.model_path: str = os.fspath(model_path)
        self.chat_handler: Callable[..., Any] | None = chat_handler or registered(chat_format)
        self.verbose = verbose
        kv_type = settings.kv_type(type_k, type_v)
        drafts = settings.draft(draft_model)
        model = None
        if vocab_only:
            with GGUFFile(settings.file_of(self.model_path), overrides) as file:
                self._file, found = file, Tokenizer(file)
        else:
            load: Load = "map" if use_mmap else "copy"
            model = Model(
                self.model_path,
                threads=n_threads or None,
                overrides=overrides,
                load=load,
                lora=settings.lora(self._arguments),
            )
            if "n_ctx" not in self._given and model.preset.context is not None:
                n_ctx = model.preset.context
            if on_load is not None:
                model.prepare(on_load)
            self._file, found = model.file, model.tokenizer
        vocabulary = found.vocab_size if model is None else model.vocab_size
        self._text = LlamaText(found, tokenizer)
        self._samplers = Samplers(found, vocabulary, last_n_tokens_size, RANDOM_SEED if seed is None else seed)
        self._conversation = Conversation(
            model, self._samplers, vocabulary, context=n_ctx or None, kv_type=kv_type, logits_all=logits_all
        )
        # If a program has replaced `load_state`, its function also gets the states from the cache.
        self._conversation.restore = _loader(weakref.ref(self))
        self._steps = Steps(self._conversation, self._samplers)
        self._embeddings = Embeddings(
            self._conversation, self._text, self._file.metadata, self.model_path,
            wanted=embedding, asked_pooling=pooling_type, n_batch=n_batch,
        )  # fmt: skip
        self._completions = Completions(
            self._conversation, self._text, self._samplers, self.model_path,
            chat_format=chat_format, spm_infill=spm_infill, overflow=overflow, draft_model=drafts,
        )  # fmt: skip
        if chat_format is not None and model is not None:
            self._check_format(model)

    def _check_format(self, model: Model) -> None:
        """Raise TemplateError at once for an unknown chat format."""
        try:
            _ = self._completions.chat
        except BaseException:
            model.close()
            raise

    def __repr__(self) -> str:
        name = os.path.basename(self.model_path)  # noqa: PTH119 (it may be bytes)
        conversation = getattr(self, "_conversation", None)
        if conversation is None or conversation.closed:
            return f"<Llama {name!r}, closed>"
        return f"<Llama {name!r}: {self.n_tokens} of {self.n_ctx()} tokens>"

    # --- Fields of its parts ---

    n_batch: FieldOf[int] = FieldOf[int]("_embeddings", "n_batch")
    tokenizer_: FieldOf[Any] = FieldOf[Any]("_text", "given")
    last_n_tokens_size: FieldOf[int] = FieldOf[int]("_samplers", "last_n_tokens_size")
    cache: FieldOf[BaseLlamaCache | None] = FieldOf[BaseLlamaCache | None]("_conversation", "cache")
    last_result: FieldOf[GenerationResult | None] = FieldOf[GenerationResult | None]("_conversation", "last_result")
    chat_format: FieldOf[str | None] = FieldOf[str | None]("_completions", "chat_format")
    spm_infill: FieldOf[bool] = FieldOf[bool]("_completions", "spm_infill")
    overflow: FieldOf[Overflow] = FieldOf[Overflow]("_completions", "overflow")
    draft_model: FieldOf[Draft | None] = FieldOf[Draft | None]("_completions", "draft_model")

    # --- What it is ---

    @property
    def model(self) -> Model:
        """The underlying `llamacpu.Model`."""
        return self._conversation.model

    @property
    def session(self) -> Session:
        """The `llamacpu.Session` of the conversation."""
        return self._conversation.session

    @property
    def chat(self) -> Chat:
        """The chat template of the model and the conversion of messages to tokens."""
        return self._completions.chat

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file as strings, without the arrays."""
        plain = {key: value for key, value in self._file.metadata.items() if isinstance(value, (bool, int, float, str))}
        return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in plain.items()}

    @property
    def context_params(self) -> SimpleNamespace:
        """The settings of the conversation, under llama.cpp's names."""
        return SimpleNamespace(
            n_ctx=self.n_ctx(), n_batch=self.n_batch, n_threads=self.n_threads, n_threads_batch=self.n_threads_batch,
            pooling_type=self.pooling_type(), embeddings=self._embeddings.wanted,
        )  # fmt: skip

    n_ctx: Final = method_of("_conversation", Conversation.n_ctx)

    def n_embd(self) -> int:
        """The length of an embedding."""
        return int(self.model.config["embedding_length"])

    def n_vocab(self) -> int:
        """The number of tokens in the vocabulary."""
        return self._conversation.vocab_size

    def tokenizer(self) -> LlamaTokenizer:
        """The tokenizer, with llama-cpp-python's methods."""
        return LlamaTokenizer(self._text)

    # --- Text and tokens ---

    tokenize: Final = method_of("_text", LlamaText.tokenize)
    detokenize: Final = method_of("_text", LlamaText.detokenize)
    token_bos: Final = method_of("_text", LlamaText.token_bos)
    token_eos: Final = method_of("_text", LlamaText.token_eos)
    token_nl: Final = method_of("_text", LlamaText.token_nl)

    # --- Completions ---

    moderate: Final = method_of("_completions", Completions.moderate)
    guard_prompt: Final = method_of("_completions", Completions.guard_prompt)

    def infill(self, prefix: str, suffix: str, **settings: Any) -> Any:
        """Generate the text that belongs between two texts; `settings` as in `create_completion`.

        Raises ModelError for a model that was not trained for it.
        """
        return self._completions.infill(prefix, suffix, **settings)

    if not TYPE_CHECKING:  # for type checkers, `Signatures` is more precise than this
        create_completion = method_of("_completions", Completions.create_completion)

        @with_signature_of(Completions.create_completion)
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call `create_completion` with the same arguments."""
            return self.create_completion(*args, **kwargs)

        @with_signature_of(Completions.create_chat_completion)
        def create_chat_completion(self, *args: Any, **kwargs: Any) -> Any:
            handler = self.chat_handler
            if handler is None or kwargs.get("formatter") is not None:
                return self._completions.create_chat_completion(*args, **kwargs)
            given = named(Completions.create_chat_completion, args, kwargs)
            left_out = ("formatter", *(() if isinstance(handler, OwnHandler) else _OWN_CHAT_SETTINGS))
            return handler(llama=self, **{name: value for name, value in given.items() if name not in left_out})

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """Like `create_chat_completion`, but returns objects of the openai package. Raises ImportError without it."""
        try:
            from openai.types.chat import ChatCompletion, ChatCompletionChunk
        except ImportError:
            raise ImportError(
                "create_chat_completion_openai_v1 needs the openai package; install it with: pip install openai"
            ) from None
        found: Any = self.create_chat_completion(*args, **kwargs)
        return (ChatCompletionChunk(**chunk) for chunk in found) if kwargs.get("stream") else ChatCompletion(**found)

    # --- Embeddings ---

    pooling_type: Final = method_of("_embeddings", Embeddings.pooling_type)
    create_embedding: Final = method_of("_embeddings", Embeddings.create_embedding)
    embed: Final = method_of("_embeddings", Embeddings.embed)
    rank: Final = method_of("_embeddings", Embeddings.rank)

    # --- Step by step ---

    @property
    def n_tokens(self) -> int:
        """The number of tokens in the conversation; a smaller value can be set, to continue from there."""
        return self.session.position

    @n_tokens.setter
    def n_tokens(self, count: int) -> None:
        if isinstance(count, bool) or not hasattr(count, "__index__") or not 0 <= count <= self.session.position:
            raise ValueError(
                f"n_tokens is set to {count!r}; expected 0 to {self.session.position}, the tokens there are"
            )
        self._conversation.truncate(count)

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens of the conversation."""
        return self._conversation.input_ids

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The logits that `eval` kept, float32[rows, vocabulary]: of all tokens with `logits_all`, else of the last."""
        return self._conversation.scores

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens of the conversation."""
        return self._conversation.eval_tokens

    @property
    def eval_logits(self) -> deque[list[float]]:
        """`scores` as lists."""
        return self._conversation.eval_logits

    # Programs written for llama-cpp-python use these two under their private names.
    _input_ids = input_ids
    _scores = scores

    set_seed: Final = method_of("_samplers", Samplers.set_seed)
    reset: Final = method_of("_conversation", Conversation.reset)
    eval: Final = method_of("_conversation", Conversation.eval)
    sample: Final = method_of("_steps", Steps.sample)
    generate: Final = method_of("_steps", Steps.generate)
    save_state: Final = method_of("_conversation", Conversation.save_state)
    load_state: Final = method_of("_conversation", Conversation.load_state)
    set_cache: Final = method_of("_conversation", Conversation.set_cache)

    # --- Lifetime ---

    def close(self) -> None:
        """Free the memory of weights, keys and values, and the draft model. Later calls raise `LlamaCpuError`."""
        conversation = getattr(self, "_conversation", None)
        if conversation is not None:
            conversation.close()
            self._completions.draft_model = None

    def __enter__(self) -> Llama:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        additional_files: Sequence[str] | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_use_symlinks: bool | str = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Llama:
        """Download a file of a Hugging Face repository and open it; see `llamacpu.store.hub`.

        filename: a name or a pattern; None for "*.gguf". `kwargs` are arguments of `Llama`.
        """
        from llamacpu.store.hub import download

        path = download(repo_id, filename or "*.gguf", additional_files or (), local_dir, cache_dir)
        return cls(model_path=path, **kwargs)

    @staticmethod
    def logits_to_logprobs(logits: npt.ArrayLike, axis: int = -1) -> npt.NDArray[np.single]:
        """Return the log-probabilities of logits (their log-softmax along `axis`)."""
        values = np.asarray(logits, dtype=np.single)
        largest = values.max(axis=axis, keepdims=True)
        shifted = values - np.where(np.isfinite(largest), largest, 0)
        with np.errstate(divide="ignore"):
            return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)), dtype=np.single)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """Return the length of the longest common prefix of two token sequences."""
        return shared_length(a, b)
