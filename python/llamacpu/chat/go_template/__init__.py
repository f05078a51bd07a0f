"""Go's text/template, as far as the templates of Ollama's models use it.

source      the text, and where in it something is wrong
lexer, literals, nodes, parser   text -> tokens -> nodes
values      what Go's values are in Python
functions, printf   what templates may call
evaluator   nodes and a value -> text
"""

from llamacpu.chat.go_template.evaluator import Evaluator
from llamacpu.chat.go_template.functions import FUNCTIONS
from llamacpu.chat.go_template.parser import MAIN, parse
from llamacpu.chat.go_template.source import GoTemplateError, Source

__all__ = ["FUNCTIONS", "MAIN", "Evaluator", "GoTemplateError", "Source", "parse"]
