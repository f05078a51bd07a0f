"""Turns the columns of our docstrings into lists, for the reference in the documentation.

A docstring describes arguments and fields in two columns: a name and, after two or more spaces, a text that may
continue on the following lines. Markdown would run them together.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROW = re.compile(r"^(\w[\w.*]*(?:, \w[\w.*]*)*) {2,}(\S.*)$")


def as_list(text: str) -> str:
    """Return the text with every two-column row as a list item."""
    lines: list[str] = []
    column = 0
    for line in text.splitlines():
        row = _ROW.match(line)
        if row:
            if not column:
                lines.append("")
            lines.append(f"- `{row[1]}`: {row[2]}")
            column = row.start(2)
        elif column and line.startswith(" " * column) and line.strip():
            lines.append("  " + line.strip())
        else:
            if column and line.strip():
                lines.append("")
            column = 0
            lines.append(line)
    return "\n".join(lines)


class Columns(Extension):
    """A griffe extension that converts every docstring."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_list(obj.docstring.value)
