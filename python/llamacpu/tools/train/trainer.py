"""What the training needs of the native trainer: gradients of the adapters, and steps of the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken

__all__ = ["TrainerLike"]


class TrainerLike(Protocol):
    """A model with adapters that are trained; see `Trainer` in the native module, whose methods these are."""

    @property
    def names(self) -> list[tuple[str, int, int]]: ...
    def step(
        self,
        tokens: NDArray[np.int32],
        segments: NDArray[np.int32],
        targets: NDArray[np.int32],
        cancel: CancelToken | None = None,
    ) -> tuple[float, int]: ...
    def loss(
        self,
        tokens: NDArray[np.int32],
        segments: NDArray[np.int32],
        targets: NDArray[np.int32],
        cancel: CancelToken | None = None,
    ) -> tuple[float, int]: ...
    def optimizer_step(
        self,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float,
        clip_norm: float | None,
        divide_by: float,
    ) -> float: ...
    def clear_gradients(self) -> None: ...
    def parameters(self) -> NDArray[np.float32]: ...
    def set_parameters(self, values: NDArray[np.float32]) -> None: ...
    def state(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]: ...
    def restore(
        self,
        parameters: NDArray[np.float32],
        first_moments: NDArray[np.float32],
        second_moments: NDArray[np.float32],
        steps: int,
    ) -> None: ...
