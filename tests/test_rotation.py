"""Angles of the rotation against decimal arithmetic of 60 digits: any size of a head, positions up to 2^30."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from llamacpu import kernels

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")
POSITIONS = [0, 1, 2, 355, 4095, 131_071, 1_000_003, 2**20, 2**27 + 1, 2**30 - 1]


def sine(angle: Decimal) -> Decimal:
    """By the series, from -pi to pi."""
    angle -= 2 * PI * (angle / (2 * PI)).to_integral_value()
    total, term, k = Decimal(0), angle, 1
    while abs(term) > Decimal(10) ** -40:
        total += term
        term *= -angle * angle / ((k + 1) * (k + 2))
        k += 2
    return total


@pytest.mark.parametrize("base", [1e4, 5e5, 8e6])
@pytest.mark.parametrize("size", [2, 6, 64, 80, 96, 100, 128])
def test_angles_are_exact(size: int, base: float) -> None:
    heads = np.zeros((len(POSITIONS), 1, size), dtype=np.float32)
    heads[:, :, ::2] = 1  # each pair becomes cosine and sine
    turned = kernels.rope(heads, POSITIONS, base=base)[:, 0].reshape(len(POSITIONS), -1, 2)
    with localcontext(prec=60):
        for position, row in zip(POSITIONS, turned, strict=True):
            for pair, (cosine, sine_) in enumerate(row):
                angle = position * Decimal(base) ** (Decimal(-2 * pair) / size)
                for found, exact in ((cosine, sine(angle + PI / 2)), (sine_, sine(angle))):
                    # Rounding to float32, and the angle's own error.
                    limit = Decimal(float(np.spacing(np.float32(abs(exact))))) / 2 + angle * Decimal(2) ** -51
                    assert abs(Decimal(float(found)) - exact) <= limit, (position, pair)


@pytest.mark.parametrize(
    ("settings", "position", "message"),
    [
        ({}, 2**30, "position 1073741824; expected positions below 1073741824"),
        ({"base": 1e-40}, 1, "radians a token; expected 1048576 at most"),
        ({"base": 5e-324}, 1, "base 5e-324; expected a positive number"),
        ({"factors": [1e-30] * 32}, 1, "radians a token"),
    ],
)
def test_angles_beyond_the_range_are_refused(settings: dict[str, float], position: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.rope(np.ones((1, 1, 64), dtype=np.float32), [position], **settings)  # type: ignore[arg-type]
