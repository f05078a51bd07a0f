"""Reading the pickle of a state dict without unpickling it: nothing is imported or called.

A pickle is a program for a stack machine. This one knows the instructions that `torch.save` writes for a table of
tensors and, of the objects that they name, the few that describe tensors. Everything else is refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamacpu.errors import CheckpointError

__all__ = ["Global", "Storage", "TensorView", "read_pickle", "read_pickles"]

MAX_INSTRUCTIONS = 2_000_000  # fifty thousand tensors; bounds the memory that small instructions ask for
STORAGES = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
TYPES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_REBUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")


@dataclass(frozen=True)
class Global:
    """The name of an object of another module; it stands for that object and is never looked up."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """A run of elements: its key in the archive, the type of its elements, and their number."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorView:
    """A tensor: a storage, and in numbers of elements where it begins, its shape and its strides; unchecked."""

    storage: Storage
    offset: Any
    shape: Any
    stride: Any
    dtype: str


def read_pickle(data: bytes, what: str) -> Any:
    """Return the value that a pickle describes: dicts, lists, tuples, texts, numbers, `TensorView`s and `Global`s.

    The value may contain itself, and may share its parts so often that walking through all of them never ends.

    what: names the pickle in messages. Raises CheckpointError for everything that a table of tensors does not need.
    """
    return read_pickles(data, 1, what)[0][0]


def read_pickles(data: bytes, count: int, what: str) -> tuple[list[Any], int]:
    """Return the values of several pickles that follow each other, and the place after the last; as `read_pickle`."""
    machine = _Machine(data, what)
    try:
        return [machine.run() for _ in range(count)], machine.place
    except (IndexError, struct.error) as error:
        raise machine.refusal("the pickle is damaged or was cut off") from error


