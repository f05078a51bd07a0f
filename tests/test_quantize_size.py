"""Types chosen for a size: within it, and where errors do harm."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import llamacpu
from llamacpu.gguf.file import GGUFFile
from llamacpu.tools.quantize.effects import own_text
from llamacpu.tools.quantize.knapsack import Choice, cheapest_choices
from llamacpu.tools.quantize.sizing import parsed_size
from quantizable_files import Shape, write_shape
from thorough import THOROUGH

SHAPE = Shape(layers=2, width=256, feed_forward=256, vocabulary=32)


def best_by_trying(choices: dict[str, list[Choice]], budget: int) -> float:
    totals = [
        sum(choice.loss for choice in combination)
        for combination in itertools.product(*choices.values())
        if sum(choice.nbytes for choice in combination) <= budget
    ]
    return min(totals)


@pytest.mark.parametrize("seed", range(20))
def test_choices_are_within_the_budget_and_nearly_the_best(seed: int) -> None:
    random = np.random.default_rng(seed)
    choices = {}
    for number in range(5):
        sizes = np.cumsum(random.integers(1, 20, 4))
        losses = np.sort(random.random(4))[::-1] * random.integers(1, 50)
        choices[str(number)] = [
            Choice(f"T{k}", int(size), float(loss)) for k, (size, loss) in enumerate(zip(sizes, losses, strict=True))
        ]
    smallest = sum(options[0].nbytes for options in choices.values())
    for budget in (smallest, smallest + 15, smallest + 40, smallest + 1000):
        taken = cheapest_choices(choices, budget)
        assert sum(choice.nbytes for choice in taken.values()) <= budget
        loss = sum(choice.loss for choice in taken.values())
        # The greedy solution misses the best one by less than one step of one tensor.
        step = max(a.loss - b.loss for options in choices.values() for a, b in itertools.pairwise(options))
        assert best_by_trying(choices, budget) <= loss + 1e-9 <= best_by_trying(choices, budget) + 3 * step
    assert [choice.loss for choice in taken.values()] == [options[-1].loss for options in choices.values()]
    with pytest.raises(ValueError, match="smallest types take"):
        cheapest_choices(choices, smallest - 1)


def test_sizes_as_text() -> None:
    assert [parsed_size(text) for text in ("5GB", "1.5 GiB", "900mb", "12345", "2k", 7e6)] == [
        5 * 10**9, 3 * 2**29, 9 * 10**8, 12345, 2000, 7_000_000,
    ]  # fmt: skip
    for text in ("", "GB", "5 apples", "-3GB", "0", "nan"):
        with pytest.raises(ValueError, match="not a number of bytes"):
            parsed_size(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo model in F32: a tokenizer and weights that mean something."""
    path = tmp_path_factory.mktemp("sized") / "demo.gguf"
    source = Path(llamacpu.__file__).with_name("data") / "demo.gguf"
    llamacpu.quantize(source, path, "F32", allow_requantize=True)
    return path


def test_a_file_is_as_large_as_asked(model: Path, tmp_path: Path) -> None:
    sizes = []
    wanted: tuple[str | float, ...] = ("1.4MB", 2_000_000)
    # What errors do is measured anew for each of them, which takes nearly all of the time.
    wanted = wanted if THOROUGH else wanted[:1]
    for number, size in enumerate(wanted):
        target = tmp_path / f"{number}.gguf"
        done = llamacpu.quantize(model, target, target_size=size, text="One two three. " * 40)
        assert target.stat().st_size <= parsed_size(size)
        assert target.stat().st_size >= 0.93 * parsed_size(size)
        assert len({change.after for change in done.changes}) > 2
        sizes.append(done.bits_per_weight)
        with GGUFFile(target) as file:
            assert file.metadata["general.file_type"] not in (0, 1)
    assert sizes == sorted(set(sizes))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.gguf" for number in range(len(wanted))]


def test_bits_per_weight_without_a_text(model: Path) -> None:
    first, second = (llamacpu.quantize(model, None, target_bits=4.5, dry_run=True) for _ in range(2))
    assert first.changes == second.changes
    assert first.effects == second.effects
    assert 4.3 <= first.bits_per_weight <= 4.5
    assert set(first.effects.values()) != {0.0}


def test_types_chosen_with_an_importance_matrix_beat_the_preset_of_that_size(model: Path, tmp_path: Path) -> None:
    # The model writes the texts itself: one for the matrix, another one to compare.
    with llamacpu.Model(model) as original:
        texts = [own_text(original, 600, seed) for seed in (1, 2)]
    matrix = tmp_path / "matrix.gguf"
    llamacpu.imatrix(model, texts[0], matrix, context=256)
    preset, sized = tmp_path / "preset.gguf", tmp_path / "sized.gguf"
    for name in ("Q4_K_M", "IQ2_M")[: 2 if THOROUGH else 1]:
        llamacpu.quantize(model, preset, name, imatrix=matrix)
        size = preset.stat().st_size
        done = llamacpu.quantize(model, sized, target_size=size, imatrix=matrix)
        assert 0.97 * size < sized.stat().st_size <= size
        assert all(change.with_importance for change in done.changes if change.after.startswith("IQ2"))
        found = [llamacpu.compare(path, model, texts[1], context=256).divergences.mean() for path in (preset, sized)]
        assert found[1] < 0.7 * found[0], name


def test_what_cannot_be_sized(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least .* bytes, .*allow more"):
        llamacpu.quantize(model, tmp_path / "small.gguf", target_bits=1.0)
    with pytest.raises(ValueError, match="exclude each other"):
        llamacpu.quantize(model, tmp_path / "small.gguf", "Q4_0", target_bits=4.0)
    with pytest.raises(ValueError, match="at most 32"):
        llamacpu.quantize(model, tmp_path / "small.gguf", target_bits=99.0)
    with pytest.raises(ValueError, match="for a target size"):
        llamacpu.quantize(model, tmp_path / "small.gguf", text="a")
    with pytest.raises(ValueError, match="give a longer one"):
        llamacpu.quantize(model, tmp_path / "small.gguf", target_bits=4.0, text="")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    write_shape(tmp_path / "model.gguf", SHAPE)
    with pytest.raises(llamacpu.LlamaCpuError):
        llamacpu.quantize(tmp_path / "model.gguf", None, target_bits=4.5, dry_run=True)
