"""The interface of the native module, with one section per file of rust/bindings/src."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__version__: str

# --- files.rs --------------------------------------------------------------------------------------------------------

@final
class File:
    """A model file, opened once for both its header and its weights, and readable at any position.

    Reading raises GGUFError past the end, after `close`, and if the file has been shortened or written to since it was
    opened; it raises MemoryError if there is not enough memory. The constructor raises OSError.
    """

    def __new__(cls, path: str) -> File: ...
    @property
    def size(self) -> int:
        """The length of the file in bytes when it was opened."""
    @property
    def closed(self) -> bool: ...
    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, starting at `offset`."""
    def keep(self, length: int) -> None:
        """Read the first `length` bytes into memory, so that later changes to the file do not affect them."""
    def index_strings(self, start: int, count: int) -> tuple[NDArray[np.uint64], int]:
        """Index a string array in this file, as the function `index_strings` does."""
    def close(self) -> None:
        """Close the file; a model made from it keeps its own reference."""

# --- gguf.rs ---------------------------------------------------------------------------------------------------------

class _Buffer(Protocol):
    """Anything with the buffer protocol: bytes, mmap, memoryview, a uint8 array."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

def index_strings(buffer: _Buffer, start: int, count: int) -> tuple[NDArray[np.uint64], int]:
    """Find the `count` strings of a GGUF string array whose first length prefix starts at byte `start` of `buffer`.

    Returns `(offsets, end)`. `offsets` has `count + 1` entries: the position of each string's length prefix, then
    `end`, the position of the first byte after the array. String `i` is `buffer[offsets[i] + 8 : offsets[i + 1]]`.
    Raises GGUFError if the strings do not fit into the buffer; allocates no more than the buffer justifies.
    """

# --- grammar.rs ------------------------------------------------------------------------------------------------------

@final
class Grammar:
    """A grammar in GBNF whose start symbol is the rule `root`. Raises GrammarError."""

    def __new__(cls, text: str, root: str) -> Grammar: ...
    @property
    def references(self) -> list[tuple[int | None, str | None]]:
        """The tokens that the grammar names, each by its id or its text."""

@final
class TokenTrie:
    """The tokens of a vocabulary as a trie over their bytes.

    texts: the bytes of each token, empty if it has none; named: the ids of tokens without text that can be generated,
    such as control tokens; ends: the ids of tokens that end a text. Raises ValueError for ids outside the vocabulary.
    """

    def __new__(cls, texts: Sequence[bytes], named: Sequence[int], ends: Sequence[int]) -> TokenTrie: ...

@final
class GrammarMatcher:
    """Matches one text against a grammar as it is generated. Raises GrammarError if the text does not fit the grammar
    or can be parsed in too many ways, and Cancelled once `cancel` has been cancelled.

    references: the ids of the tokens that the grammar names, in the order of `Grammar.references`.
    """

    def __new__(
        cls, grammar: Grammar, trie: TokenTrie, references: Sequence[int], cancel: CancelToken | None = None
    ) -> GrammarMatcher: ...
    def restart(self, cancel: CancelToken | None = None) -> None:
        """Begin another text under the same grammar, reusing what was computed for the last one."""
    def consume(self, id: int, cancel: CancelToken | None = None) -> None:
        """Extend the text by a token. After an error the state is unchanged."""
    def feed(self, text: bytes, cancel: CancelToken | None = None) -> bool:
        """Extend the text by these bytes; return False, with the state unchanged, if the grammar forbids it."""
    def mask(self, logits: NDArray[np.float32], cancel: CancelToken | None = None) -> None:
        """Set the logits of tokens that cannot come next to minus infinity, in place. float32[any], contiguous."""
    def allowed(self, cancel: CancelToken | None = None) -> NDArray[np.int64]:
        """The ids of the tokens that may come next, ascending. int64[tokens]"""
    @property
    def accepting(self) -> bool:
        """Whether the text so far is a complete text of the grammar."""
    def stopped(self, cancel: CancelToken | None = None) -> bool:
        """Whether the text is complete and only a token that ends it may come next."""

# --- interrupt.rs ----------------------------------------------------------------------------------------------------

@final
class CancelToken:
    """A flag that stops a running step, set from any thread or by a timeout (in seconds from now).

    A token made with a parent is cancelled along with it; cancelling the token does not affect the parent.
    """

    def __new__(cls, timeout: float | None = None, parent: CancelToken | None = None) -> CancelToken: ...
    def cancel(self) -> None:
        """Stop every step that was given this token, or will be."""
    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called or the timeout has expired."""
    @property
    def reason(self) -> Literal["cancelled", "timeout"] | None:
        """What cancelled it, whichever was seen first; None while it is not cancelled."""

