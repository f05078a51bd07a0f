"""`OllamaTemplate`: the TEMPLATE of a Modelfile, in Go's notation, rendered as Ollama does.

A template that reads .Messages sees the whole conversation. An older one, which knows only .System, .Prompt and
.Response, runs once for each pair of question and answer, and the last time only up to .Response, where the answer
begins.
https://docs.ollama.com/modelfile#template
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from llamacpu.chat.data import PlainData
from llamacpu.chat.go_template import FUNCTIONS, MAIN, Evaluator, GoTemplateError, Source, parse
from llamacpu.chat.go_template.nodes import Node
from llamacpu.chat.go_template.walking import before_response, names_in, with_response
from llamacpu.chat.limits import Budget, Limits
from llamacpu.chat.ollama_values import message_of, messages_of, tools_of
from llamacpu.chat.segments import Segment, cut
from llamacpu.chat.template import ChatTemplate
from llamacpu.chat.traced import concatenate
from llamacpu.errors import TemplateError
from llamacpu.locks import cached_property

__all__ = ["OllamaTemplate", "check_template", "is_go_template"]

_GO = re.compile(
    r"\{\{-?\s*(?:/\*|[.$(\"`]|(?:if|with|range|template|define|block|else|end|break|continue|json|eq|and|or|not|printf?"
    r"|len|index|slice|currentDate)\b(?!\s*[(=]))"
)


def is_go_template(source: str) -> bool:
    """Whether a template is in Go's notation rather than Jinja's, which has statements in {% %}."""
    return "{%" not in source and _GO.search(source) is not None


def check_template(source: str) -> None:
    """Raise TemplateError if a template, in either notation, is not valid."""
    (OllamaTemplate(source) if is_go_template(source) else ChatTemplate(source)).check()


class OllamaTemplate:
    """A template in Go's notation, with the same interface as `ChatTemplate`.

    Every error, from a syntax error to an unsupported construct, is a `TemplateError` with line and column; steps,
    time, depth and output are bounded by `limits`.
    """

    def __init__(self, source: str, *, name: str | None = None, limits: Limits | None = None) -> None:
        self.source = source
        self.name = name
        self.limits: Limits = limits or Limits()
        if len(source) > self.limits.source:
            raise TemplateError(f"the template has {len(source)} characters, at most {self.limits.source} are allowed")

    def __repr__(self) -> str:
        return f"OllamaTemplate({self.name or self.source[:40]!r})"

    @cached_property
    def _text(self) -> Source:
        return Source(self.source, "template")

    @cached_property
    def _templates(self) -> dict[str, tuple[Node, ...]]:
        try:
            found = parse(self._text, FUNCTIONS)
        except RecursionError:
            raise GoTemplateError("the template is nested too deeply") from None
        names = {name.lower() for name in names_in(found)}
        if "messages" not in names and "response" not in names:
            found[MAIN] = with_response(found[MAIN])
        return found

    def check(self) -> None:
        """Raise TemplateError if the source is not a valid template; nothing is rendered."""
        _ = self._templates

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of the fields that the template reads: Messages, Role, Tools and so on."""
        return frozenset(names_in(self._templates))

    @property
    def reads(self) -> str:
        """The `source` argument of `forms`: shows whether the template supports tools and tool calls."""
        return " ".join(
            word for name, word in (("Tools", "tools"), ("ToolCalls", "tool_calls")) if name in self.variables
        )

    def render(
        self,
        messages: Iterable[Any],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt as one string; see `ChatTemplate.render`. The template itself decides on the generation prompt."""
        return "".join((self._run(False, messages, tools, variables),))

    def segments(
        self,
        messages: Iterable[Any],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        *,
        control_tokens: Collection[str],
        **variables: Any,
    ) -> list[Segment]:
        """The same prompt as segments for the tokenizer; see `ChatTemplate.segments`."""
        return cut(self._run(True, messages, tools, variables), control_tokens)

    def _run(
        self, trace: bool, messages: Iterable[Any], tools: Sequence[Any] | None, variables: Mapping[str, Any]
    ) -> str:
        data = PlainData(trace)
        rows = messages_of(data.messages(messages))
        offered = tools_of(data.plain(list(tools))) if tools else tools_of([])
        effort = variables.get("reasoning_effort")
        think = variables.get("enable_thinking")
        common = {
            "Think": bool(think if think is not None else effort not in (None, "none")),
            "ThinkLevel": data.text(effort) if isinstance(effort, str) and effort != "none" else "",
            "IsThinkSet": think is not None or effort is not None,
        }
        budget = Budget(self.limits, data.size, trace)

        def made(nodes: Sequence[Node], **fields: Any) -> str:
            return Evaluator(self._text, self._templates, budget).run(nodes, {**common, **fields})

        main = self._templates[MAIN]
        try:
            suffix = variables.get("suffix")
            if isinstance(suffix, str) and suffix:
                prompt = concatenate([row["Content"] for row in rows if row["Role"] == "user"])
                return made(main, Prompt=prompt, Suffix=data.text(suffix), Response="")
            if "messages" in {name.lower() for name in self.variables}:
                system = _joined([row["Content"] for row in rows if row["Role"] == "system"])
                found = [message_of(row) for row in _merged(rows)]
                return made(main, System=system, Messages=found, Tools=offered, Response="")
            return self._in_turns(_merged(rows), main, made)
        except RecursionError:
            raise GoTemplateError("the template is nested too deeply") from None

    def _in_turns(self, rows: Sequence[Mapping[str, Any]], main: Sequence[Node], made: Any) -> str:
        """Render the conversation with a template for a single question and answer."""
        parts: list[str] = []
        turn = {"System": "", "Prompt": "", "Response": ""}
        for row in rows:
            field = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(row["Role"])
            if field is None:
                continue
            behind = {"System": ("Prompt", "Response"), "Prompt": ("Response",), "Response": ()}[field]
            if any(turn[name] for name in behind):
                parts.append(made(main, **turn))
                turn = dict.fromkeys(turn, "")
            turn[field] = row["Content"]
        parts.append(made(before_response(main), **turn))
        return concatenate(parts)


def _joined(texts: Sequence[str]) -> str:
    return concatenate([part for text in texts for part in ("\n\n", text)][1:])


def _merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge adjacent messages of one role, except the results of tools."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if found and found[-1]["Role"] == row["Role"] != "tool":
            calls = [*found[-1]["ToolCalls"], *row["ToolCalls"]]
            found[-1] = {**found[-1], "Content": _joined([found[-1]["Content"], row["Content"]]), "ToolCalls": calls}
        else:
            found.append(row)
    return found
