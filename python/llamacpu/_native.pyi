"""What the native module offers, one section per file of rust/bindings/src."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, final

import numpy as np
from numpy.typing import NDArray

__version__: str

# --- files.rs --------------------------------------------------------------------------------------------------------

@final
class File:
    """A model file, opened once for its header and for its weights, and read at any position.

    Reading raises GGUFError behind the end, after `close`, and where the file became shorter or was written to since it
    was opened; MemoryError where memory is short. The constructor raises OSError.
    """

    def __new__(cls, path: str) -> File: ...
    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
    @property
    def closed(self) -> bool: ...
    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
    def keep(self, length: int) -> None:
        """Read the first `length` bytes into memory: from then on nothing that happens to the file changes them."""
    def index_strings(self, start: int, count: int) -> tuple[NDArray[np.uint64], int]:
        """As the function `index_strings`, in this file."""
    def close(self) -> None:
        """Close the file; a model that was made of it keeps its own reference."""

# --- gguf.rs ---------------------------------------------------------------------------------------------------------

class _Buffer(Protocol):
    """Anything with the buffer protocol: bytes, mmap, memoryview, a uint8 array."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

def index_strings(buffer: _Buffer, start: int, count: int) -> tuple[NDArray[np.uint64], int]:
    """Find the `count` strings of a GGUF string array whose first length prefix lies at byte `start` of `buffer`.

    Returns `(offsets, end)`. `offsets` has `count + 1` entries: where the length prefix of every string begins, then
    `end`, the position of the first byte after the array. String `i` is `buffer[offsets[i] + 8 : offsets[i + 1]]`.
    Raises GGUFError if the strings do not fit into the buffer; nothing is allocated that the buffer does not justify.
    """

# --- grammar.rs ------------------------------------------------------------------------------------------------------

@final
class Grammar:
    """A grammar in GBNF whose texts are those of the rule `root`. Raises GrammarError."""

    def __new__(cls, text: str, root: str) -> Grammar: ...
    @property
    def references(self) -> list[tuple[int | None, str | None]]:
        """The tokens that the grammar names: an id or a text each."""

@final
class TokenTrie:
    """The tokens of a vocabulary as a tree of their bytes.

    texts: the bytes of each token, empty where it has none; named: ids of those without a text that can be written,
    such as control tokens; ends: ids of those that end a text. Raises ValueError for ids outside of the vocabulary.
    """

    def __new__(cls, texts: Sequence[bytes], named: Sequence[int], ends: Sequence[int]) -> TokenTrie: ...

@final
class GrammarMatcher:
    """A grammar and one text that is written under it. Raises GrammarError where they do not go together, or when the
    text can be read in too many ways; Cancelled once `cancel` is.

    references: the ids of the tokens that the grammar names, in the order of `Grammar.references`.
    """

    def __new__(
        cls, grammar: Grammar, trie: TokenTrie, references: Sequence[int], cancel: CancelToken | None = None
    ) -> GrammarMatcher: ...
    def restart(self, cancel: CancelToken | None = None) -> None:
        """Begins another text under the grammar, with what was learned from the last one."""
    def consume(self, id: int, cancel: CancelToken | None = None) -> None:
        """The text goes on by a token. After an error nothing has changed."""
    def feed(self, text: bytes, cancel: CancelToken | None = None) -> bool:
        """The text goes on by these bytes; False if the grammar forbids that, and then nothing has changed."""
    def mask(self, logits: NDArray[np.float32], cancel: CancelToken | None = None) -> None:
        """Set the logits of tokens that cannot come next to minus infinity, in place. float32[any], contiguous."""
    def allowed(self, cancel: CancelToken | None = None) -> NDArray[np.int64]:
        """The ids of the tokens that may come next, ascending. int64[tokens]"""
    @property
    def accepting(self) -> bool:
        """Whether the text so far is one of the grammar's."""
    def stopped(self, cancel: CancelToken | None = None) -> bool:
        """Whether the text is one of the grammar's and no token but one that ends it may come next."""

# --- interrupt.rs ----------------------------------------------------------------------------------------------------