class _Machine:
    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.place = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def refusal(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.what}, byte {self.place}: {reason}")

    def run(self) -> Any:
        self.stack, self.marks, self.memo = [], [], {}
        for _ in range(MAX_INSTRUCTIONS):
            code = self.data[self.place]
            self.place += 1
            if code == ord("."):
                return self.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise self.refusal(
                    f"the pickle instruction {chr(code)!r} is none that a table of tensors needs; it was not run"
                )
            instruction(self)
        raise self.refusal(f"more than {MAX_INSTRUCTIONS} instructions; no table of tensors needs as many")

    def take(self, length: int) -> bytes:
        if not 0 <= length <= len(self.data) - self.place:
            raise self.refusal(f"a value of {length} bytes, but only {len(self.data) - self.place} follow")
        self.place += length
        return self.data[self.place - length : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.place, self.place + 1000)
        if end < 0:
            raise self.refusal("a name without an end")
        return self.text(self.take(end + 1 - self.place)[:-1])

    def text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self.refusal("a text that is not UTF-8") from error

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise self.refusal("the pickle is damaged: an item is taken from below a mark")
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def run_of_items(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def items_of_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise self.refusal(f"item {index} of the memo was never stored")
        self.push(self.memo[index])

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise self.refusal("items are appended to what is not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if not isinstance(table, dict) or len(items) % 2:
            raise self.refusal("items are set in what is not a table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a nested tuple could take exponential time.
            if type(key) not in (str, int):
                raise self.refusal(f"a key of the kind {type(key).__name__}; expected the name of a tensor")
            table[key] = value

    def global_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.refusal("the name of an object is not a text")
        known = (
            (module == "torch._utils" and name in _REBUILDERS)
            or (module in ("torch", "torch.storage") and (name in STORAGES or name in TYPES or name == "Size"))
            or (module, name) == ("collections", "OrderedDict")
        )
        if not known:
            raise self.refusal(
                f"the file asks for {module}.{name}, which no table of tensors needs; it was not called. "
                "Use a safetensors version of the model, if you trust this one"
            )
        self.push(Global(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.global_name(module, name)

    def persistent(self) -> None:
        """`("storage", type, key, device, number of elements)`, before version 1.6 with None after them."""
        item = self.pop()
        if isinstance(item, tuple) and len(item) == 6 and item[5] is None:
            item = item[:5]
        if not isinstance(item, tuple) or len(item) != 5 or item[0] != "storage":
            raise self.refusal("an external object that is not a storage")
        kind, key, count = item[1], item[2], item[4]
        if not isinstance(kind, Global) or kind.name not in STORAGES or type(key) is not str or type(count) is not int:
            raise self.refusal("a storage of an unknown form")
        self.push(Storage(key, STORAGES[kind.name], count))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise self.refusal("a call of what is not a function")
        name, count = function.name, len(arguments)
        first = arguments[0] if arguments else None
        if name == "OrderedDict" and not arguments:
            self.push({})
        elif (name == "Size" and count == 1) or (name == "_rebuild_parameter" and isinstance(first, TensorView)):
            self.push(first)
        elif name in _REBUILDERS and count >= 4:
            self.push(self.tensor(name, arguments))
        else:
            raise self.refusal(f"a call of {function.module}.{name} with {count} arguments; it was not called")

    def tensor(self, name: str, arguments: tuple[Any, ...]) -> TensorView:
        storage, dtype = arguments[0], None
        if not isinstance(storage, Storage):
            raise self.refusal(f"a tensor without a storage ({type(storage).__name__})")
        if name == "_rebuild_tensor_v3":
            kind = arguments[6] if len(arguments) > 6 else None
            dtype = TYPES.get(kind.name) if isinstance(kind, Global) else None
            if dtype is None:
                raise self.refusal("a tensor of an unknown type")
        offset, shape, stride = arguments[1:4]
        return TensorView(storage, offset, shape, stride, dtype or storage.dtype)

    def build(self) -> None:
        """The attributes of an OrderedDict: `_metadata`, the versions of the modules. They are dropped."""
        state = self.pop()
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise self.refusal(f"attributes for an object of the kind {type(self.stack[-1]).__name__}")


def _protocol(machine: _Machine) -> None:
    version = machine.number("<B")
    if version > 5:
        raise machine.refusal(f"pickle protocol {version}; expected at most 5")


def _one(machine: _Machine) -> list[Any]:
    return [machine.pop()]


def _two(machine: _Machine) -> list[Any]:
    value, key = machine.pop(), machine.pop()
    return [key, value]


_INSTRUCTIONS: dict[int, Callable[[_Machine], Any]] = {
    ord(code): instruction
    for code, instruction in {
        "\x80": _protocol,
        "\x95": lambda m: m.number("<Q"),  # the length of a frame
        "(": lambda m: m.marks.append(len(m.stack)),
        "}": lambda m: m.push({}),
        "]": lambda m: m.push([]),
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.run_of_items())),
        "\x85": lambda m: m.items_of_tuple(1),
        "\x86": lambda m: m.items_of_tuple(2),
        "\x87": lambda m: m.items_of_tuple(3),
        "a": lambda m: m.append(_one(m)),
        "e": lambda m: m.append(m.run_of_items()),
        "s": lambda m: m.set_items(_two(m)),
        "u": lambda m: m.set_items(m.run_of_items()),
        "q": lambda m: m.remember(m.number("<B")),
        "r": lambda m: m.remember(m.number("<I")),
        "\x94": lambda m: m.remember(len(m.memo)),
        "h": lambda m: m.recall(m.number("<B")),
        "j": lambda m: m.recall(m.number("<I")),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "J": lambda m: m.push(m.number("<i")),
        "\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: m.push(m.text(m.take(m.number("<I")))),
        "\x8c": lambda m: m.push(m.text(m.take(m.number("<B")))),
        "\x8d": lambda m: m.push(m.text(m.take(m.number("<Q")))),
        "c": lambda m: m.global_name(m.line(), m.line()),
        "\x93": lambda m: m.stack_global(),
        "Q": lambda m: m.persistent(),
        "R": lambda m: m.reduce(),
        "b": lambda m: m.build(),
    }.items()
}
