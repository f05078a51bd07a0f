"""A drafter: a small network that reads the hidden states of a model, and shares its embeddings and output matrix."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

from llamacpu import _native
from llamacpu.arguments import path as check_path
from llamacpu.engine.duty import duty_of, working
from llamacpu.errors import ModelError
from llamacpu.families.drafters import AS_A_LAYER, Plan, drafter, fitted, predictor
from llamacpu.gguf.file import GGUFFile, overridden

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken, KVType
    from llamacpu.engine.model import EngineModel

__all__ = ["DraftSession", "EngineDrafter"]

DraftSession: TypeAlias = _native.Session
"""What a drafter has read: a session whose positions are rows."""
Purpose = Literal["causal", "together", "keys"]


class EngineDrafter:
    """The weights of a drafter, opened for one model.

    path  the drafter's file; "self" for the layers for multi-token prediction in the file of the model

    Raises GGUFError for a file that cannot be read, ModelError for one that is no drafter, or one of another model.
    """

    def __init__(self, path: str | os.PathLike[str], model: EngineModel, threads: int | None = None) -> None:
        check_path("path", path)
        self._model = model
        self._file = GGUFFile(model.path if path == "self" else path)
        try:
            if path == "self":
                self._file.metadata = overridden(model.metadata, AS_A_LAYER)
                self.plan: Plan = predictor(self._file, model.config)
            else:
                self.plan = drafter(self._file)
            self._check()
            self.target_tokens: NDArray[np.int64] | None = self._map()
            rows = [
                (name, t.type, t.shape, t.file, t.offset, t.nbytes)
                for t in self._file.tensors
                if (name := self._name(t.name)) is not None
            ]
            threads = model.threads if threads is None else threads
            load = "map" if model.mapped else "copy"
            self._native = _native.Model(self._file.native_files, dict(self.plan.config), rows, threads, load)
        except BaseException:
            self._file.close()
            raise

    @property
    def places(self) -> tuple[int, ...]:
        """The states of the model that it reads, each once, as `Model.step_hidden` counts them."""
        return tuple(dict.fromkeys(self.plan.places))

    @property
    def path(self) -> os.PathLike[str]:
        """The file."""
        return self._file.path

    def serves(self, fingerprint: str) -> bool:
        """Whether this is the fingerprint of the model that it was opened for."""
        return fingerprint == self._model.fingerprint

    def session(self, context: int, kv_type: KVType) -> _native.Session:
        """An empty session for at most `context` rows."""
        return self._native.session(context, kv_type)

    def fuse(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """What it makes of the model's states: float32[places, tokens, width] -> float32[tokens, own width]."""
        import numpy

        if len(self.plan.places) > len(states):
            states = states[[self.places.index(place) for place in self.plan.places]]
        places, tokens, width = states.shape
        joined = numpy.ascontiguousarray(states.transpose(1, 0, 2)).reshape(tokens, places * width)
        if not self.plan.config.states_width:
            return joined
        with working(duty_of(self._model)):
            return _native.fuse_states(self._native, joined)

    def embed(self, tokens: list[int]) -> NDArray[np.float32]:
        """The embeddings of tokens that the drafter takes: float32[tokens, own width]."""
        rows = _native.token_embeddings(self._native if self.plan.own_embedding else self._model._native, tokens)
        if self.plan.embedding_scale != 1.0:
            rows *= rows.dtype.type(self.plan.embedding_scale)
        return rows

    def step(
        self,
        session: _native.Session,
        rows: NDArray[np.float32],
        purpose: Purpose,
        wanted: int,
        cancel: CancelToken | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Continue a session by rows; see `_native.step_rows` for arguments and result."""
        with working(duty_of(self._model), cancel):
            return _native.step_rows(self._native, session, rows, purpose, wanted, cancel)

    def can_borrow(self, lender: _native.Session) -> bool:
        """Whether a session of the model holds the keys and values that the next pair would see."""
        return _native.can_borrow(self._native, lender)

    def continued(
        self, lender: _native.Session, token: int, state: NDArray[np.float32], cancel: CancelToken | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """What follows a token behind those of a session of the model, whose state before it is float32[width].

        The logits of the next token, float32[vocabulary], and what stands for the state before that one. None if there
        are numbers that are not finite.
        """
        import numpy

        pair = numpy.concatenate([self.embed([token]), state[None]], axis=1)
        if not numpy.isfinite(pair).all():
            return None
        with working(duty_of(self._model), cancel):
            return _native.step_lent(self._native, lender, pair, cancel)

    def logits(self, own: NDArray[np.float32], states: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of rows: their own, or those by the model's output matrix for states after the final norm.

        Scale and cap are the drafter's own, not those of the model's logits. float32[rows, vocabulary], in the order of
        the drafter's vocabulary; see `token`.
        """
        import numpy

        if self.plan.own_output:
            return own
        with working(duty_of(self._model)):
            logits = _native.output_products(self._model._native, numpy.ascontiguousarray(states))
        scale, cap = self.plan.config.logit_scale, self.plan.config.logit_soft_cap
        if scale != 1.0:
            logits *= numpy.float32(scale)
        if cap:
            logits = numpy.float32(cap) * numpy.tanh(logits / numpy.float32(cap))
        return logits

    def token(self, row: int) -> int:
        """The model's token for a row of the drafter's logits."""
        return row if self.target_tokens is None else int(self.target_tokens[row])

    def close(self) -> None:
        """Release the weights."""
        self._native.close()
        self._file.close()

    def __repr__(self) -> str:
        return f"<{self.plan.kind} drafter {self._file.path.name!r}>"

    def _name(self, name: str) -> str | None:
        if name == self.plan.map:
            return None
        return name if self.plan.names is None else self.plan.names.get(name)

    def _check(self) -> None:
        """Raise ModelError unless the model is one that the drafter fits."""
        plan, config = self.plan, self._model.config
        start = f"{self._file.path.name}: the drafter does not fit {self._model.file.path.name}:"
        if plan.width != config.embedding_length:
            raise ModelError(
                f"{start} it reads states of {plan.width} numbers, and those of the model have "
                f"{config.embedding_length}; expected the drafter of this model"
            )
        if plan.vocabulary != config.vocab_size:
            raise ModelError(
                f"{start} it has {plan.vocabulary} tokens and the model {config.vocab_size}; expected the same "
                "vocabulary"
            )
        states = config.layers + (plan.next_state == "norm")
        missing = [place for place in plan.places if place >= states]
        if missing:
            raise ModelError(
                f"{start} it reads the states after layer {max(missing)}, and the model has {config.layers} layers, "
                "counted from 0; expected the drafter of this model"
            )
        if not config.output:
            raise ModelError(f"{start} the model makes vectors of texts and does not write")
        try:
            self.plan = fitted(plan, config)
        except ModelError as error:
            raise ModelError(f"{start} {error}; expected the drafter of this model") from None
        key = "tokenizer.ggml.tokens"
        own = self._file.metadata.get(key)
        if own is None or self._file.path == self._model.file.path:
            return
        ours, theirs = self._file.metadata.strings(key), self._model.metadata.strings(key)
        if ours.data() == theirs.data():
            return
        for token, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                raise ModelError(
                    f"{start} token {token} is {one!r} to the drafter and {other!r} to the model; expected the same "
                    "vocabulary"
                )

    def _map(self) -> NDArray[np.int64] | None:
        """The model's tokens of the rows of the drafter's output matrix."""
        import numpy

        if self.plan.map is None:
            return None
        tensor = next(tensor for tensor in self._file.tensors if tensor.name == self.plan.map)
        if tensor.type_name not in ("I64", "I32") or tensor.nbytes > 8 * self.plan.vocabulary:
            raise ModelError(
                f"{self._file.path.name}: {tensor.name} is stored as {tensor.type_name} in {tensor.nbytes} bytes; "
                f"expected integers, at most {self.plan.vocabulary}"
            )
        data = self._file.tensor_bytes(tensor, 0, tensor.nbytes)
        tokens = numpy.frombuffer(data, dtype="<i8" if tensor.type_name == "I64" else "<i4").astype(numpy.int64)
        if ((tokens < 0) | (tokens >= self.plan.vocabulary)).any():
            raise ModelError(
                f"{self._file.path.name}: {tensor.name} names tokens outside the vocabulary; expected 0 to "
                f"{self.plan.vocabulary - 1}"
            )
        return tokens
