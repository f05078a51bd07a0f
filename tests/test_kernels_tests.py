"""The tests of the kernels are in a crate of their own, where all of them run."""

from __future__ import annotations

import re
from pathlib import Path

RUST = Path(__file__).parents[1] / "rust"
TESTS = RUST / "kernels" / "tests" / "kernels"


def sources(folder: Path) -> dict[Path, str]:
    found = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.rs")}
    assert len(found) > 20
    return found


def test_the_library_itself_has_no_tests() -> None:
    # Its manifest says that it is not compiled for tests: they would never run.
    misplaced = [
        str(path)
        for path, text in sources(RUST / "kernels/src").items()
        if re.search(r"\bcfg.*\btest\b|#\[test\]", text)
    ]
    assert not misplaced, f"tests of the kernels are in rust/kernels/tests/kernels: move those in {misplaced}"


def test_every_file_of_tests_is_compiled() -> None:
    for path in sources(TESTS):
        if path != TESTS / "main.rs":
            parent = TESTS / "main.rs" if path.parent == TESTS else path.parent.with_suffix(".rs")
            assert re.search(rf"\bmod {path.stem};", parent.read_text(encoding="utf-8")), f"{parent} lacks {path.stem}"


def test_only_tests_use_the_inner_parts() -> None:
    for crate in ("model", "text", "bindings", "kernels/examples"):
        for path in (RUST / crate).rglob("*.rs"):
            assert "internals" not in path.read_text(encoding="utf-8"), path