# --- kernels.rs ------------------------------------------------------------------------------------------------------

class kernels:  # noqa: N801 (a submodule; a class here, because stubs of submodules are files of their own)
    """The kernels on NumPy arrays; `llamacpu.kernels` adds defaults and documents them."""

    @staticmethod
    def formats() -> list[tuple[str, int, int, int]]: ...
    @staticmethod
    def convert(
        data: NDArray[np.uint8],
        source: str,
        format: str,
        importance: NDArray[np.float32] | None,
        threads: int,
        isa: str | None,
    ) -> NDArray[np.uint8]: ...
    @staticmethod
    def convert_stored(
        file: File,
        start: int,
        rows: int,
        columns: int,
        source: str,
        format: str,
        importance: NDArray[np.float32] | None,
        threads: int,
    ) -> NDArray[np.uint8]: ...
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
        slopes: NDArray[np.float32] | None,
        kv_type: str,
        threads: int,
        isa: str | None,
    ) -> NDArray[np.float32]: ...

# --- model.rs --------------------------------------------------------------------------------------------------------

PAGE_LAYOUT: int
"""Identifying number of the layout of keys and values in a page."""
PAGE_TOKENS: int
"""Tokens in a page of keys and values."""

@final
class Adapter:
    """The low-rank changes of an adapter file, in memory; created by `Model.adapter`."""

    @property
    def nbytes(self) -> int: ...

@final
class Steering:
    """Control vectors, added to the residual stream after layers; created by `Model.steering`."""

_Picture: TypeAlias = tuple[int, NDArray[np.float32], bool, int | None, tuple[int, int, int] | None]
"""Index of the first of some ids of 2^31 and above, one for each row; rows, float32[rows, width], that take the place
of embeddings, with what is added behind the first layers after each (`picture_layers` times the embedding length);
whether they see each other in both directions; None; for models that tell rows and columns of a picture apart, number
of the first row in its picture, height and width of the picture in rows. If the fourth entry is not None, it is the id
of a placeholder: there is one id, and the rows are states of cross-attention, as many as there are."""
_SavedPicture: TypeAlias = tuple[int, int, bool, int | None, tuple[int, int, int] | None, int]
"""Of a picture: index of its first id, number of ids, whether its rows see each other, id of the placeholder of states
of cross-attention, number of its first row with height and width of the picture in rows, number of states."""
_Item: TypeAlias = tuple[Session, Sequence[int]] | tuple[Session, Sequence[int], Sequence[_Picture]]

