"""Pictures of measurements, as PNG or SVG; they need the extra `plots` (matplotlib).

Nothing here touches pyplot: no window opens, and no state is shared with the program that calls.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from llamacpu.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from llamacpu.tools.comparison import Comparison
    from llamacpu.tools.perplexity import Perplexity

__all__ = ["comparison_plot", "loss_plot", "perplexity_plot", "require", "sensitivity_plot"]

_COLORS = (
    "#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568", "#d69e2e", "#0bc5ea", "#9b2c2c", "#68d391",
)  # fmt: skip
_LIGHT = "#a0aec0"
_STYLE: dict[Any, Any] = {
    "font.size": 10.0, "axes.titlesize": 11.0, "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e2e8f0", "axes.axisbelow": True,
    "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "llamacpu", "figure.dpi": 100.0,
}  # fmt: skip
_DOTS_PER_INCH = 150


def require() -> None:
    """Raise ImportError with what to install if pictures cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "llamacpu[plots]"') from None


def perplexity_plot(path: str | os.PathLike[str], results: Sequence[tuple[str, Perplexity]]) -> None:
    """Draw the running perplexity of one or more texts, and how the losses of their tokens are distributed.

    path     ends in .png or .svg
    results  (name for the legend, result of `perplexity`)
    """
    with _figure(path, (10, 4.2)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for color, (name, result) in zip(_cycle(len(results)), results, strict=True):
            chunks = np.arange(1, len(result.running) + 1)
            label = f"{name}: {result.value:.3f} ± {result.error:.3f}"
            marker = "o" if len(chunks) < 40 else None
            left.plot(chunks, result.running, color=color, marker=marker, markersize=3, linewidth=1.6, label=label)
            band = result.running[-1:] * np.ones_like(result.running)
            band_name = "standard error" if len(results) == 1 else None
            edges = (band - result.error, band + result.error)
            left.fill_between(chunks, *edges, color=color, alpha=0.12, linewidth=0, label=band_name)
            losses = -result.log_probabilities
            top = float(np.quantile(losses, 0.999)) if len(losses) else 1.0
            bins = np.linspace(0, max(top, 1e-6), 60)
            share = np.full(len(losses), 100 / max(len(losses), 1))
            right.hist(losses, bins, weights=share, color=color, alpha=0.55 if len(results) > 1 else 0.85)
            mean = float(np.mean(losses)) if len(losses) else 0.0
            right.axvline(mean, color=color, linewidth=1.4, linestyle="--", label=f"mean {mean:.3f}")
        _label(left, "Perplexity up to each chunk", f"chunk of {results[0][1].context} tokens", "perplexity")
        _label(right, "Loss of single tokens", "negative log-probability (nats)", "share of the tokens (%)")
        _whole_ticks(left)
        left.legend()
        right.legend()


def comparison_plot(path: str | os.PathLike[str], result: Comparison, title: str = "") -> None:
    """Draw a comparison: the divergence per token and its distribution, and the probabilities of both models.

    path    ends in .png or .svg
    result  of `compare`
    title   above the picture
    """
    with _figure(path, (10, 7.6)) as figure:
        if title:
            figure.suptitle(title, fontsize=12, fontweight="bold")
        grid = figure.add_gridspec(2, 2)
        along, spread, pair = (figure.add_subplot(place) for place in (grid[0, :], grid[1, 0], grid[1, 1]))
        divergences = np.maximum(result.divergences, 1e-9)
        places = np.arange(1, len(divergences) + 1)
        # Set beforehand: the divergences of a model from itself are all the same, which leaves an axis no extent.
        extent = (divergences.min(initial=1.0) / 2, divergences.max(initial=1e-9) * 2)
        along.set(yscale="log", ylim=extent)
        spread.set(xscale="log", xlim=extent)
        along.plot(places, divergences, ".", color=_LIGHT, markersize=2.5, rasterized=True, label="token")
        width = max(1, len(divergences) // 100)
        if len(divergences) >= 4 * width:
            count = len(divergences) // width
            means = divergences[: count * width].reshape(count, width).mean(axis=1)
            label = f"mean of {width} tokens" if width > 1 else "token by token"
            along.plot(places[: count * width : width] + width / 2, means, color=_COLORS[0], label=label)
        mean, error = result.divergence
        along.axhline(max(mean, 1e-9), color=_COLORS[1], linestyle="--", label=f"mean {mean:.5f} ± {error:.5f}")
        _label(along, "Kullback-Leibler divergence per token", "scored token", "divergence (nats)")
        along.set_xlim(0, len(divergences) + 1)
        along.legend(loc="upper right", ncols=3, framealpha=0.85, frameon=True, edgecolor="none")

        ordered = np.sort(divergences)
        share = 100 * np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
        spread.plot(ordered, share, color=_COLORS[0])
        for percent, color in ((50, _COLORS[2]), (99, _COLORS[1])):
            value = float(np.percentile(divergences, percent)) if len(divergences) else 1e-9
            name = "median" if percent == 50 else f"{percent} %"
            spread.plot([value], [percent], "o", color=color, label=f"{name}: {value:.5f}")
        _label(spread, "Tokens with at most this divergence", "divergence (nats)", "share of the tokens (%)")
        spread.legend(loc="upper left")

        own, base = np.exp(result.log_probabilities), np.exp(result.original_log_probabilities)
        pair.plot([0, 1], [0, 1], color=_COLORS[5], linewidth=1)
        pair.plot(base, own, ".", color=_COLORS[0], alpha=0.35, markersize=3, rasterized=True)
        _label(pair, "Probability of each token", "original model", "this model")
        pair.set_aspect("equal")
        same = (
            f"same first choice: {100 * result.agreement.value:.2f} %\nRMS: {100 * result.rms_difference.value:.2f} %"
        )
        pair.text(0.97, 0.03, same, transform=pair.transAxes, horizontalalignment="right")


def sensitivity_plot(
    path: str | os.PathLike[str], sensitivities: Mapping[str, float], *, title: str, unit: str, most: int = 40
) -> None:
    """Draw a bar for each tensor, largest at the top.

    path           ends in .png or .svg
    sensitivities  tensor name -> value
    unit           what the values are, with their unit
    most           how many tensors are drawn; the rest is named in the title
    """
    ordered = sorted(sensitivities.items(), key=lambda item: item[1], reverse=True)
    shown = ordered[:most]
    with _figure(path, (9, 1.6 + 0.19 * max(len(shown), 3))) as figure:
        axes = figure.subplots()
        names = [name for name, _ in shown]
        kinds = sorted({_kind(name) for name in names})
        colors = dict(zip(kinds, _cycle(len(kinds)), strict=True))
        places = np.arange(len(shown))
        for kind in kinds:
            own = [place for place in places if _kind(names[place]) == kind]
            axes.barh(own, [shown[place][1] for place in own], color=colors[kind], label=kind, height=0.75)
        axes.set_yticks(places, names, fontsize=7.5)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.grid(axis="y", visible=False)
        left = f" (the largest {len(shown)} of {len(ordered)})" if len(ordered) > len(shown) else ""
        _label(axes, title + left, unit, "")
        values = [value for _, value in shown if value > 0]
        if values and max(values) > 200 * min(values):
            axes.set_xscale("log")
        if 1 < len(kinds) <= 12:
            axes.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")


def loss_plot(
    path: str | os.PathLike[str],
    steps: Sequence[int] | NDArray[np.int64],
    losses: Sequence[float] | NDArray[np.float64],
    *,
    validation: Sequence[tuple[int, float]] = (),
    title: str = "Loss",
) -> None:
    """Draw a loss over the steps of a training, with its moving mean and the loss of the validation.

    path        ends in .png or .svg
    steps       numbers of the steps
    losses      the loss of each step, in nats per token
    validation  (step, loss)
    """
    with _figure(path, (8, 4.2)) as figure:
        axes = figure.subplots()
        steps, losses = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
        axes.plot(steps, losses, color=_LIGHT, linewidth=1, label="training, each step")
        width = max(1, len(losses) // 25)
        if width > 1:
            sums = np.cumsum(np.concatenate([np.zeros(1), losses]))
            means = (sums[width:] - sums[:-width]) / width
            axes.plot(steps[width - 1 :], means, color=_COLORS[0], label=f"training, mean of {width} steps")
        if validation:
            places, values = zip(*validation, strict=True)
            axes.plot(places, values, "o-", color=_COLORS[1], markersize=4, label="validation")
        _label(axes, title, "step", "loss (nats per token)")
        _whole_ticks(axes)
        axes.legend()


class _figure:  # noqa: N801 (a context manager, used as a function)
    """A figure that is drawn to a file at the end of the block; nothing is written after an error."""

    def __init__(self, path: str | os.PathLike[str], size: tuple[float, float]) -> None:
        self._format = Path(path).suffix.lower().removeprefix(".")
        if self._format not in ("png", "svg"):
            raise ValueError(f"a plot is called {os.fspath(path)!r}; expected a name that ends in .png or .svg")
        require()
        import matplotlib
        from matplotlib.figure import Figure

        self._path = path
        self._style = matplotlib.rc_context(_STYLE)
        self._style.__enter__()
        self._figure = Figure(figsize=size, layout="constrained")

    def __enter__(self) -> Figure:
        return self._figure

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                metadata = {"Date": None} if self._format == "svg" else None
                with replacing(self._path, "a picture", _is_picture, ordinary=True) as file:
                    self._figure.savefig(file, format=self._format, dpi=_DOTS_PER_INCH, metadata=metadata)
        finally:
            self._style.__exit__(kind, error, trace)


def _is_picture(file: BinaryIO) -> bool:
    start = file.read(256).lstrip()
    return start.startswith((b"\x89PNG", b"<?xml", b"<svg"))


def _cycle(count: int) -> list[str]:
    return [_COLORS[index % len(_COLORS)] for index in range(count)]


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _kind(name: str) -> str:
    """The kind of a tensor: its name without layer and suffix."""
    parts = [part for part in name.removesuffix(".weight").split(".") if not part.isdigit() and part != "blk"]
    return ".".join(parts)
