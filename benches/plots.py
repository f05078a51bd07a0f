"""Plots of the numbers that `compare.py --json` and `compare_long.py --json` have written, as PNG files.

    pip install llamacpu[bench]
    python benches/plots.py RESULTS.json ... [--output FOLDER]

ratios.png        our tokens/s divided by those of the best peer, for each file (compare.py)
threads-PART.png  tokens/s by the number of threads, for each file and program (compare.py --scaling)
context-PART.png  tokens/s by the length of the context, for each file, type of keys and values, and program
                  (compare_long.py with several values of --prompt-tokens and --depth)

What the files do not hold is not drawn, and a plot without numbers is not written. Results of several machines do not
belong into one plot: they are refused.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import results

PARTS = ("prompt", "generate")
Lines = dict[str, list[tuple[float, float]]]


def ratios(documents: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return file -> part -> ratio to the best peer."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows_of(documents, "compare"):
        if row.get("ratio"):
            found[row["file"]][row["part"]] = row["ratio"]
    return dict(found)


def lines(documents: list[dict[str, Any]], benchmark: str, part: str, axis: str) -> Lines:
    """Return label -> points (x, tokens/s), sorted; only labels with more than one point."""
    found: Lines = defaultdict(list)
    for row in rows_of(documents, benchmark):
        if row["part"] == part:
            kind = f", {row['kv_type']}" if row.get("kv_type") else ""
            for program, speed in row["tokens_per_second"].items():
                if speed:
                    found[f"{row['file']}{kind}: {program}"].append((row[axis], speed))
    return {label: sorted(points) for label, points in found.items() if len({x for x, _ in points}) > 1}


def rows_of(documents: list[dict[str, Any]], benchmark: str) -> list[dict[str, Any]]:
    """Return the rows of all results of a benchmark."""
    return [row for document in documents if document["benchmark"] == benchmark for row in document["rows"]]


def title_of(documents: list[dict[str, Any]]) -> str:
    """Return the machine and the version. Raises ValueError if they are not the same everywhere."""
    titles = sorted(
        {f"{one['machine']['processor']}, {one['machine']['isa']}; llamacpu {one['llamacpu']}" for one in documents}
    )
    if len(titles) > 1:
        raise ValueError(f"results of several machines or versions: {'; '.join(titles)}; draw each alone")
    return titles[0]


def draw_ratios(path: Path, found: dict[str, dict[str, float]], title: str) -> None:
    """Draw bars, one group for each file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.8 * len(found)), 4.5), layout="constrained")
    axes = figure.subplots()
    for index, part in enumerate(PARTS):
        bars = [(place, row[part]) for place, row in enumerate(found.values()) if part in row]
        if bars:
            places, heights = zip(*bars, strict=True)
            drawn = axes.bar([place + 0.4 * index - 0.2 for place in places], heights, 0.4, label=part)
            axes.bar_label(drawn, fmt="%.2f", fontsize=7)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(found)), list(found), rotation=45, ha="right", fontsize=8)
    axes.set_ylabel("tokens/s, ratio to the best peer")
    axes.set_title(title, fontsize=9)
    axes.legend()
    figure.savefig(path, dpi=150)


def draw_lines(path: Path, found: Lines, title: str, axis: str, part: str) -> None:
    """Draw one line for each label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, points in found.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o", label=label, linestyle="-" if label.endswith(": llamacpu") else "--")
    ticks = sorted({x for points in found.values() for x, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(axis)
    axes.set_ylabel(f"{part}, tokens/s")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def draw(documents: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw what the results hold; return the files that were written."""
    title, written = title_of(documents), []
    found = ratios(documents)
    if found:
        written.append(folder / "ratios.png")
        draw_ratios(written[-1], found, title)
    for name, benchmark, axis, label in (
        ("threads", "scaling", "threads", "threads"),
        ("context", "long", "tokens", "tokens of context"),
    ):
        for part in PARTS:
            several = lines(documents, benchmark, part, axis)
            if several:
                written.append(folder / f"{name}-{part}.png")
                draw_lines(written[-1], several, title, label, part)
    return written


def main() -> None:
    """Read the results and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the pictures")
    options = parser.parse_args()
    try:
        import matplotlib  # noqa: F401

        written = draw([results.read(path) for path in options.results], options.output)
    except ImportError:
        sys.exit("plots need matplotlib; install it with: pip install llamacpu[bench]")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if not written:
        sys.exit("the results hold nothing to draw: no ratios, and no file with several threads or contexts")
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    main()
