"""The request body of the Responses API, and the conversion of its items to messages for chat templates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from llamacpu.server.bodies import Body
from llamacpu.server.openai.requests import Part

__all__ = ["ResponsesBody"]

_ITEMS = ("message", "function_call", "function_call_output", "reasoning")


class ResponseItem(Body):
    """An input item: a message, a tool call, a tool result, or reasoning."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in _ITEMS:
            raise ValueError(f"items of the type {value[:40]} are not read; expected one of {', '.join(_ITEMS)}")
        return value


class ResponseTool(Body):
    """A tool that the model may call. Server-side tools are rejected with an error."""

    type: str
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\"\\]+$")] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("type")
    @classmethod
    def _function(cls, value: str) -> str:
        if value != "function":
            raise ValueError(f"tools of the type {value[:40]} are not offered; give tools of the type function")
        return value

    def for_template(self) -> dict[str, Any]:
        """Return it in the form that chat templates expect. Raises ValueError."""
        if self.name is None:
            raise ValueError("tools has a function without name; give its name")
        return {"type": "function", "function": self.model_dump(exclude_none=True, exclude={"type"})}


class ResponseToolChoice(Body):
    """The choice of a specific tool."""

    type: Literal["function"] = "function"
    name: str


class ResponseForm(Body):
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseText(Body):
    """Text settings."""

    format: ResponseForm | None = None


class ResponseReasoning(Body):
    """Reasoning settings: whether the model reasons, and how much."""

    effort: str | None = None


class ResponsesBody(Body):
    """Request body of POST /v1/responses."""

    model: str | None = Field(None, max_length=500)
    input: str | Annotated[list[ResponseItem], Field(min_length=1, max_length=10_000)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    temperature: float | None = Field(None, ge=0, le=1000)
    top_p: float | None = Field(None, ge=0, le=1)
    tools: Annotated[list[ResponseTool], Field(max_length=512)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    text: ResponseText | None = None
    reasoning: ResponseReasoning | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None

    @field_validator("previous_response_id", mode="before")
    @classmethod
    def _no_memory(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("this server keeps no responses; send the whole conversation as input")

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages in the form that chat templates expect. Raises ValueError."""
        found: list[dict[str, Any]] = []
        if self.instructions:
            found.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*found, {"role": "user", "content": self.input}]
        for item in self.input:
            if item.type == "function_call":
                function = {"name": item.name or "", "arguments": item.arguments or "{}"}
                call = {"id": item.call_id, "type": "function", "function": function}
                if found and found[-1].get("tool_calls"):
                    found[-1]["tool_calls"].append(call)
                else:
                    found.append({"role": "assistant", "content": "", "tool_calls": [call]})
            elif item.type == "function_call_output":
                found.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)})
            elif item.type == "message":
                if item.role is None:
                    raise ValueError("input has a message without role; give user, assistant, system or developer")
                found.append({"role": item.role, "content": _content(item.content)})
        return found

    def form(self) -> dict[str, Any] | None:
        """Return the response format in the form of chat completions."""
        form = None if self.text is None else self.text.format
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return {"type": "json_object"}
        inner = {"schema": form.schema_, "strict": form.strict}
        return {"type": "json_schema", "json_schema": {key: value for key, value in inner.items() if value is not None}}

    def variables(self) -> dict[str, Any]:
        """Return the variables of the chat template."""
        effort = None if self.reasoning is None else self.reasoning.effort
        if effort is None:
            return {}
        return {"reasoning_effort": effort, **({"enable_thinking": False} if effort == "none" else {})}


def _content(content: str | list[Part] | None) -> str | list[dict[str, Any]]:
    """The text of an item, or its parts if there are pictures among them."""
    if isinstance(content, list):
        parts = [part.for_template() for part in content]
        if any(part["type"] != "text" for part in parts):
            return parts
        return "".join(part["text"] for part in parts)
    return content or ""
