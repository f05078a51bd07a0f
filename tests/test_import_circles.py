"""No file needs a file that needs it, in the Python package and in each crate; and the search finds what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from import_circles import circles, described, folders, graph_of, python_graph, rust_graph

# Circles that are still there, as "folder: files". The list may only shrink.
KNOWN = ""


def known(folder: str) -> list[set[str]]:
    lines = [line.partition(": ") for line in KNOWN.strip().splitlines()]
    return [set(files.split()) for place, _, files in lines if place == folder]


@pytest.mark.parametrize("folder", folders())
def test_there_is_no_import_circle(folder: str) -> None:
    graph = graph_of(folder)
    found = [set(circle) for circle in circles(graph)]
    new = [described(graph, circle) for circle in found if not any(circle <= old for old in known(folder))]
    assert not new, "import circles in " + folder + ":\n" + "\n\n".join(new)
    gone = [sorted(old) for old in known(folder) if not any(circle <= old for circle in found)]
    assert not gone, f"these circles are gone; take them out of KNOWN: {gone}"


def test_every_file_of_every_crate_is_read() -> None:
    assert {"python", "rust/kernels/src", "rust/model/src", "rust/text/src", "rust/bindings/src"} <= set(folders())
    # The imports that everyone knows of are seen: the search does not pass because it finds nothing.
    assert "llamacpu/model.py" in graph_of("python")["llamacpu/__init__.py"]
    assert "kv.rs" in graph_of("rust/model/src")["session.rs"]
    for graph in map(graph_of, folders()):
        assert sum(map(len, graph.values())) >= len(graph) // 2


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("first", "second", "circle"),
    [
        ("from .b import x", "from .a import y", True),
        ("from . import b", "import package.a", True),
        ("def f():\n    from package.b import x", "from .a import y", True),
        ("if TYPE_CHECKING:\n    from .b import x", "from .a import y", True),
        ("from .below import x", "from .a import y", False),
        ("from .below.inner import x", "from .a import y", True),  # below/__init__ runs, and imports b
        ("import b", "from .a import y", False),
    ],
)
def test_circles_in_python(tmp_path: Path, first: str, second: str, circle: bool) -> None:
    inner = "from ..b import x" if ".inner" in first else ""
    files = {"__init__.py": "", "a.py": first, "b.py": second, "below/__init__.py": inner, "below/inner.py": ""}
    graph = python_graph(written(tmp_path / "package", files))
    assert bool(circles(graph)) is circle


@pytest.mark.parametrize(
    ("first", "second", "circle"),
    [
        ("use crate::b::X;", "use super::a::Y;", True),
        ("use crate::{b::{self, X}};", "fn f() { crate::a::g() }", True),
        ("use crate::b::X;", "use super::X as Y;", False),
        ("use crate::X;", "use crate::a::Y;", True),  # lib.rs re-exports it from b
        ("fn f() -> crate::b::X { }", "use crate::*;", False),
        ("use crate::b::X;", "#[cfg(test)] mod tests { use crate::a::Y; }", False),
        ("use crate::b::X;", "// use crate::a::Y;", False),
        ("mod c; pub use c::Z; use crate::b::X;", "use crate::a::Z;", False),  # Z is defined in a/c.rs
        ("mod c; pub use c::Z; fn f(z: Z) {}", "", False),
        ("mod c; pub use c::W; fn f(w: W) {}", "", True),  # c uses a
        ("mod c; pub use c::W;", "", False),  # only handed on
    ],
)
def test_circles_in_rust(tmp_path: Path, first: str, second: str, circle: bool) -> None:
    below = "use super::Y; pub struct W;" if "c::W" in first else "pub struct Z;"
    files = {
        "lib.rs": "mod a; mod b; pub use b::X;",
        "a.rs": first + "\npub struct Y; pub fn g() {}",
        "b.rs": second + "\npub struct X;",
        "a/c.rs": below,
    }
    graph = rust_graph(written(tmp_path, files))
    assert bool(circles(graph)) is circle
