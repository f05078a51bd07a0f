"""The class `Llama`: what it is, and its beginning and end; the other files of this folder are its methods."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from llamacpu.engine.interfaces import LoadProgress
from llamacpu.engine.session import Session
from llamacpu.errors import LlamaCpuError
from llamacpu.generation import GenerationResult
from llamacpu.generation.context_window import Overflow, shared_length
from llamacpu.gguf.file import GGUFFile
from llamacpu.llama import settings
from llamacpu.llama.caches import BaseLlamaCache
from llamacpu.llama.chat import ChatMethods
from llamacpu.llama.embedding import EmbeddingMethods
from llamacpu.llama.formats import registered
from llamacpu.llama.logits import KeptLogits
from llamacpu.llama.state import StateMethods
from llamacpu.llama.steps import RANDOM_SEED, StepMethods
from llamacpu.llama.tokenizer import LlamaTokenizer
from llamacpu.model import Model
from llamacpu.text.tokenizer import Tokenizer

__all__ = ["Llama"]

# Names in the constructor that are not what a copy of the object is made with.
_NO_ARGUMENTS = frozenset(("self", "other", "__class__", "on_load"))


class Llama(ChatMethods, EmbeddingMethods, StateMethods, StepMethods):
    """A model and its conversation; see the module's description.

    model_path    a GGUF file
    n_ctx         the most tokens of prompt and answer together; 0 for what the model was trained for
    n_batch       the most tokens of a text that `embed` takes
    n_threads     number of threads; None for what the machine gives
    seed          of the random choices; the default draws one
    embedding     `embed` and `create_embedding` may be called
    pooling_type  how they make one vector of many, see the method `pooling_type`; -1 for what the file says
    chat_format   a built-in chat template, one of the file's, Jinja source, or what is registered in
                  `llamacpu.llama.formats`; None for what the file says
    chat_handler  answers conversations in its own way, see there
    tokenizer     tokenizes texts in place of the file's tokenizer: an object like `llamacpu.llama.tokenizer` has
    type_k        how keys and values are stored: 1 (16 bits), 0 (32 bits) or 8 (about 8 bits)
    logits_all    `scores` keeps the logits of every token, not of the last one only
    vocab_only    only the tokenizer is there
    draft_model   guesses tokens that are then checked together, with the same text sooner: "auto" and what else
                  `draft` of `llamacpu.generation.generate` takes, or the path of a small model; None for none
    on_load       (bytes done, bytes of weights): prepares the weights at once and is told how far that is, see
                  `llamacpu.Model.prepare`
    overflow      what becomes of a text that the context cannot hold: "error", "truncate" or "shift", as in
                  `llamacpu.generation.generate`; `last_result.dropped_tokens` tells what was left out

    The other arguments are those of llama-cpp-python; `kv_overrides` and those of the rotation (rope_..., yarn_...)
    take the place of metadata in the file. What has no meaning on a CPU is noted in the log, and what would change the
    result in a way that this engine has not (LoRA, attention in both directions) is a ValueError.
    """

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
        seed: int = RANDOM_SEED,
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
        **other: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in _NO_ARGUMENTS}
        self._arguments = {**given, **other}
        settings.check(given, other)
        overrides = settings.overrides(given)
        self.model_path = os.fspath(model_path)
        self.chat_format = chat_format
        self.chat_handler = chat_handler or registered(chat_format)
        self.verbose = verbose
        self.spm_infill = spm_infill
        self.overflow: Overflow = overflow
        self.last_n_tokens_size = last_n_tokens_size
        self.n_batch = n_batch
        self.cache: BaseLlamaCache | None = None
        self.last_result: GenerationResult | None = None
        self.tokenizer_ = tokenizer
        self.draft_model = settings.draft(draft_model)
        self._kv_type = settings.kv_type(type_k, type_v)
        self._embedding = embedding
        self._pooling_type = pooling_type
        self._logits_all = logits_all
        self._lock = threading.Lock()
        self._leased: Session | None = None
        self._model: Model | None = None
        self.set_seed(seed)
        if vocab_only:
            with GGUFFile(self.model_path, overrides) as file:
                self._file, self._tokenizer = file, Tokenizer(file)
        else:
            self._model = Model(self.model_path, threads=n_threads, overrides=overrides)
            if on_load is not None:
                self._model.prepare(on_load)
            self._file, self._tokenizer = self._model.file, self._model.tokenizer
            self._session = self._model.session(context=n_ctx or None, kv_type=self._kv_type)
        self._kept = KeptLogits(self.n_vocab())

    # --- What it is ---

    @property
    def model(self) -> Model:
        """The `llamacpu.Model` behind."""
        if self._model is None:
            raise LlamaCpuError("the model is closed, or was opened with vocab_only=True: only the tokenizer is there")
        return self._model

    @property
    def session(self) -> Session:
        """The `llamacpu.Session` of the conversation."""
        if self._model is None:
            self.model.session()
        return self._session

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file as texts, without the arrays."""
        plain = {key: value for key, value in self._file.metadata.items() if isinstance(value, (bool, int, float, str))}
        return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in plain.items()}

    @property
    def context_params(self) -> SimpleNamespace:
        """The settings of the conversation by llama.cpp's names."""
        return SimpleNamespace(
            n_ctx=self.n_ctx(), n_batch=self.n_batch, n_threads=self.n_threads, n_threads_batch=self.n_threads,
            pooling_type=self.pooling_type(), embeddings=self._embedding,
        )  # fmt: skip

    @property
    def n_threads(self) -> int:
        """Number of threads."""
        return self.model.threads

    def n_ctx(self) -> int:
        """The most tokens of prompt and answer together."""
        return self.session.context

    def n_embd(self) -> int:
        """Length of an embedding."""
        return int(self.model.config["embedding_length"])

    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._tokenizer.vocab_size if self._model is None else self.model.vocab_size

    def token_bos(self) -> int:
        """The begin-of-text token, -1 for none."""
        return -1 if self._tokenizer.bos is None else self._tokenizer.bos

    def token_eos(self) -> int:
        """The end-of-text token, -1 for none."""
        return -1 if self._tokenizer.eos is None else self._tokenizer.eos

    def token_nl(self) -> int:
        """The token of a line break, -1 for none."""
        return (self._tokenizer.encode("\n", add_special=False, space_prefix=False) or [-1])[-1]

    def tokenizer(self) -> LlamaTokenizer:
        """The tokenizer, with llama-cpp-python's methods."""
        return LlamaTokenizer(self)

    # --- Text and tokens ---

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = False) -> list[int]:
        """The tokens of a text, with `add_bos` between the start and end tokens that the model wants.

        `special` reads the names of control tokens as these tokens.
        """
        if self.tokenizer_ is not None:
            return list(self.tokenizer_.tokenize(text, add_bos, special))
        return self._tokenizer.encode(text, add_special=add_bos, parse_special=special)

    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """The bytes of tokens, as they continue `prev_tokens`; `special` shows the names of control tokens."""
        tokens = list(tokens)
        if self.tokenizer_ is not None:
            return bytes(self.tokenizer_.detokenize(tokens, prev_tokens=prev_tokens, special=special))
        text = self._tokenizer.decode_bytes(tokens, skip_special=not special)
        begins = tokens[:1] == [self.token_bos()] and not special
        return text.removeprefix(b" ") if begins else text

    # --- Life and death ---

    def close(self) -> None:
        """Give the memory back. Later calls raise `LlamaCpuError`."""
        if getattr(self, "_model", None) is not None:
            self.model.close()
            self._model = None

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
        """Download a file of a Hugging Face repository (a name or a pattern) and open it; see `llamacpu.store.hub`."""
        from llamacpu.store.hub import download

        path = download(repo_id, filename or "*.gguf", additional_files or (), local_dir, cache_dir)
        return cls(model_path=path, **kwargs)

    @staticmethod
    def logits_to_logprobs(logits: npt.ArrayLike, axis: int = -1) -> npt.NDArray[np.single]:
        """The log-probabilities of logits (their log-softmax)."""
        values = np.asarray(logits, dtype=np.single)
        largest = values.max(axis=axis, keepdims=True)
        shifted = values - np.where(np.isfinite(largest), largest, 0)
        with np.errstate(divide="ignore"):
            return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)), dtype=np.single)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """Length of the longest common beginning."""
        return shared_length(a, b)
