"""Go's text/template, to the extent that the templates of Ollama's models use it.

source      the text of a template, and errors with their position in it
lexer, literals, nodes, parser   text -> tokens -> nodes
values      Go's values in Python
functions, printf   the functions that templates may call
evaluator   nodes and a value -> text
walking     field names, and the position of the answer
"""

from llamacpu.chat.go_template.evaluator import Evaluator
from llamacpu.chat.go_template.functions import FUNCTIONS
from llamacpu.chat.go_template.parser import MAIN, parse
from llamacpu.chat.go_template.source import GoTemplateError, Source

__all__ = ["FUNCTIONS", "MAIN", "Evaluator", "GoTemplateError", "Source", "parse"]
