"""Request bodies: read within limits, parsed strictly, validated against their typed models."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from llamacpu.server.errors import ApiError, invalid
from llamacpu.server.settings import Settings

__all__ = ["Body", "checked", "parsed", "read"]

# A string that is never closed matches up to the end of the data, so no position is scanned twice.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_TAG = re.compile(r"^(function-|nullable|constrained-|(str|int|float|bool|dict|list|literal|json-or-python|any)\b)|\[")


class Body(BaseModel):
    """A request body: unknown fields are ignored, invalid values are rejected."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="ignore", strict=True, protected_namespaces=(), allow_inf_nan=False
    )


Checked = TypeVar("Checked", bound=BaseModel)


async def read(request: Request, settings: Settings) -> bytes:
    """Read the bytes of the body. Raises ApiError if it is too large, too slow or compressed."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "the body is compressed; send it as it is")
    limit = settings.body_bytes
    too_large = ApiError(413, f"the body has more than {limit} bytes; send less", code="body_too_large")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > limit:
        raise too_large

    async def whole() -> bytes:
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > limit:
                raise too_large
        return bytes(data)

    try:
        return await asyncio.wait_for(whole(), settings.body_seconds)
    except (asyncio.TimeoutError, TimeoutError):
        seconds = settings.body_seconds
        raise ApiError(408, f"the body did not arrive within {seconds:g} seconds; send it at once") from None
    except ClientDisconnect:
        raise ApiError(400, "the client went away") from None


def parsed(data: bytes, depth: int = 64) -> dict[str, Any]:
    """Parse a body as a JSON object. Raises ApiError for anything else.

    As strict as the standard (RFC 8259): UTF-8, no duplicate keys, finite numbers, no unpaired surrogates, and no
    nesting deeper than `depth`.
    """
    _check_depth(data, depth)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 (byte {error.start}); expected a JSON object") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
    except ApiError:
        raise
    except RecursionError:
        raise invalid(f"the body is nested more than {depth} levels deep") from None
    except json.JSONDecodeError as error:
        raise invalid(f"the body is not JSON: {error.msg} at character {error.pos}; expected a JSON object") from None
    except ValueError:
        raise invalid("the body holds a number with too many digits") from None
    if not isinstance(value, dict):
        raise invalid(f"the body is {_kind(value)}; expected a JSON object")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise invalid(r"a text of the body holds half of a character (\ud800 to \udfff alone)") from None
    return value


def checked(model: type[Checked], value: dict[str, Any]) -> Checked:
    """Validate the body against its typed model. Raises ApiError that names the wrong field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Where a field may have several forms, the error deepest in the body belongs to the form that was meant.
        first = max(error.errors(include_url=False, include_context=False), key=lambda found: len(found["loc"]))
        field = _name(first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        missing = first["type"] == "missing"
        given = "" if missing else f" (it is {_shown(first.get('input'))})"
        raise invalid(f"{field or 'the body'}: {what[:1].lower()}{what[1:]}{given}", field or None) from None


def _check_depth(data: bytes, depth: int) -> None:
    if data.count(b"[") + data.count(b"{") <= depth:
        return
    deep = 0
    for match in _BRACKETS.finditer(_STRINGS.sub(b"", data)):
        deep += 1 if match[0] in b"[{" else -1
        if deep > depth:
            raise invalid(f"the body is nested more than {depth} levels deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise invalid(f"the key {twice[:80]!a} is there twice in one object; expected each key once")
    return found


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise invalid("the body holds a number that is too large")
    return number


def _constant(text: str) -> Any:
    raise invalid(f"the body holds {text}, which is no JSON; expected finite numbers")


def _name(location: Sequence[int | str]) -> str:
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif not _TAG.search(part) and not part[:1].isupper():
            name += f".{part}" if name else part
    return name


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return _kind(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
