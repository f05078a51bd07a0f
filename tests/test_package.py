"""The package itself: public names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llamacpu


def test_public_names_are_sorted_and_exist() -> None:
    assert llamacpu.__all__ == sorted(llamacpu.__all__)
    for name in llamacpu.__all__:
        assert getattr(llamacpu, name) is not None
        assert name in dir(llamacpu)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Lama"):
        llamacpu.Lama  # noqa: B018


@pytest.mark.parametrize("module", ["numpy", "jinja2", "gguf", "click", "llamacpu._native"])
def test_importing_the_package_imports_nothing_slow(module: str) -> None:
    code = f"import sys, llamacpu; sys.exit({module!r} in sys.modules)"
    path = str(llamacpu.__file__).removesuffix("llamacpu/__init__.py")
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
