#!/usr/bin/env python3
"""Answers with the help of Python functions: `python examples/tool_agent.py "What is 12 * 34?" --model MODEL`.

The functions are told to the model as tools; it calls them as often as it wants, and answers in the end. Strict tools
hold the arguments to their schema. Needs: pip install "llamacpu[grammar]", and a model that was trained to call tools
(Llama 3.1 and newer, Qwen 2.5 and 3, Mistral, ...).
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import operator
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import resources
from typing import Any, get_type_hints

import llamacpu

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")
TYPES = {str: {"type": "string", "maxLength": 40}, int: {"type": "integer"}, float: {"type": "number"}}
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def calculate(expression: str) -> str:
    """Compute a sum such as (2 + 3) * 4."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return float(OPERATORS[type(node.op)](value(node.left), value(node.right)))
        raise ValueError(f"{expression!r} is no sum of numbers with + - * / and brackets")

    return f"{value(ast.parse(expression, mode='eval').body):g}"


def date_today() -> str:
    """The date of today in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def tool_of(function: Callable[..., str]) -> dict[str, Any]:
    """Return the tool that describes a function to the model: its name, description and argument types."""
    hints = get_type_hints(function)
    properties = {name: TYPES[hints[name]] for name in inspect.signature(function).parameters}
    parameters = {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip
    described = {"name": function.__name__, "description": function.__doc__, "parameters": parameters, "strict": True}
    return {"type": "function", "function": described}


def run(
    model: llamacpu.Model,
    question: str,
    functions: list[Callable[..., str]],
    *,
    first: Any = "auto",
    most_turns: int = 6,
) -> str:
    """Return the answer. `first` is the tool choice of the first turn; "required" makes the model call a tool."""
    tools: Any = [tool_of(function) for function in functions]
    by_name = {function.__name__: function for function in functions}
    messages: Any = [{"role": "user", "content": question}]
    for turn in range(most_turns):
        answer = model.chat(messages, tools=tools, tool_choice=first if turn == 0 else "auto", max_tokens=400)
        if not answer.tool_calls:
            return answer.content
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
        messages.append({"role": "assistant", "content": answer.content, "tool_calls": calls})
        for call in answer.tool_calls:
            # Every error is reported to the model, which may try again.
            try:
                result = by_name[call.name](**json.loads(call.arguments))
            except Exception as error:
                result = f"Error: {error}"
            sys.stderr.write(f"{call.name}({call.arguments}) -> {result}\n")
            messages.append({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result})
    return answer.content


def main() -> None:
    """Read the command line and answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--model", default=DEMO, help="file or name (the demo model, which knows no tools)")
    parser.add_argument("--use-a-tool", action="store_true", help="make the model call one first")
    given = parser.parse_args()
    with llamacpu.Model(given.model) as model:
        first = "required" if given.use_a_tool else "auto"
        sys.stdout.write(run(model, given.question, [calculate, date_today], first=first) + "\n")


if __name__ == "__main__":
    main()
