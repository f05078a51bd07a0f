"""What the training needs of the native side: gradients of the adapters, and steps of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken

__all__ = ["TrainerLike"]


class TrainerLike(Protocol):
    """A model with adapters that are trained.

    The parameters are named after the tensors of the file: "blk.0.attn_q.weight.lora_a", float32[rank, columns], and
    "blk.0.attn_q.weight.lora_b", float32[rows, rank].
    """

    def step(
        self,
        tokens: NDArray[np.int32],
        segments: NDArray[np.int32],
        targets: NDArray[np.int32],
        cancel: CancelToken | None = None,
    ) -> tuple[float, int]:
        """Forward and backward pass of a row; the gradients are added to those since the last optimizer step.

        Returns the sum of the losses in nats and the number of counted tokens. See `Row` for the arguments.
        """

    def loss(
        self,
        tokens: NDArray[np.int32],
        segments: NDArray[np.int32],
        targets: NDArray[np.int32],
        cancel: CancelToken | None = None,
    ) -> tuple[float, int]:
        """The same sum and number, without gradients."""

    def optimizer_step(
        self,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float,
        clip_norm: float,
        divide_by: float,
    ) -> float:
        """A step of AdamW with the gradients divided by a number; clears them, and returns their norm before clipping."""

    def clear_gradients(self) -> None:
        """Forget the gradients since the last optimizer step."""

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the parameters by name."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the optimizer changes: parameters, moments and its count of steps."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a state to the same bits, without gradients. Raises ValueError for one of another shape."""
