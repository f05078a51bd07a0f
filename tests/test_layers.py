"""Who may import whom: the borders drawn in ARCHITECTURE.md, read from the import statements.

Every import counts: at the top of a file, in a function, and for type checkers alone.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "python" / "llamacpu"
NATIVE_USERS = {"constraints", "engine", "gguf", "kernels", "sampling", "text", "tools"}
# From the top of the house to its ground. A package imports from those on the lines below its own; of two packages on
# one line neither imports the other.
LAYERS = [
    {"__init__", "__main__", "_pyinstaller", "compat"},
    {"cli"},
    {"integrations", "ray", "window"},
    {"server"},
    {"llama"},
    {"model"},
    {"scheduler"},
    {"answers"},
    {"tasks", "tools"},
    {"constraints"},
    {"chat"},
    {"generation"},
    {"drafting"},
    {"sampling"},
    {"multimodal"},
    {"engine"},
    {"pictures"},
    {"store"},
    {"families", "vision"},
    {"text"},
    {"checkpoints"},
    {"gguf"},
    {"arguments", "errors", "files", "kernels", "locks", "log", "mappings", "memory"},
]


def modules() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def top_name(path: Path) -> str:
    """The module or subpackage directly below llamacpu that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """The names directly below llamacpu that a file imports; `package` is where it lies, from llamacpu on."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "llamacpu" and len(parts) > 1:
                    yield parts[1]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                module = [*package[: len(package) - node.level + 1], *module]
            if module[:1] == ["llamacpu"]:
                yield from module[1:2] or [alias.name for alias in node.names]


@functools.cache
def imports_of(path: Path) -> set[str]:
    parts = path.relative_to(PACKAGE.parent).parts[:-1]
    return set(imports(path.read_text(encoding="utf-8"), parts))


def wrong(own: str, imported: set[str]) -> set[str]:
    """The imports of a package that do not point down."""
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    if own not in level:
        pytest.fail(f"{own} has no place in the layers: give it one in this test and in ARCHITECTURE.md")
    return {name for name in imported if name in level and name != own and level[name] <= level[own]}


def test_only_the_chosen_modules_touch_the_extension() -> None:
    users = {top_name(path) for path in modules() if "_native" in imports_of(path)}
    assert users - NATIVE_USERS <= {"__init__"}  # the version alone, by name


def test_imports_point_down() -> None:
    found = {str(path.relative_to(PACKAGE)): wrong(top_name(path), imports_of(path)) for path in modules()}
    assert {path: names for path, names in found.items() if names} == {}, "imports of what does not lie below"


def test_every_name_has_a_place() -> None:
    known = {name for names in LAYERS for name in names} | {"_native", "__version__"}
    found = {str(path.relative_to(PACKAGE)): imports_of(path) - known for path in modules()}
    assert {path: names for path, names in found.items() if names} == {}
    assert len(found) > 300


def test_imports_of_every_kind_are_seen() -> None:
    source = """
from llamacpu import chat
import llamacpu.cli.run
from llamacpu.tasks.embeddings import embed
from ..gguf import file
from . import session
if TYPE_CHECKING:
    from llamacpu.llama import Llama
def later():
    from llamacpu import _native
"""
    assert set(imports(source, ("llamacpu", "engine"))) == {
        "chat",
        "cli",
        "tasks",
        "gguf",
        "engine",
        "llama",
        "_native",
    }


def test_what_points_up_or_aside_is_wrong() -> None:
    assert wrong("engine", {"gguf", "engine", "errors", "_native"}) == set()
    assert wrong("engine", {"generation", "llama"}) == {"generation", "llama"}
    assert wrong("tasks", {"tools", "chat"}) == {"tools"}
