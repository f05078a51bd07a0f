"""Grammars of tool calls for one set of tools, in the notations of current models.

grammars   a call, its tag, or text that is not a call
rules      calls in JSON and in Python notation
elements   calls with one element per argument
gemma      calls as Gemma 4 writes them

Every grammar is written in llguidance's dialect of Lark.
"""

from llamacpu.constraints.tool_grammar.grammars import BARE, ToolGrammars

__all__ = ["BARE", "ToolGrammars"]
