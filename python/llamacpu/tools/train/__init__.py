"""Trains LoRA adapters on a frozen, quantized model (QLoRA, Dettmers et al. 2023), on the processor."""

from llamacpu.tools.train.loop import TrainingProgress
from llamacpu.tools.train.plan import TrainingPlan
from llamacpu.tools.train.result import TrainingResult
from llamacpu.tools.train.run import train
from llamacpu.tools.train.settings import TrainingSettings

__all__ = ["TrainingPlan", "TrainingProgress", "TrainingResult", "TrainingSettings", "train"]
