"""The class `Llama`: its constructor, and the methods of its parts under llama-cpp-python's names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from llamacpu.chat import Chat
from llamacpu.drafting import Draft
from llamacpu.engine.duty import Duty
from llamacpu.engine.interfaces import LoadProgress
from llamacpu.engine.priority import Priority
from llamacpu.generation import GenerationResult
from llamacpu.generation.context_window import Overflow, shared_length
from llamacpu.llama import settings
from llamacpu.llama.attributes import Attributes
from llamacpu.llama.caches import BaseLlamaCache
from llamacpu.llama.completions import Completions
from llamacpu.llama.conversation import Conversation, loader_of
from llamacpu.llama.delegation import FieldOf, keeping_arguments, method_of, named, with_signature_of
from llamacpu.llama.embedding import Embeddings
from llamacpu.llama.formats import OwnHandler, registered
from llamacpu.llama.logits import log_probabilities
from llamacpu.llama.openai_objects import import_openai, openai_objects
from llamacpu.llama.opening import open_file
from llamacpu.llama.sampling import RANDOM_SEED, Samplers
from llamacpu.llama.signatures import Signatures
from llamacpu.llama.steps import Steps
from llamacpu.llama.text import LlamaText
from llamacpu.llama.tokenizer import LlamaTokenizer
from llamacpu.model import Model

__all__ = ["Llama"]


# Settings that handlers written for llama-cpp-python do not support.
_OWN_CHAT_SETTINGS = (
    "template_variables", "reasoning", "on_prompt", "on_picture", "cancel", "timeout", "access",
)  # fmt: skip


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
    mmproj        the vision encoder of a model with image input; None for the one beside its file
    image_tokens  the most tokens of a picture; None for what the model was trained with
    image_crops   the most crops of a long picture, shown beside the whole (Gemma 3); 0 for none
    tokenizer     replaces the file's tokenizer: an object like those in `llamacpu.llama.tokenizer`
    type_k        how keys and values are stored: 1 (16 bits), 0 (32 bits) or 8 (about 8 bits)
    logits_all    whether `scores` keeps the logits of every token, not only of the last one
    vocab_only    whether to open only the tokenizer
    use_mmap      False reads the whole file into memory at once: `load="copy"` of `llamacpu.Model`
    draft_model   speculative decoding, which gives the same text sooner: "auto" or anything else that `draft` of
                  `llamacpu.generation.generate` takes; the path of a drafter or of a small model, or "self", as in
                  `llamacpu.Model.open_draft`; None for none
    on_load       (bytes done, bytes of weights): prepares the weights at once and is called with the progress, see
                  `llamacpu.Model.prepare`
    priority, duty  of the process among other programs, and the most percent of the time in which it computes; see
                  `llamacpu.Model`
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

    @keeping_arguments
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
        mmproj: str | os.PathLike[str] | bool | None = None,
        image_tokens: int | None = None,
        image_crops: int = 0,
        draft_model: Any = "auto",
        tokenizer: Any = None,
        type_k: int | str | None = None,
        type_v: int | str | None = None,
        spm_infill: bool = False,
        verbose: bool = True,
        overflow: Overflow = "error",
        on_load: LoadProgress | None = None,
        priority: Priority | None = None,
        duty: Duty = None,
        **other: NoReturn,
    ) -> None:
        settings.check(self._arguments, other)
        overrides = settings.overrides(self._arguments)
        self.model_path: str = os.fspath(model_path)
        self.chat_handler: Callable[..., Any] | None = chat_handler or registered(chat_format)
        self.verbose = verbose
        kv_type = settings.kv_type(type_k, type_v)
        opened = open_file(self.model_path, self._arguments, self._given, overrides, on_load)
        model, found, vocabulary = opened.model, opened.tokenizer, opened.vocab_size
        self._file = opened.file
        try:
            drafts = settings.draft(draft_model, model)
        except BaseException:
            if model is not None:
                model.close()
            raise
        self._text = LlamaText(found, tokenizer)
        self._samplers = Samplers(found, vocabulary, last_n_tokens_size, RANDOM_SEED if seed is None else seed)
        self._conversation = Conversation(
            model, self._samplers, vocabulary, context=opened.context or None, kv_type=kv_type, logits_all=logits_all
        )
        # If a program has replaced `load_state`, its function also gets the states from the cache.
        self._conversation.restore = loader_of(self)
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
    def chat(self) -> Chat:
        """The chat template of the model and the conversion of messages to tokens."""
        return self._completions.chat

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
        import_openai()
        found: Any = self.create_chat_completion(*args, **kwargs)
        return openai_objects(found, stream=bool(kwargs.get("stream")))

    # --- Embeddings ---

    pooling_type: Final = method_of("_embeddings", Embeddings.pooling_type)
    create_embedding: Final = method_of("_embeddings", Embeddings.create_embedding)
    embed: Final = method_of("_embeddings", Embeddings.embed)
    rank: Final = method_of("_embeddings", Embeddings.rank)

    # --- Step by step ---

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
            drafts, self._completions.draft_model = self._completions.draft_model, None
            if drafts is not None:
                drafts.close()

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
        return log_probabilities(logits, axis)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """Return the length of the longest common prefix of two token sequences."""
        return shared_length(a, b)
