"""Drawings of a shape on a background, which the model in tests/seeing/ knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLORS", "SHAPES", "Drawing"]

COLORS = {
    "red": (214, 48, 49), "green": (39, 150, 78), "blue": (41, 98, 220), "yellow": (245, 200, 40),
    "black": (25, 25, 30), "white": (250, 250, 250),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star")


@dataclass(frozen=True)
class Drawing:
    """A shape of one color on a background of another.

    place   its middle, as fractions of the width and the height
    radius  its size, as a fraction of the side
    shift   what is added to red, green and blue of the shape and of the background
    """

    shape: str
    color: str
    background: str
    place: tuple[float, float] = (0.5, 0.5)
    radius: float = 0.33
    shift: tuple[tuple[float, float, float], tuple[float, float, float]] = ((0, 0, 0), (0, 0, 0))

    @property
    def sentence(self) -> str:
        """What the model says of it."""
        return f"A {self.color} {self.shape} on a {self.background} background."

    @classmethod
    def by_chance(cls, random: np.random.Generator) -> Drawing:
        """One of those that the model has learned from."""
        background, color = (str(name) for name in random.choice(list(COLORS), 2, replace=False))
        shape = str(random.choice(SHAPES))
        place, radius = random.uniform(0.45, 0.55, 2), random.uniform(0.28, 0.38)
        shift = random.uniform(-14, 14, (2, 3)).tolist()
        return cls(shape, color, background, (place[0], place[1]), radius, (tuple(shift[0]), tuple(shift[1])))

    def image(self, side: int = 224) -> Image:
        """The drawing, with smooth edges."""
        from PIL import Image, ImageDraw

        color, background = (
            tuple(np.clip(np.add(COLORS[name], shift), 0, 255).astype(int).tolist())
            for name, shift in zip((self.color, self.background), self.shift, strict=True)
        )
        large = 4 * side
        image = Image.new("RGB", (large, large), background)
        draw = ImageDraw.Draw(image)
        x, y = (large * part for part in self.place)
        radius = self.radius * large
        if self.shape == "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
        elif self.shape == "square":
            half = radius * 0.88
            draw.rectangle((x - half, y - half, x + half, y + half), fill=color)
        else:
            count = 3 if self.shape == "triangle" else 10
            reach = [radius * (1.15 if count == 3 else 1.1 if corner % 2 == 0 else 0.44) for corner in range(count)]
            turns = [2 * np.pi * corner / count - np.pi / 2 for corner in range(count)]
            down = radius * 0.2 if count == 3 else 0
            corners = zip(reach, turns, strict=True)
            draw.polygon([(x + r * np.cos(turn), y + down + r * np.sin(turn)) for r, turn in corners], fill=color)
        return image.resize((side, side), Image.Resampling.LANCZOS)

    def png(self, side: int = 224) -> bytes:
        """The file of it."""
        file = BytesIO()
        self.image(side).save(file, "PNG")
        return file.getvalue()
