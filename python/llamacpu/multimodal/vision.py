"""`Vision`: from pictures to their parts of a prompt."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llamacpu.engine.duty import DutyCycle, working
from llamacpu.errors import ModelError, PictureError
from llamacpu.gguf.file import GGUFFile
from llamacpu.multimodal.cache import EmbeddingCache
from llamacpu.multimodal.matching import require_match
from llamacpu.multimodal.rows import DelayedEmbeddings, DelayedStates
from llamacpu.pictures import Picture, PictureLimits, PictureSettings, Plan, processor_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.engine.pictures import EncodeProgress, PictureEncoderLike
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["PicturePart", "Vision"]

PicturePart: TypeAlias = "str | DelayedEmbeddings | DelayedStates"
"""A part of a picture's part of a prompt: text with control tokens, or what stands for the picture itself."""
_CACHE_BYTES = 256 << 20
# How the templates of these models print a picture, before its tokens take that place; the longest come first.
_PLACEHOLDERS = {
    "gemma3": ("<start_of_image>",),
    "idefics3": ("<image>",),
    "internvl": ("<img><IMG_CONTEXT></img>", "<IMG_CONTEXT>", "<image>"),
    "llama4": ("<|image_start|><|image|><|image_end|>", "<|image|>"),
    "mllama": ("<|image|>",),
    "mlp": ("<image>",),
    "muse-glimmer": ("<|image_start|><|patch|><|image_end|>", "<|image|>", "<|patch|>"),
    "pixtral": ("[IMG][IMG_END]", "[IMG]"),
    "qwen2.5vl_merger": ("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>"),
    "qwen2vl_merger": ("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>"),
    "qwen3vl_merger": ("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>"),
    "resampler": ("(<image>./</image>)", "<image>./</image>"),
}


class Vision:
    """The vision encoder that belongs to a model, and a cache of the pictures that it has encoded.

    path        an mmproj file, or a Llama 3.2 Vision model in one file
    model       the model's `Config`, which the encoder must fit; None for an encoder without a model
    threads     for the encoder; None as for `Model`
    max_crops   most crops of a long picture that are shown beside the whole, for models that know them (Gemma 3)
    max_tokens  maximum number of tokens of a picture, for models that have a choice; None for that of the training
    limits      what pictures are accepted
    cache_bytes  size limit of the cache of embeddings
    duty         limit on the share of time in which the model and the encoder compute; None for no limit
    open_encoder  replaces the encoder of the file: (path, threads) -> encoder

    The header is read at once, the weights when the first picture is encoded. Raises GGUFError for a file that cannot
    be read, ModelError for one that is not the vision encoder of this model or of a kind that is not supported.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: Mapping[str, Any] | None = None,
        threads: int | None = None,
        max_tokens: int | None = None,
        max_crops: int = 0,
        limits: PictureLimits | None = None,
        cache_bytes: int = _CACHE_BYTES,
        duty: DutyCycle | None = None,
        open_encoder: Callable[[Path, int | None], PictureEncoderLike] | None = None,
    ) -> None:
        self.path: Path = Path(path)
        self.limits: PictureLimits = limits or PictureLimits()
        with GGUFFile(path) as file:
            self.settings: PictureSettings = PictureSettings.of(file.metadata, max_tokens, max_crops)
            self._processor = processor_for(self.settings)
            if model is not None:
                require_match(file, self.kind, model)
            self.weight_bytes: int = sum(
                tensor.nbytes
                for tensor in file.tensors
                if tensor.name.startswith(("v.", "mm.", "model.image", "resampler."))
            )
            self._newline: NDArray[np.float32] | None = _newline_of(file)
        self._threads, self._duty = threads, duty
        self._open = open_encoder or _encoder_of
        self._encoder: PictureEncoderLike | None = None
        self._cache = EmbeddingCache(cache_bytes)
        # Pictures that are encoded or waited for; one is encoded at a time, with all threads.
        self._seen: weakref.WeakValueDictionary[bytes, _Seen] = weakref.WeakValueDictionary()
        self._turn = threading.Lock()
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"<Vision: {self.kind}, {self.path.name}>"

    @property
    def kind(self) -> str:
        """The kind of model: clip.projector_type, or "mllama"."""
        return self.settings.projector

    @property
    def placeholders(self) -> tuple[str, ...]:
        """What templates print in place of a picture; longer ones come first."""
        return _PLACEHOLDERS[self.kind]

    @property
    def separator(self) -> str:
        """What stands between a picture and text after it where the template leaves that to the caller."""
        return "\n" if self.kind in ("internvl", "mlp", "resampler") else ""

    @property
    def encoder(self) -> PictureEncoderLike:
        """The encoder, opened at first use. Raises what opening a model raises."""
        with self._opening:
            if self._encoder is None:
                self._encoder = self._open(self.path, self._threads)
            return self._encoder

    def plan(self, size: tuple[int, int]) -> Plan:
        """What becomes of a picture of this height and width; see `Processor.plan`."""
        return self._processor.plan(size)

    def count(self, size: tuple[int, int], tokenizer: Tokenizer) -> int:
        """Tokens of a picture of this height and width in a prompt, including those around it."""
        plan = self.plan(size)
        return sum(
            piece if isinstance(piece, int) else len(tokenizer.encode(piece, add_special=False, parse_special=True))
            for piece in (_number(plan, tokenizer, 0), *plan.pieces)
        )

    def parts(self, picture: Picture, tokenizer: Tokenizer, number: int = 0) -> list[PicturePart]:
        """The picture's part of a prompt. Nothing is decoded or encoded yet; see `llamacpu.multimodal.rows.compute`.

        number: how many pictures come before it in the prompt, which some models are told

        Raises PictureError for a picture that the model cannot be shown, ModelError for a vocabulary without the
        tokens that it needs.
        """
        plan = self.plan(picture.size)
        seen = self._of(picture, plan)
        if plan.cross:
            token = tokenizer.token_to_id(str(plan.pieces[0]))
            if token is None:
                raise ModelError(f"the model has no token {plan.pieces[0]}, which stands for a picture")
            return [DelayedStates(seen, token)]
        text = _number(plan, tokenizer, number)
        parts: list[PicturePart] = [text] if text else []
        config = self.encoder.config
        side = config.patch_size * config.merge
        grid = (plan.tile[0] // side, plan.tile[1] // side) if config.grid else None
        first = 0
        for piece in plan.pieces:
            if isinstance(piece, str):
                parts.append(piece)
            else:
                parts.append(DelayedEmbeddings(seen, first, piece, config.bidirectional, grid))
                first += piece
        return parts

    def _of(self, picture: Picture, plan: Plan) -> _Seen:
        digest = self.digest(picture)
        found = self._seen.get(digest)
        if found is None:
            found = self._seen[digest] = _Seen(self, picture, plan, digest)
        return found

    def digest(self, picture: Picture) -> bytes:
        """32 bytes for a picture and everything that its embeddings depend on."""
        about = f"{self.encoder.fingerprint} {self.settings!r}".encode()
        return hashlib.blake2b(about + picture.digest, digest_size=32).digest()

    def rows_of(
        self, seen: _Seen, cancel: CancelToken | None, on_progress: EncodeProgress | None
    ) -> NDArray[np.float32]:
        """The rows of a picture: from the cache, or encoded now."""
        found = self._cache.get(seen.digest)
        if found is not None:
            return found
        with self._turn:
            found = self._cache.get(seen.digest)
            if found is None:
                found = self._encoded(seen, cancel, on_progress)
                self._cache.put(seen.digest, found)
        return found

    def _encoded(
        self, seen: _Seen, cancel: CancelToken | None, on_progress: EncodeProgress | None
    ) -> NDArray[np.float32]:
        plan = seen.plan
        prepared = self._processor.prepare(seen.picture)
        arrangement = plan.aspect_ratio_id or None
        with working(self._duty, cancel):
            if prepared.whole is None:
                rows = self.encoder.encode(
                    prepared.pixels, aspect_ratio_id=arrangement, cancel=cancel, on_progress=on_progress
                ).rows
            else:
                rows = self._both(prepared.whole, prepared.pixels, cancel, on_progress)
        wanted = plan.cross_rows or plan.encoded or plan.rows
        if len(rows) != wanted:
            raise PictureError(
                f"{self.path.name} made {len(rows)} embeddings of a picture for which {wanted} were expected"
            )
        return self._processor.arranged(rows, plan, seen.picture.size, self._newline)

    def _both(
        self,
        whole: NDArray[np.float32],
        tiles: NDArray[np.float32],
        cancel: CancelToken | None,
        on_progress: EncodeProgress | None,
    ) -> NDArray[np.float32]:
        """The rows of the whole picture, then those of its tiles, which have another size."""
        import numpy as np

        before = 0

        def first(done: int, every: int) -> None:
            nonlocal before
            before = every
            if on_progress is not None:
                # As if each tile took as long as the whole picture does.
                on_progress(done, every * (1 + len(tiles)))

        def second(done: int, every: int) -> None:
            if on_progress is not None:
                on_progress(before + done * before * len(tiles) // every, before * (1 + len(tiles)))

        rows = [
            self.encoder.encode(whole, cancel=cancel, on_progress=first).rows,
            self.encoder.encode(tiles, cancel=cancel, on_progress=second).rows,
        ]
        return np.concatenate(rows)

    def close(self) -> None:
        """Free the encoder's memory."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()


