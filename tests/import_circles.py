"""Import circles: files of which each needs the next one, in the Python package and in each Rust crate.

`python tests/import_circles.py` prints every circle it finds, with the imports that make it.

Python: every import statement counts, inside functions and under TYPE_CHECKING too. An import of something in another
package also runs the `__init__` of that package, and so imports it.
Rust: every path that starts at `crate`, `super`, `self` or a child module counts, in a `use` or in the code, except in
tests. A name that a module re-exports belongs to the file that defines it. `mod x;` is no import, and neither is a
`pub use` of a name that the file itself does not use.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
Graph = dict[str, set[str]]


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one file (Tarjan 1972), each sorted."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(found)


def python_graph(package: Path) -> Graph:
    """The files of a Python package, named relative to the folder that holds it, and the files that each imports."""
    modules = {_module_name(path, package): path for path in sorted([*package.rglob("*.pyi"), *package.rglob("*.py")])}
    names = {module: str(path.relative_to(package.parent)) for module, path in modules.items()}
    graph: Graph = {name: set() for name in names.values()}
    for module, path in modules.items():
        parts = module.split(".")
        base = parts if path.stem == "__init__" else parts[:-1]
        ancestors = {".".join(parts[:count]) for count in range(1, len(parts))}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in _imported(node, base, modules):
                steps = target.split(".")
                loaded = {".".join(steps[:count]) for count in range(1, len(steps))} - ancestors | {target}
                graph[names[module]] |= {names[other] for other in loaded if other in names and other != module}
    return graph


def _module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.AST, base: list[str], modules: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a statement names; a name that is no module is in the module before it."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        start = base[: len(base) - node.level + 1] if node.level else []
        source = ".".join([*start, *((node.module or "").split(".") if node.module else [])])
        for alias in node.names:
            yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source


def rust_graph(source: Path) -> Graph:
    """The files of a crate's `src`, named relative to it, and the files that each imports."""
    return RustCrate(source).graph()


class RustCrate:
    """The module tree of a crate: which file a path ends in."""

    def __init__(self, source: Path) -> None:
        self.code: dict[tuple[str, ...], str] = {}
        self.names: dict[tuple[str, ...], str] = {}
        self.children: dict[tuple[str, ...], set[str]] = {}
        self._read(source, source / "lib.rs", ())

    def _read(self, source: Path, path: Path, module: tuple[str, ...]) -> None:
        code = _without_tests(_without_comments_and_strings(path.read_text(encoding="utf-8")))
        self.code[module], self.names[module] = code, path.relative_to(source).as_posix()
        children = set(re.findall(r"\bmod\s+(\w+)\s*;", code))
        self.children[module] = children
        folder = path.parent if path.stem in ("lib", "mod") else path.with_suffix("")
        for child in children:
            file = next(p for p in (folder / f"{child}.rs", folder / child / "mod.rs") if p.is_file())
            self._read(source, file, (*module, child))

    def graph(self) -> Graph:
        graph: Graph = {name: set() for name in self.names.values()}
        for module, code in self.code.items():
            for path, again in self._paths(module, code):
                if not (again and len(re.findall(rf"\b{re.escape(path[-1])}\b", code)) < 2):
                    target = self._file_of(module, path)
                    if target is not None and target != module:
                        graph[self.names[module]].add(self.names[target])
        return graph

    def _paths(self, module: tuple[str, ...], code: str) -> Iterator[tuple[list[str], bool]]:
        """(path, is it a re-export) of every path in the code that leads into this crate."""
        for found in re.finditer(r"(\bpub\b\s*(?:\([^)]*\)\s*)?)?\buse\s+([^;]+);", code):
            for path in _spread(found.group(2)):
                yield path, bool(found.group(1))
        rest = re.sub(r"\buse\s+[^;]+;", "", code)
        heads = "|".join(["crate", "super", "self", *sorted(self.children[module])])
        for found in re.finditer(rf"(?<![\w:])\$?(?:{heads})(?:\s*::\s*\w+)+", rest):
            yield re.split(r"\s*::\s*", found.group().lstrip("$")), False

    def _file_of(
        self, module: tuple[str, ...], path: list[str], seen: frozenset[str] = frozenset()
    ) -> tuple[str, ...] | None:
        """The module whose file defines what a path names, or None for a path into another crate."""
        at: tuple[str, ...] | None = module
        steps = list(path)
        if steps[0] == "crate":
            at, steps = (), steps[1:]
        elif steps[0] == "self":
            steps = steps[1:]
        elif steps[0] == "super":
            while steps and steps[0] == "super":
                at, steps = at[:-1] if at else (), steps[1:]
        elif steps[0] not in self.children[module]:
            return None
        assert at is not None
        while steps and steps[0] in self.children[at]:
            at, steps = (*at, steps[0]), steps[1:]
        return self._defining(at, steps[0], seen) if steps and steps[0] != "*" else at

    def _defining(self, module: tuple[str, ...], name: str, seen: frozenset[str]) -> tuple[str, ...]:
        code = self.code[module]
        kinds = "fn|struct|enum|trait|type|const|static|union|mod|macro_rules!"
        if re.search(rf"\b(?:{kinds})\s+(?:mut\s+)?{name}\b", code) or f"{module}{name}" in seen:
            return module
        seen = seen | {f"{module}{name}"}
        for found in re.finditer(r"\buse\s+([^;]+);", code):
            for path in _spread(found.group(1)):
                if path[-1] == name or path[-1] == "*":
                    target = self._file_of(module, path if path[-1] == name else [*path[:-1], name], seen)
                    if target is not None and (path[-1] == name or target != module):
                        return target
        exported = [m for m, text in self.code.items() if re.search(rf"macro_rules!\s+{name}\b", text)]
        return exported[0] if module == () and exported else module


