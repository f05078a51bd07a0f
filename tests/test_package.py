"""The package itself: public names, and what importing it costs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import llamacpu

REPOSITORY = Path(__file__).resolve().parent.parent


def test_public_names_are_sorted_and_exist() -> None:
    assert llamacpu.__all__ == sorted(llamacpu.__all__)
    for name in llamacpu.__all__:
        assert getattr(llamacpu, name) is not None
        assert name in dir(llamacpu)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Lama"):
        llamacpu.Lama  # noqa: B018


@pytest.mark.parametrize("module", ["typing", "numpy", "jinja2", "click", "platformdirs", "llamacpu._native"])
def test_importing_the_package_imports_nothing_slow(module: str) -> None:
    code = f"import sys, llamacpu; sys.exit({module!r} in sys.modules)"
    path = str(llamacpu.__file__).removesuffix("llamacpu/__init__.py")
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_an_answer_needs_the_declared_dependencies_and_nothing_else() -> None:
    code = (
        "import sys; from importlib import resources; import llamacpu; "
        "m = llamacpu.Model(resources.files('llamacpu') / 'data' / 'demo.gguf'); "
        "list(m.generate('Hello', max_tokens=2)); import llamacpu.cli.run; "
        "print(*sorted({n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    used = {name for name in done.stdout.split() if not name.startswith("_")}
    # markupsafe comes with Jinja.
    assert used <= {"llamacpu", "numpy", "jinja2", "markupsafe", "click", "platformdirs", "tomli"}


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
@pytest.mark.skipif(importlib.util.find_spec("maturin") is None, reason="maturin is not installed")
def test_the_source_distribution_has_everything(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no checkout")
    command = [sys.executable, "-m", "maturin", "sdist", "--out", str(tmp_path)]
    subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=True, timeout=100)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith(".") and (REPOSITORY / name).exists()}
    assert tracked - names == set()
    assert {"tests/test_package.py", "examples/ray_batch.py", "docs/scaling.md"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".so", ".pyd"))]