@final
class CancelToken:
    """A flag that stops a running step from any thread, or when its time (in seconds from now) is over.

    A token made with a parent is cancelled with it too; cancelling it leaves the parent alone.
    """

    def __new__(cls, timeout: float | None = None, parent: CancelToken | None = None) -> CancelToken: ...
    def cancel(self) -> None:
        """Stop every step that was given this token, now and later."""
    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called or the time is over."""
    @property
    def reason(self) -> Literal["cancelled", "timeout"] | None:
        """What stopped it, whichever was seen first; None while nothing has."""

# --- kernels.rs ------------------------------------------------------------------------------------------------------

class kernels:  # noqa: N801 (a submodule; a class here, because stubs of submodules are files of their own)
    """The kernels on NumPy arrays; `llamacpu.kernels` gives them their defaults and documents them."""

    @staticmethod
    def formats() -> list[tuple[str, int, int, int, bool]]: ...
    @staticmethod
    def quantize(x: NDArray[np.float32], format: str) -> NDArray[np.uint8]: ...
    @staticmethod
    def dequantize(data: NDArray[np.uint8], format: str) -> NDArray[np.float32]: ...
    @staticmethod
    def matmul(
        x: NDArray[np.float32], weights: NDArray[Any], format: str, threads: int, isa: str | None
    ) -> NDArray[np.float32]: ...
    @staticmethod
    def norm(
        x: NDArray[np.float32],
        mean: bool,
        weight: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        epsilon: float,
        isa: str | None,
    ) -> NDArray[np.float32]: ...
    @staticmethod
    def activate(
        x: NDArray[np.float32], up: NDArray[np.float32] | None, name: str, isa: str | None
    ) -> NDArray[np.float32]: ...
    @staticmethod
    def clamped_swiglu(
        gate: NDArray[np.float32], up: NDArray[np.float32], slope: float, limit: float, isa: str | None
    ) -> NDArray[np.float32]: ...
    @staticmethod
    def soft_cap(x: NDArray[np.float32], cap: float, isa: str | None) -> NDArray[np.float32]: ...
    @staticmethod
    def softmax(x: NDArray[np.float32], isa: str | None) -> NDArray[np.float32]: ...
    @staticmethod
    def rope(
        x: NDArray[np.float32],
        positions: Sequence[int],
        settings: Mapping[str, object],
        factors: Sequence[float] | None,
        isa: str | None,
    ) -> NDArray[np.float32]: ...
    @staticmethod
    def attention(
        queries: NDArray[np.float32],
        keys: NDArray[np.float32],
        values: NDArray[np.float32] | None,
        value_size: int,
        scale: float,
        seen: str,
        span: int,
        soft_cap: float | None,
        sinks: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        kv_type: str,
        threads: int,
        isa: str | None,
    ) -> NDArray[np.float32]: ...

# --- model.rs --------------------------------------------------------------------------------------------------------

PAGE_LAYOUT: int
"""Number of the arrangement of keys and values in a page."""
PAGE_TOKENS: int
"""Tokens in a page of keys and values."""

@final
class Model:
    """Mapped or copied, shape-checked weights and the threads that run them.

    `tensors` is the tensor table: name, type number, shape (fastest-varying first), index into `files`, offset, bytes.
    `load` is "map" or "copy". Raises GGUFError for bytes outside the files, ModelError for a configuration or tensors
    that make no model, MemoryError where memory is short. `step`, `step_hidden` and `prepare` raise ModelError if a
    mapped file became shorter or was written to.
    """

    def __new__(
        cls,
        files: Sequence[File],
        config: Mapping[str, object],
        tensors: Sequence[tuple[str, int, tuple[int, ...], int, int, int]],
        threads: int | None = None,
        load: str = "map",
    ) -> Model: ...
    def limit_memory(self, bytes: int) -> int:
        """Keep weights in at most `bytes` of memory, to be called before any step: those of all tokens, then experts.

        Every product reads the others from the file. Returns the bytes of these.
        """
    def session(self, context: int | None = None, kv_type: str = "f16") -> Session:
        """Start a conversation of at most `context` tokens; keys and values are stored as `kv_type`."""
    def step(
        self, items: Sequence[tuple[Session, Sequence[int]]], logits: str = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32]:
        """Continue the sessions by the tokens: the wanted rows of logits, float32[rows, vocabulary], items in order."""
    def step_hidden(
        self,
        items: Sequence[tuple[Session, Sequence[int]]],
        places: Sequence[int],
        logits: str = "none",
        cancel: CancelToken | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`step`, and the hidden states of every token: float32[places, tokens, width].

        A place below the number of layers is the residual stream behind that layer, the number of layers the stream
        behind the last norm.
        """
    def complete(self, session: Session) -> None:
        """Computes the keys and values that the session lacks because it was rewound too far."""
    def kv_bytes(self, kv_type: str, tokens: int) -> int:
        """Bytes of keys and values of a session of `tokens` tokens: windows make it less than as many pages."""
    def classify(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores that the classifier gives of states: float32[rows, width] -> float32[rows, classes]."""
    def page_bytes(self, kv_type: str) -> int:
        """Bytes of a page of keys and values."""
    def restore(self, context: int, kv_type: str, tokens: Sequence[int], pages: Iterable[bytes]) -> Session:
        """Start a conversation that has its first tokens already; `pages` are what `Session.page` gave."""
    def part_bytes(self) -> list[int]:
        """Bytes in the file of the parts that `prepare` takes: the layers, then the output matrix."""
    def prepare(self, part: int, cancel: CancelToken | None = None) -> None:
        """Bring one part of the weights into the form that products use."""
    def close(self) -> None:
        """Give the weights back."""
    @property
    def closed(self) -> bool: ...
    @property
    def threads(self) -> int: ...
    @property
    def threads_reason(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def unread_tensors(self) -> list[str]: ...
    @property
    def mapped(self) -> bool:
        """Whether all files are mapped, and none is copied."""
    @property
    def weight_bytes(self) -> int: ...

# --- session.rs ------------------------------------------------------------------------------------------------------

@final
class Session:
    """One conversation: tokens and their keys and values; continued by `Model.step`."""

    @property
    def context(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def kv_type(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def set_first_part(self, tokens: int) -> None:
        """The tokens behind the first `tokens` ones are a second text (BERT's second type); call it before a step."""
    def page(self, index: int) -> bytes:
        """The keys and values of the tokens from `index * PAGE_TOKENS` on."""
    def fork(self) -> Session:
        """A second conversation with the same past, whose memory is shared."""
    def truncate(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens."""

# --- cpu.rs ----------------------------------------------------------------------------------------------------------

def cpu_facts() -> dict[str, Any]:
    """What this processor has and what is chosen for it.

    Keys: architecture, available (instruction sets, slowest first), chosen, chosen_features (what that set consists
    of), processor_features (all that kernels exist for), threads, threads_reason.
    """

def memory_bandwidth(bytes: int = ..., threads: int | None = None) -> float:
    """Measured read bandwidth in GB/s (10^9 bytes per second) over a buffer of `bytes`."""

def product_peak(threads: int | None = None) -> float:
    """Measured peak of the chosen instruction set's dot products of bytes, in 10^9 multiplications a second."""

# --- sampling.rs -----------------------------------------------------------------------------------------------------
# Logits are contiguous float32 arrays of one dimension; NaN counts as -inf.

def argmax(logits: NDArray[np.float32]) -> int:
    """The id of the largest logit, the lowest among equals. Raises ValueError where all are NaN or there is none."""

def top_k(logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ids and logits of the `k` largest (all, if fewer) in descending order, lower ids first among equals."""

def distribution(logits: NDArray[np.float32]) -> tuple[float, float] | None:
    """`(log_sum, entropy)` of the softmax: a logit minus log_sum is its log-probability; entropy is in nats.

    Relative error of probabilities about 1e-6. None where there is no softmax: no finite logit, or +inf among them.
    """

def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The log-probability of every token; None where there is no softmax."""

def exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """e to the power of each number, the same bits on every processor; below -707 it is 0, above 709 infinity."""

def log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm of each number, the same bits on every processor; -inf for 0, NaN below."""

# --- tokenizer.rs ----------------------------------------------------------------------------------------------------

_StringArray = tuple[_Buffer, int]  # the bytes of the array as a file has them, number of strings

@final
class Tokenizer:
    """Text to token ids and back. BOS and EOS are added in Python."""

    @staticmethod
    def sentence_piece(
        tokens: _StringArray,
        kinds: NDArray[np.int32] | None,
        scores: NDArray[np.float32] | None,
        unknown: int | None,
        space_prefix: bool,
        strips_right_except: list[str] | None,
    ) -> Tokenizer:
        """Build a vocabulary whose merges follow from the scores of its tokens.

        `strips_right_except`: special tokens with other names swallow the white space behind them.
        """
    @staticmethod
    def byte_pair(
        tokens: _StringArray,
        kinds: NDArray[np.int32] | None,
        merges: _StringArray,
        pre: str,
        strips_right_except: list[str] | None,
        white_space: Literal["kept", "dropped", "dropped, lowercase"] = "kept",
    ) -> Tokenizer:
        """Build a vocabulary with a list of merges; `pre` names the rule that cuts text into words.

        `white_space`: whether it parts words and is dropped before that rule.
        """
    @staticmethod
    def word_piece(
        tokens: _StringArray,
        kinds: NDArray[np.int32] | None,
        unknown: int | None,
        lowercase: bool,
        strip_accents: bool,
    ) -> Tokenizer:
        """Build a vocabulary that cuts words into the longest tokens; beginnings of words are written U+2581."""
    @staticmethod
    def unigram(
        tokens: _StringArray,
        kinds: NDArray[np.int32] | None,
        scores: NDArray[np.float32] | None,
        unknown: int | None,
        charsmap: bytes | None,
        space_prefix: bool,
        merges_spaces: bool,
    ) -> Tokenizer:
        """Build a vocabulary whose texts become the tokens of the highest sum of scores.

        `charsmap`: a table of replacements as SentencePiece writes it. `merges_spaces`: several spaces count as one,
        and those at the end of a text not at all.
        """
    @property
    def vocab_size(self) -> int: ...
    @property
    def adds_bos(self) -> bool:
        """Whether texts begin with BOS if the file does not say."""
    @property
    def endings(self) -> list[int]:
        """Tokens whose text says that generation ends with them."""
    def token(self, text: str) -> int | None: ...
    def piece(self, id: int) -> str: ...
    def is_control(self, id: int) -> bool: ...
    def encode(self, text: str | bytes, parse_special: bool, space_first: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], special: bool, stand_alone: bool) -> bytes: ...
    def stream(self, special: bool) -> StreamDecoder: ...

@final
class StreamDecoder:
    """Turns ids that come one by one into text, never half a character at a time."""

    def push(self, id: int) -> str: ...
    def flush(self) -> str: ...