def _spread(tree: str) -> Iterator[list[str]]:
    """The paths of a use tree: `a::{b, c::{d, self}}` is a::b, a::c::d, a::c."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        path = [step.strip() for step in re.sub(r"\s+as\s+\w+$", "", tree).split("::")]
        yield path[:-1] if len(path) > 1 and path[-1] == "self" else path
        return
    depth, start, inner = 0, 0, rest[: rest.rindex("}")]
    for place, letter in enumerate(inner + ","):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            if inner[start:place].strip():
                yield from _spread(head + inner[start:place].strip())
            start = place + 1


def _without_comments_and_strings(code: str) -> str:
    pattern = r"//[^\n]*|/\*.*?\*/|r#\".*?\"#|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])'"
    return re.sub(pattern, lambda found: "" if found.group().startswith("/") else '""', code, flags=re.DOTALL)


def _without_tests(code: str) -> str:
    """The code without the items that are compiled for tests alone."""
    while found := re.search(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]", code):
        end, depth = found.end(), 0
        while end < len(code):
            depth += (code[end] == "{") - (code[end] == "}")
            if (code[end] == ";" and depth == 0) or (code[end] == "}" and depth == 0):
                break
            end += 1
        code = code[: found.start()] + code[end + 1 :]
    return code


def folders() -> list[str]:
    """The Python package and the folder of each crate."""
    return [
        "python",
        *(path.relative_to(REPOSITORY).as_posix() for path in sorted((REPOSITORY / "rust").glob("*/src"))),
    ]


@functools.cache
def graph_of(folder: str) -> Graph:
    """The graph of the files in one of `folders`."""
    return python_graph(REPOSITORY / "python" / "llamacpu") if folder == "python" else rust_graph(REPOSITORY / folder)


def described(graph: Graph, circle: Iterable[str]) -> str:
    """The imports inside a circle, one file a line."""
    files = sorted(circle)
    return "\n".join(f"  {name} -> {', '.join(sorted(graph[name] & set(files)))}" for name in files)


def main() -> int:
    """Print the circles; 1 if there are any."""
    found = 0
    for folder in folders():
        graph = graph_of(folder)
        for circle in circles(graph):
            found += 1
            print(f"{folder}: a circle of {len(circle)} files\n{described(graph, circle)}")
    print(f"{found} import circles")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
