"""Which cases of the tests run with which instruction set, and in what order."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# The files that take longest, those that mostly wait for a browser or a server between those that compute: begun last,
# one of them would keep a single process busy while the others have nothing left to do.
LONGEST = (
    *("page_looks", "short_memory", "page_conversations", "typing", "page_trouble", "hostile_files", "page"),
    *("stress", "server_clients", "quantize_size", "server_bodies", "scheduler_process", "page_safety", "digests"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases that `instruction_set(one_in=N)` does not choose; begin with the longest files."""
    if config.option.markexpr == "instruction_set" and not os.environ.get("LLAMACPU_THOROUGH"):
        _leave_out(config, items)
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With every set but the best, keep each N-th case of a test, others with each set; of None, no case.

    With tiles in software, a tenth of all: what is not multiplied by them runs with another set as well.
    """
    from llamacpu import _native

    available = _native.cpu_facts()["available"]
    name = os.environ.get("LLAMACPU_ISA", available[-1])
    if name not in available[:-1]:
        return
    seen: Counter[str] = Counter()
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("instruction_set")
        one_in = mark.kwargs.get("one_in", 1) if mark else 1
        test = item.nodeid.partition("[")[0]
        chosen = one_in is not None and (seen[test] + available.index(name)) % one_in == 0
        if name == "amx-software":
            chosen = one_in is not None and seen.total() % 10 == 0
        seen[test] += 1
        (kept if chosen else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)
