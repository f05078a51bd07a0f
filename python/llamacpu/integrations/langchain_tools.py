"""Tools and structured answers for LangChain's chat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

METHODS = ("json_schema", "function_calling", "json_mode")


def tool_of(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """The definition of a tool in the form of the OpenAI API."""
    found: dict[str, Any] = convert_to_openai_tool(tool, strict=strict)
    return found


def choice_of(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Any:
    """The tool choice in the form of the OpenAI API. Raises ValueError for a name that is not among the tools."""
    if isinstance(choice, Mapping):
        return choice
    if choice is True or choice in ("any", "required"):
        return "required"
    if choice in ("auto", "none"):
        return choice
    names = [tool["function"]["name"] for tool in tools]
    if choice not in names:
        raise ValueError(
            f"tool_choice is {choice!r}; expected 'auto', 'none', 'any', 'required' or one of {', '.join(names)}"
        )
    return {"type": "function", "function": {"name": choice}}


def structured(
    model: Any, schema: Any, method: str, include_raw: bool, strict: bool | None, kwargs: Mapping[str, Any]
) -> Runnable[Any, Any]:
    """The model followed by a parser for its answers; see `ChatLlamaCpu.with_structured_output`.

    Raises ValueError for an unknown method, or if the method needs a schema and there is none.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if schema is None and method != "json_mode":
        raise ValueError(f"the method {method} needs a schema: a dict, a pydantic class or a TypedDict")
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    told = {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}
    parser: Any
    if method == "function_calling":
        name = tool_of(schema)["function"]["name"]
        bound = model.bind_tools([schema], tool_choice=name, strict=strict, **told, **kwargs)
        if is_class:
            parser = PydanticToolsParser(tools=[schema], first_tool_only=True)
        else:
            parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    else:
        form: dict[str, Any] = {"type": "json_object"}
        if schema is not None:
            found = convert_to_json_schema(schema)
            inner = {
                "name": found.get("title", "answer"),
                "schema": found,
                **({} if strict is None else {"strict": strict}),
            }
            form = {"type": "json_schema", "json_schema": inner}
        bound = model.bind(response_format=form, **told, **kwargs)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    if not include_raw:
        return bound | parser
    read = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | read.with_fallbacks([unread], exception_key="parsing_error")
