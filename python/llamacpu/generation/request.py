"""The validated arguments of a generation, and the types of the functions that a caller may pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llamacpu.drafting import Draft
    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.generation.context_window import Overflow
    from llamacpu.generation.result import GeneratedToken
    from llamacpu.multimodal.rows import PictureProgress

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
LogitsProcessor = Callable[[Tokens, Logits], Logits]
"""(prompt and text so far as ids, logits[vocabulary]) -> logits; may change the array in place."""


@runtime_checkable
class Stoppable(Protocol):
    """A logits processor whose work may take long and can be stopped."""

    def stop_with(self, cancel: CancelToken) -> None:
        """Raise `Cancelled` to end the work once this token is cancelled."""


StoppingCriterion = Callable[[Tokens, Logits], bool]
"""(prompt and text so far as ids, logits[vocabulary] that the last id was chosen from) -> whether to end."""
PromptProgress = Callable[[int, int], None]
"""(prompt tokens done, prompt tokens in total): called before the first chunk and after every chunk."""


@dataclass(frozen=True)
class Request:
    """The validated arguments of `generate`."""

    prompt: Sequence[int]
    max_tokens: int | None
    overflow: Overflow
    keep: int
    ignore_end: bool
    show_special: bool
    log_probabilities: int | None
    logits_processors: tuple[LogitsProcessor, ...]
    stopping_criteria: tuple[StoppingCriterion, ...]
    on_token: Callable[[GeneratedToken], None] | None
    on_prompt: PromptProgress | None
    on_picture: PictureProgress | None
    dropped_tokens: int
    draft: Draft | None