@final
class Model:
    """Memory-mapped or copied weights with checked shapes, and the threads that run them.

    `tensors` is the tensor table: name, type number, shape (fastest-varying first), index into `files`, offset, bytes.
    `load` is "map" or "copy". Raises GGUFError for bytes outside the files, ModelError for a configuration or tensors
    that do not form a model, and MemoryError if there is not enough memory. `step`, `step_hidden` and `prepare` raise
    ModelError if a mapped file has been shortened or written to.
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
        """Keep weights in at most `bytes` of memory, first those used for every token, then experts as they are used.

        Must be called before any step. The remaining weights are read from the file for every product; returns their
        size in bytes.
        """
    def session(self, context: int | None = None, kv_type: str = "f16") -> Session:
        """Start a conversation of at most `context` tokens; keys and values are stored as `kv_type`."""
    def adapter(
        self,
        files: Sequence[File],
        tensors: Sequence[tuple[str, int, tuple[int, ...], int, int, int]],
        pairs: Sequence[tuple[str, str, str, float]],
    ) -> Adapter:
        """Read an adapter into memory. `tensors` as for the model.

        A pair names the tensor of the model that is changed, the tensor that is multiplied with its input, the one that
        is multiplied with the result, and a factor.
        """
    def steering(self, vectors: Sequence[tuple[int, NDArray[np.float32]]]) -> Steering:
        """Make control vectors: pairs of a layer, counted from 0, and float32[width]. Those of a layer are added."""
    def step(
        self, items: Sequence[_Item], logits: str = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32]:
        """Extend the sessions by the tokens; return the requested logits, float32[rows, vocabulary], items in order.

        Where ids stand for pictures, an item has their inputs as well; see `_Picture`.
        """
    def step_hidden(
        self,
        items: Sequence[_Item],
        places: Sequence[int],
        logits: str = "none",
        cancel: CancelToken | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run `step` and also return the hidden states of every token: float32[places, tokens, width].

        A place below the number of layers is the residual stream after that layer; a place equal to the number of
        layers is the stream after the final norm.
        """
    def step_squares(
        self, items: Sequence[_Item], logits: str = "none", cancel: CancelToken | None = None
    ) -> tuple[NDArray[np.float32], list[tuple[int, int, int, NDArray[np.float64]]]]:
        """Run `step`, every token through all layers, and also return the sums of squares of the inputs of matrices.

        For each matrix: index of its file, its offset there, the number of inputs, and for every element the sum of its
        squares over the inputs, float64[columns], added in the order of the tokens.
        """
    def pictures(self, session: Session, first: int) -> list[_Picture]:
        """Return what the ids of pictures from position `first` on stand for, in the form that `step` takes.

        States of cross-attention are missing, since the session keeps only their keys and values.
        """
    def complete(self, session: Session) -> None:
        """Compute the keys and values that the session lacks because it was rewound too far."""
    def kv_bytes(self, kv_type: str, tokens: int) -> int:
        """Bytes of keys and values of a session of `tokens` tokens; less than as many pages if layers have windows."""
    def classify(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the classifier's scores for hidden states: float32[rows, width] -> float32[rows, classes]."""
    def page_bytes(self, kv_type: str) -> int:
        """Bytes of a page of keys and values."""
    def cross_page_bytes(self, kv_type: str) -> int:
        """Bytes of a page of the keys and values that cross-attention sees; 0 for models without."""
    def restore(
        self,
        context: int,
        kv_type: str,
        tokens: Sequence[int],
        pages: Iterable[bytes],
        pictures: Sequence[_SavedPicture] = ...,
    ) -> Session:
        """Start a conversation that already has its first tokens; `pages` are those that `Session.page` returned, and
        `pictures` is what `Session.saved_pictures` did.
        """
    def part_bytes(self) -> list[int]:
        """Bytes in the file of each part that `prepare` accepts: the layers, then the output matrix."""
    def prepare(self, part: int, cancel: CancelToken | None = None) -> None:
        """Bring one part of the weights into the form that products use."""
    def close(self) -> None:
        """Release the weights."""
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
        """Whether all files are memory-mapped and none is copied."""
    @property
    def weight_bytes(self) -> int: ...

# --- session.rs ------------------------------------------------------------------------------------------------------

def step_rows(
    model: Model,
    session: Session,
    rows: NDArray[np.float32],
    purpose: str,
    wanted: int,
    cancel: CancelToken | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Continue a session of a drafter by rows: float32[rows, width].

    purpose: "causal": each row sees itself and those before it; "together": all see each other; "keys": the layers only
    compute keys and values from them. Returns, for the last `wanted` rows, the logits, float32[wanted, vocabulary] (no
    columns without an output matrix), and the states before and after the final norm, float32[2, wanted, width].
    """

def step_lent(
    model: Model, lender: Session, pair: NDArray[np.float32], cancel: CancelToken | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run a drafter whose layers see the keys and values of a session of the model it drafts for.

    pair: float32[1, 2 * state], the embedding of the token behind those of the session and the model's state before it.
    Returns the logits of the next token, float32[vocabulary], and what stands for the model's state in the next pair,
    float32[state]. The session is only read. Raises ValueError for a session that lacks what the pair would see.
    """

def can_borrow(model: Model, lender: Session) -> bool:
    """Return whether a session holds all that a pair of this drafter would see, which may fail after a long rewind."""

def fuse_states(model: Model, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make a drafter's rows of states of the model it drafts for: float32[rows, states] -> float32[rows, width]."""

def token_embeddings(model: Model, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return the embeddings of tokens as the file has them, without scale or norm: float32[tokens, width]."""

def output_products(model: Model, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply states, float32[rows, width], by the output matrix: float32[rows, vocabulary], not scaled or capped."""

@final
class Session:
    """One conversation: its tokens and their keys and values. `Model.step` continues it."""

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
        """Treat the tokens after the first `tokens` as a second text (BERT's second type); call it before a step."""
    def page(self, index: int) -> bytes:
        """The keys and values of the page of tokens that starts at `index * PAGE_TOKENS`; then the states of recurrent
        layers, then pages of what cross-attention sees.
        """
    def saved_pictures(self) -> list[_SavedPicture]:
        """What is known of the pictures among the tokens, for `Model.restore`."""
    def set_adapters(self, low_rank: Sequence[tuple[Adapter, float, int]], steering: Steering | None = None) -> int:
        """Set the adapters and control vectors: adapters with scales and the position from which each applies.

        Forgets the tokens that were computed with others; returns how many are left.
        """
    def declare_adapters(
        self, low_rank: Sequence[tuple[Adapter, float, int]], steering: Steering | None = None
    ) -> None:
        """Declare that the tokens of a restored session were computed with these."""
    def fork(self) -> Session:
        """Return a second conversation with the same past, sharing its memory."""
    def truncate(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens."""
    def resume_point(self, tokens: int) -> int:
        """The largest position, up to `tokens`, to which the session can be truncated without recomputing tokens."""

# --- pictures.rs -----------------------------------------------------------------------------------------------------

@final
class PictureEncoder:
    """Memory-mapped weights of a vision encoder with checked shapes, and the threads that run them.

    Arguments and errors as for `Model`; `config` is a `llamacpu.vision.config.VisionConfig`.
    """

    def __new__(
        cls,
        files: Sequence[File],
        config: Mapping[str, object],
        tensors: Sequence[tuple[str, int, tuple[int, ...], int, int, int]],
        threads: int | None = None,
    ) -> PictureEncoder: ...
    def begin(self, pixels: NDArray[np.float32], arrangement: int) -> PictureEncoding:
        """Begin to encode a picture: float32[tiles, height, width, 3], normalized.

        `arrangement` is the number of the arrangement of joint tiles, or 0. Raises ValueError for pixels that do not
        fit.
        """
    @property
    def threads(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    def close(self) -> None:
        """Release the weights."""
    @property
    def closed(self) -> bool: ...

@final
class PictureEncoding:
    """A picture that is being encoded; an error ends it, as does `rows`."""

    def advance(self, cancel: CancelToken | None = None) -> tuple[int, int]:
        """Run the next stage, a layer; return the number of completed stages and of all stages."""
    @property
    def stages(self) -> tuple[int, int]:
        """The number of completed stages, and of all stages."""
    def rows(self) -> NDArray[np.float32]:
        """The result, float32[rows, width], once all stages are done. Raises RuntimeError before."""

# --- cpu.rs ----------------------------------------------------------------------------------------------------------

def cpu_facts() -> dict[str, Any]:
    """Return what this processor supports and what is chosen for it.

    Keys: architecture, available (instruction sets, slowest first), chosen, chosen_features (the features that make up
    that set), processor_features (all for which kernels exist), threads, threads_reason.
    """

def memory_bandwidth(bytes: int = ..., threads: int | None = None) -> float:
    """Measure the read bandwidth over a buffer of `bytes` bytes, in GB/s (10^9 bytes per second)."""

def product_peak(threads: int | None = None) -> float:
    """Measure the peak rate of 8-bit dot products with the chosen instruction set, in 10^9 multiplications a second."""

# --- sampling.rs -----------------------------------------------------------------------------------------------------
# Logits are contiguous, one-dimensional float32 arrays; NaN counts as -inf.

def argmax(logits: NDArray[np.float32]) -> int:
    """Return the id of the largest logit, the lowest id among equals.

    Raises ValueError if all are NaN or there are none.
    """

def top_k(logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids and values of the `k` largest logits (all, if fewer), descending; lower ids first among equals."""

def distribution(logits: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return `(log_sum, entropy)` of the softmax: a logit minus log_sum is its log-probability; entropy is in nats.

    The relative error of probabilities is about 1e-6. None if the softmax is undefined: no logit is finite, or one is
    +inf.
    """

def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the log-probability of every token; None if the softmax is undefined."""

def exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute e to the power of each value, bit-identical on every processor; 0 below -707, infinity above 709."""

def log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the natural logarithm of each value, bit-identical on every processor; -inf for 0, NaN below."""

# --- evaluation.rs ---------------------------------------------------------------------------------------------------
# Arrays are contiguous, one row per token. ValueError for shapes that do not match, ids outside the vocabulary, and
# rows without a softmax.

def predict(
    logits: NDArray[np.float32], tokens: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return log-probabilities of the tokens, entropies in nats and the most probable tokens, one per row."""

def compare(
    logits: NDArray[np.float32],
    tokens: NDArray[np.int64],
    original: NDArray[np.float32] | None = None,
    records: NDArray[np.uint16] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Compare predictions with those of an original model, given by its logits or by records of a file.

    Returns, one per row: log-probabilities of the tokens, those of the original model, Kullback-Leibler divergences in
    nats, the most probable tokens, those of the original model.
    """

def encode_log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return records of log-probabilities, uint16[rows, words], as in files of llama-perplexity."""

# --- tokenizer.rs ----------------------------------------------------------------------------------------------------

_StringArray = tuple[_Buffer, int]  # the bytes of the array as stored in a file, number of strings

@final
class Tokenizer:
    """Converts text to token ids and back. BOS and EOS are added in Python."""

    @staticmethod
    def sentence_piece(
        tokens: _StringArray,
        kinds: NDArray[np.int32] | None,
        scores: NDArray[np.float32] | None,
        unknown: int | None,
        space_prefix: bool,
        strips_right_except: list[str] | None,
    ) -> Tokenizer:
        """Build a vocabulary whose merges are determined by the scores of its tokens.

        `strips_right_except`: special tokens with other names swallow the white space after them.
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
        """Build a vocabulary with a list of merges; `pre` names the rule that splits text into words.

        `white_space`: whether it separates words and is dropped before that rule is applied.
        """
    @staticmethod
    def word_piece(
        tokens: _StringArray,
        kinds: NDArray[np.int32] | None,
        unknown: int | None,
        lowercase: bool,
        strip_accents: bool,
    ) -> Tokenizer:
        """Build a vocabulary that splits words into the longest tokens; U+2581 marks the beginning of a word."""
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
        """Build a vocabulary that splits a text into the tokens with the highest total score.

        `charsmap`: a table of replacements in SentencePiece's format. `merges_spaces`: several spaces count as one, and
        those at the end of a text are ignored.
        """
    @property
    def vocab_size(self) -> int: ...
    @property
    def adds_bos(self) -> bool:
        """Whether texts begin with BOS if the file does not specify it."""
    @property
    def endings(self) -> list[int]:
        """Tokens whose text marks them as the end of generation."""
    def token(self, text: str) -> int | None: ...
    def piece(self, id: int) -> str: ...
    def is_control(self, id: int) -> bool: ...
    def encode(self, text: str | bytes, parse_special: bool, space_first: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], special: bool, stand_alone: bool) -> bytes: ...
    def stream(self, special: bool) -> StreamDecoder: ...

@final
class StreamDecoder:
    """Turns a stream of ids into text, never returning part of a character."""

    def push(self, id: int) -> str: ...
    def flush(self) -> str: ...

def trainable(model: Model) -> list[tuple[str, int, int]]:
    """List the matrices that can have an adapter: name without ".weight", rows (outputs), columns (inputs).

    After those of the layers come "token_embd", whose columns are tokens, unless a norm follows the embeddings, and
    "output", even if the file has one matrix for both.

    Raises ModelError if the model has a part that cannot be trained, naming it.
    """

@final
class TrainerShape:
    """What the memory of a trainer follows from.

    `targets` are names from `trainable`, `tokens` is the most that a step may have. The last `kept_layers` layers keep
    their activations for the backward pass; the others compute them again, to the same bits, in more time. `exact`: see
    `Trainer`.
    """

    def __new__(
        cls, targets: Sequence[str], rank: int, tokens: int, kept_layers: int = 0, exact: bool = False
    ) -> TrainerShape: ...

def training_nbytes(model: Model, shape: TrainerShape) -> int:
    """The most bytes that a Trainer of this shape allocates: without weights (see `training_weights_nbytes`)."""

def training_weights_nbytes(model: Model, of_file: int, exact: bool) -> int:
    """The most bytes of weights that are in memory during training, of a model whose file has `of_file` bytes of them.

    Unless products are `exact`, weights are packed, and a mapped file gives its own back.
    """

@final
class Trainer:
    """Trains LoRA adapters (E. Hu et al., arXiv:2106.09685) on a model whose own weights stay as they are.

    The output of each target becomes `W x + (alpha / rank) B (A x)`, with
    A (float32[rank, columns], uniform within ±1/sqrt(columns), for embeddings ±1, drawn from `seed`) and B
    (float32[rows, rank], zeros).
    Products with quantized weights round activations to 8 bits in the forward pass, just as when the model runs, and
    gradients and weights to 8 bits in the backward pass; `exact` computes them in 32-bit floats, as everything else, in
    1.2 (the demo model) to 2.1 times the time (Llama 3.2 1B in Q4_K_M, 512 tokens, AVX-512). The results have the same
    bits for any number of threads and on every instruction set.
    Parameters are named `TARGET.lora_a` and `TARGET.lora_b`; flat arrays hold them in the order of `names`. All
    memory is allocated here.

    Raises ValueError for a target that the model does not have or a rank or size out of range, ModelError for a model
    that cannot be trained, MemoryError. Calls while a step runs raise RuntimeError.
    """

    def __new__(
        cls,
        model: Model,
        shape: TrainerShape,
        alpha: float,
        seed: int = 0,
    ) -> Trainer: ...
    def step(
        self,
        tokens: NDArray[np.int32],
        segments: NDArray[np.int32],
        targets: NDArray[np.int32],
        cancel: CancelToken | None = None,
    ) -> tuple[float, int]:
        """Run the tokens forward and backward; add the gradients of the sum of losses to those of earlier steps.

        `segments` are the starts of the packed sequences, and at the end the number of tokens: ascending from 0,
        int32[sequences + 1]. Positions start at 0 in each, and attention does not cross their borders. `targets[i]` is
        the token that is to follow `tokens[i]`, or -1 where nothing is learned. Returns the sum of the losses (natural
        logarithm) and the number of targets.

        Raises ValueError for arrays that do not fit together; Cancelled. After any exception the gradients are zero.
        """
    def loss(
        self,
        tokens: NDArray[np.int32],
        segments: NDArray[np.int32],
        targets: NDArray[np.int32],
        cancel: CancelToken | None = None,
    ) -> tuple[float, int]:
        """Compute what `step` returns, forward only; gradients stay as they are."""
    def optimizer_step(
        self,
        learning_rate: float,
        betas: tuple[float, float] = ...,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        divide_by: float = 1.0,
    ) -> float:
        """Update the parameters by AdamW (I. Loshchilov and F. Hutter, arXiv:1711.05101) and clear the gradients.

        `betas` are 0.9 and 0.999 unless given. Gradients are divided by `divide_by` (the number of targets, for the
        mean loss), then scaled down to the norm `clip_norm` if theirs is larger. Returns their norm before that
        scaling. If it is not finite, nothing changes except that the gradients are cleared.
        """
    def clear_gradients(self) -> None: ...
    @property
    def names(self) -> list[tuple[str, int, int]]:
        """The parameters in order: name, rows, columns."""
    def gradients(self) -> NDArray[np.float32]:
        """The accumulated gradients, float32[count]."""
    def parameters(self) -> NDArray[np.float32]:
        """The parameters, float32[count]."""
    def set_parameters(self, values: NDArray[np.float32]) -> None:
        """Set all parameters, float32[count]; moments and gradients stay as they are."""
    def state(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]:
        """Return parameters, first moments, second moments, and the number of optimizer steps."""
    def restore(
        self,
        parameters: NDArray[np.float32],
        first_moments: NDArray[np.float32],
        second_moments: NDArray[np.float32],
        steps: int,
    ) -> None:
        """Continue from what `state` returned, to the same bits; the gradients are cleared."""
    @property
    def nbytes(self) -> int:
        """Bytes that the trainer holds, as `training_nbytes` gives them."""
