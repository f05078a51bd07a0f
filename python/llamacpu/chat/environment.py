"""The sandbox in which chat templates run.

It is Jinja's immutable sandbox, set up as Hugging Face transformers sets it up for ``apply_chat_template`` (blocks
trimmed, loop controls, the ``generation`` tag, plain JSON), with a code generator that charges every loop, call,
operator and piece of output to the budget of the rendering (`limits`) and tracks where text came from (`traced`).
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import Template
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from llamacpu.chat import filters, operations
from llamacpu.chat.limits import Budget
from llamacpu.chat.traced import Traced, concatenate
from llamacpu.errors import TemplateError


class _Generation(Extension):
    """``{% generation %}``: marks the assistant's text for training; in a prompt it renders its content."""

    tags = {"generation"}  # noqa: RUF012 (declared this way in Jinja)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A separate scope, because transformers turns the tag into a call block, which has one.
        return [nodes.Scope(body)]


class _Generator(CodeGenerator):
    """Jinja's code generator, which passes every value, step and piece of output to the environment."""

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.literal({''.join(group)!r})"

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        # Nothing is computed during compilation, because no budget applies there.
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return node.data

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("environment.emit(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 (a Jinja name)
        node.body.insert(0, nodes.ExprStmt(_tick(), lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(_tick(), node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        if isinstance(node.node, nodes.EnvironmentAttribute):
            self.write(f"environment.{node.node.name}()")
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _counted(self, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._counted(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._counted(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._counted(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            self._counted(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier, frame: Frame) -> None:  # noqa: N802
        self.fail("automatic escaping has no place in a chat template", node.lineno)

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Frame) -> None:  # noqa: N802
        self.fail("automatic escaping has no place in a chat template", node.lineno)


def _tick() -> nodes.Expr:
    return nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)


class _Formatter(SandboxedFormatter):
    """``str.format`` that rejects excessive widths."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        operations.check_format(format_spec)
        return super().format_field(value, format_spec)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox; `render` makes a copy of it for each rendering."""

    code_generator_class: type[CodeGenerator] = _Generator
    intercepted_binops: frozenset[str] = frozenset(operations.BINARY)
    concat: staticmethod[[Iterable[str]], str] = staticmethod(concatenate)
    budget: Budget

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols])
        self.filters: dict[str, Callable[..., Any]] = filters.all_filters()
        del self.globals["lipsum"]
        self.globals["dict"] = _make_dict
        self.globals["namespace"] = filters.TemplateNamespace
        self.globals["raise_exception"] = filters.raise_exception
        self.globals["strftime_now"] = filters.strftime_now

    def render(self, code: types.CodeType, budget: Budget, variables: Mapping[str, Any]) -> str:
        """Run the compiled template `code` and charge it to `budget`."""
        environment = copy.copy(self)
        environment.budget = budget
        template = Template.from_code(environment, code, environment.make_globals(None))
        context = template.new_context(dict(variables))
        return concatenate(template.root_render_func(context))

    # Called by the generated code.

    def tick(self) -> bool:
        return self.budget.tick()

    def literal(self, text: str) -> str:
        self.budget.spend(len(text))
        return text

    def emit(self, value: Any) -> str:
        self.budget.tick()
        text = value if isinstance(value, str) else filters.text_of(self.budget, value)
        self.budget.spend(self.budget.size(text))
        return text

    def join(self, values: tuple[Any, ...]) -> str:
        budget = self.budget
        parts = [value if isinstance(value, str) else filters.text_of(budget, value) for value in values]
        budget.expect(sum(map(budget.size, parts)))
        return budget.made(concatenate(parts))

    def made(self, value: Any) -> Any:
        self.budget.tick()
        return self.budget.made(value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.tick()
        return operations.BINARY[operator](self.budget, left, right)

    # Called by the sandbox.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and operations.allowed_attribute(obj, attr)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise operations.forbidden(f"attribute {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        name = getattr(value, "__name__", None)
        if name not in ("format", "format_map") or not isinstance(getattr(value, "__self__", None), str):
            return None

        def run(*args: Any, **kwargs: Any) -> str:
            text, budget = value.__self__, self.budget
            if name == "format_map":
                args, kwargs = (), dict(*args)
            count = str.count(text, "{")
            budget.expect(budget.size(text) + count * (1000 + sum(map(budget.size, (*args, *kwargs.values())))))
            if budget.tracking:
                traced = text if isinstance(text, Traced) else Traced(text, bytes(len(text)))
                return budget.made(traced.format_with(_Formatter(self), args, kwargs))
            return budget.made(_Formatter(self).vformat(text, args, kwargs))

        return run

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        self, called = __self, __obj
        self.budget.tick()
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str) and not isinstance(called, type):
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return operations.call_string_method(self.budget, owner, called.__name__, args, kwargs)
        if isinstance(owner, (list, tuple, dict, int, float)):
            self.budget.expect(sum(map(self.budget.size, args)))
            return super().call(__context, called, *args, **kwargs)
        if self.budget.depth >= self.budget.limits.depth:
            raise TemplateError(f"the chat template calls itself more than {self.budget.limits.depth} levels deep")
        self.budget.depth += 1
        try:
            result = super().call(__context, called, *args, **kwargs)
        finally:
            self.budget.depth -= 1
        return self.budget.made(result)


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def compile_template(environment: ChatEnvironment, source: str) -> types.CodeType:
    """Compile a template's source to a code object; raises Jinja's TemplateSyntaxError for invalid source."""
    code = environment.compile(source, filename="<chat template>")
    return code if isinstance(code, types.CodeType) else compile(code, "<chat template>", "exec")


__all__ = ["ChatEnvironment", "compile_template"]
