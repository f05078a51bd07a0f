"""Who may import whom: the borders drawn in ARCHITECTURE.md, read from the import statements."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "python" / "llamacpu"
NATIVE_USERS = {"engine", "gguf", "kernels", "sampling", "text"}
# A module may import its own package and those above it in this list. `engine` delegates `generate` to `generation`
# when it is called, which is why the two share a layer.
LAYERS = [
    {"errors"},
    {"store"},
    {"gguf"},
    {"kernels", "text"},
    {"families", "chat", "constraints", "sampling"},
    {"drafting", "engine", "generation", "tasks"},
    {"answers"},
    {"llama"},
    {"_pyinstaller", "cli", "compat", "integrations"},
]


def modules() -> list[Path]:
    """Every Python file of the package but its table of contents."""
    return sorted(
        path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in {"__init__", "__main__"}
    )


def top_name(path: Path) -> str:
    """The module or subpackage directly below llamacpu that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, run_time_only: bool = True) -> set[str]:
    """The names directly below llamacpu that a file imports; imports for type checkers alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and run_time_only:
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("llamacpu."))
        elif isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(PACKAGE).parts)
            if node.level and node.level < depth:
                continue  # inside a subpackage
            module = (node.module or "").split(".")
            if node.level == 0:
                if module[0] != "llamacpu":
                    continue
                module = module[1:]
            found.update([module[0]] if module and module[0] else [alias.name for alias in node.names])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_chosen_modules_touch_the_extension(path: Path) -> None:
    if "_native" in imports(path):
        assert top_name(path) in NATIVE_USERS


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    own = top_name(path)
    if own not in level:
        pytest.fail(f"{own} has no place in the layers: give it one in this test and in ARCHITECTURE.md")
    upward = {name for name in imports(path) if level.get(name, -1) > level[own]}
    assert not upward, f"{own} imports {upward}, which stand above it"
