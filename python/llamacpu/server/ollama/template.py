"""The template of a request: Go's notation as far as prompts need it, or Jinja."""

from __future__ import annotations

import re

from llamacpu.server.errors import invalid

__all__ = ["jinja_of"]

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_NAMES = {".System": "system", ".Prompt": "prompt", ".Suffix": "suffix"}


def jinja_of(template: str) -> str:
    """A template with `{{ .System }}`, `{{ .Prompt }}` and `{{ if }}` as Jinja; one that is Jinja stays as it is.

    What stands behind `{{ .Response }}` is for a conversation that goes on, and left out. Raises ApiError for what else
    Go's notation has.
    """
    if "{%" in template or not re.search(r"\{\{-?\s*(?:\.|if\b|range\b|end\b|else\b)", template):
        return template
    written, depth, place = [], 0, 0
    for match in _ACTION.finditer(template):
        written.append(_text(template[place : match.start()]))
        place = match.end()
        before, action, after = match.groups()
        if action == ".Response" and depth == 0:
            return "".join(written)
        condition = re.fullmatch(r"(if|else if)\s+(\.\w+)", action)
        if action in _NAMES:
            written.append(f"{{{{{before} {_NAMES[action]} {after}}}}}")
        elif condition and condition[2] in _NAMES:
            depth += condition[1] == "if"
            word = "if" if condition[1] == "if" else "elif"
            written.append(f"{{%{before} {word} {_NAMES[condition[2]]} {after}%}}")
        elif action == "else" and depth:
            written.append(f"{{%{before} else {after}%}}")
        elif action == "end" and depth:
            depth -= 1
            written.append(f"{{%{before} endif {after}%}}")
        elif action != ".Response":
            raise invalid(
                f"template has {{{{ {action[:60]} }}}}; known are .System, .Prompt, .Response, if, else and end, or "
                "a template in Jinja", "template",
            )  # fmt: skip
    if depth:
        raise invalid("template has an if without end", "template")
    return "".join(written) + _text(template[place:])


def _text(text: str) -> str:
    """Text that Jinja shows as it is."""
    return text.replace("{#", '{{ "{#" }}').replace("{%", '{{ "{%" }}')