class _Seen:
    """A picture in a prompt. It keeps its rows for as long as the prompt exists, whatever the cache evicts."""

    def __init__(self, vision: Vision, picture: Picture, plan: Plan, digest: bytes) -> None:
        self.picture: Picture = picture
        self.plan: Plan = plan
        self.digest: bytes = digest
        self._vision = vision
        self._rows: NDArray[np.float32] | None = None

    def rows(self, cancel: CancelToken | None = None, on_progress: EncodeProgress | None = None) -> NDArray[np.float32]:
        if self._rows is None:
            self._rows = self._vision.rows_of(self, cancel, on_progress)
        return self._rows


def _number(plan: Plan, tokenizer: Tokenizer, number: int) -> str:
    """What tells the number of a picture, in vocabularies that have the tokens for it."""
    text = plan.number.format(number)
    return text if text and tokenizer.token_to_id(text[: text.index(">") + 1]) is not None else ""


def _newline_of(file: GGUFFile) -> NDArray[np.float32] | None:
    """What LLaVA 1.6 ends the rows of a picture with, if the file has it."""
    import numpy as np

    from llamacpu import kernels

    tensor = next((tensor for tensor in file.tensors if tensor.name == "model.image_newline"), None)
    if tensor is None:
        return None
    if len(tensor.shape) != 1 or tensor.type_name not in kernels.FORMATS:
        raise ModelError(
            f"{file.paths[0].name}: model.image_newline has the shape {tensor.shape} and the type {tensor.type_name}; "
            "expected one row of numbers"
        )
    data = np.frombuffer(file.tensor_bytes(tensor, 0, tensor.nbytes), np.uint8)
    return kernels.dequantize(data, tensor.type_name)


def _encoder_of(path: Path, threads: int | None) -> PictureEncoderLike:
    from llamacpu.engine.picture_encoder import PictureEncoder

    return PictureEncoder(path, threads=threads)
