"""Seed-OSS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.tools.convert.families.base import FOUR_NORMS, Family

__all__ = ["SeedOss"]


class SeedOss(Family):
    """Seed-OSS."""

    architecture = "seed_oss"
    names: ClassVar[Mapping[str, str]] = FOUR_NORMS
