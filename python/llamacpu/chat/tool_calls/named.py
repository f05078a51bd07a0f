"""Calls that begin with the name of the function, and arguments in JSON after it."""

# ruff: noqa: RUF001, RUF002 (the bars of DeepSeek tags)

from __future__ import annotations

import re

from llamacpu.chat.tool_calls.call import Call, IdentifiedCall, read_arguments

__all__ = ["read_deepseek", "read_named"]

# A name without quotes.
_BARE_NAME = re.compile(r"[^\s\[\]{}\"'<>]+")
_KIMI = re.compile(
    r"(?:functions\.)?(?P<name>[^\s:]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>(?P<arguments>.*)", re.DOTALL
)
_DEEPSEEK = re.compile(r"(?:\w*<｜tool▁sep｜>)?(?P<name>[^\n]+?)\s*```(?:json)?\n(?P<arguments>.*?)\n?```", re.DOTALL)
_SEPARATED = re.compile(r"(?P<name>[^\n<]+?)\s*<｜tool▁sep｜>\s*(?P<arguments>\{.*\}|null|)", re.DOTALL)
_IDENTIFIED = re.compile(r"\[CALL_ID\]\s*([A-Za-z0-9]+)")


def read_deepseek(text: str) -> list[Call] | None:
    """Parse ``function<｜tool▁sep｜>f`` with the arguments in a fenced block below, or ``f<｜tool▁sep｜>{"a": 1}``.

    Kimi's ``functions.f:0<|tool_call_argument_begin|>{"a": 1}`` is also accepted.
    """
    bare = text.strip()
    match = _SEPARATED.fullmatch(bare) or _DEEPSEEK.fullmatch(bare) or _KIMI.fullmatch(bare)
    arguments = read_arguments(match["arguments"]) if match else None
    return [Call(match["name"].strip(), arguments)] if match and arguments is not None else None


def read_named(text: str) -> list[Call] | None:
    """Parse ``f{"a": 1}``, ``f[ARGS]{"a": 1}`` or ``f[CALL_ID]abcdefghi[ARGS]{"a": 1}``."""
    text = text.strip()
    match = _BARE_NAME.match(text)
    if match is None:
        return None
    rest = text[match.end() :].strip()
    identified = _IDENTIFIED.match(rest)
    if identified is not None:
        rest = rest[identified.end() :].strip()
    marked = rest.startswith("[ARGS]")
    rest = rest.removeprefix("[ARGS]").strip()
    arguments = read_arguments(rest) if rest or marked else None
    if arguments is None:
        return None
    return [IdentifiedCall.of(Call(match[0], arguments), identified and identified[1])]
